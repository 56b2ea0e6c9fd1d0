/* Tells Python of one client. */
#ifndef FC_INSPECT_H
#define FC_INSPECT_H

#include "shard.h"

/* Replies with an FC_EVENT_INFO, which carries the token. */
void fc_inspect(struct fc_shard *shard, uint64_t client, uint64_t token);

/* Tells an FC_EVENT_MISSING if it isn't open. */
void fc_inspect_check(struct fc_shard *shard, uint64_t client);

#endif
