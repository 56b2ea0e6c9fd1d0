/* What the parts of the door share. */
#ifndef FC_DOOR_H
#define FC_DOOR_H

#include "hub.h"

/* Who hears what is published to the channel, to be released. 0, or an error of fc_hub_publish and nothing to release. */
int fc_door_address(struct fc_hub *hub, struct fc_span name, struct fc_span payload, struct fc_audience *audience);

/* The message for those, under the channel's rule. NULL: no memory. */
struct fc_message *fc_door_message(struct fc_hub *hub, struct fc_span name, bool text, struct fc_span payload,
                                   struct fc_span key);

#endif
