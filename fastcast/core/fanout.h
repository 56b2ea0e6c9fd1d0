/* From published messages to every member's socket. */
#ifndef FC_FANOUT_H
#define FC_FANOUT_H

#include "shard.h"

/* A published message has come in. Takes over both references. */
void fc_fanout_add(struct fc_shard *shard, struct fc_channel *channel, struct fc_message *message);

/* Whether fc_fanout_slice would do anything now. */
bool fc_fanout_possible(const struct fc_shard *shard);

/* Writes to some FC_SEND_BATCH clients, and returns: long work is done in slices. */
void fc_fanout_slice(struct fc_shard *shard);

/* Makes the client a member. Takes over the reference, also on failure. 0 or -ENOMEM. */
int fc_fanout_join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel);

/* Ends its membership. What its room still has for it isn't sent, unless fc_fanout_settle came before. */
void fc_fanout_leave(struct fc_shard *shard, uint32_t slot);

/* Delivers at once what its room still has for the member, which must then leave. */
void fc_fanout_settle(struct fc_shard *shard, uint32_t slot);

/* Frees the rooms that are listed without members. */
void fc_fanout_clear(struct fc_shard *shard);

#endif
