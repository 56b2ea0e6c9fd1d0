/* How clients come into a shard: from its listeners, and handed over by shards that are full. */
#ifndef FC_ACCEPT_H
#define FC_ACCEPT_H

#include "shard.h"

/* Accepts a slice; shard->accept_pending stays true when there may be more. */
void fc_accept_some(struct fc_shard *shard);

/* Takes what came through the door; shard->door_pending stays true when there may be more. */
void fc_accept_handed(struct fc_shard *shard);

/* Whether they would do anything now. */
bool fc_accept_possible(const struct fc_shard *shard);
bool fc_accept_handed_possible(const struct fc_shard *shard);

#endif
