/* From published messages to every member's socket. */
#ifndef FC_FANOUT_H
#define FC_FANOUT_H

#include "shard.h"

/* A published message has come in, for the members of the channels that these commands name, each client once. Takes over
 * the references of the commands. */
void fc_fanout_add(struct fc_shard *shard, const struct fc_command *commands, uint32_t count);

/* Whether fc_fanout_slice would do anything now. */
bool fc_fanout_possible(const struct fc_shard *shard);

/* Writes to some FC_SEND_BATCH clients, and returns: long work is done in slices. */
void fc_fanout_slice(struct fc_shard *shard);

/* Makes the client a member, if it isn't one. Takes over the reference, also on failure. 0 or -ENOMEM. */
int fc_fanout_join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel);

/* The same for a record: the client hears what is published after the replay, which is to be written to it at once; it has
 * no epoch if the client was a member already. If there's more of it, the client hears nothing yet. */
int fc_fanout_join_record(struct fc_shard *shard, uint32_t slot, struct fc_channel *record, const struct fc_since *since,
                          struct fc_replay *replay);

/* The next piece for such a member. 0 or -ENOMEM. */
int fc_fanout_go_on(struct fc_shard *shard, uint32_t slot, struct fc_channel *record, const struct fc_position *position,
                    struct fc_replay *replay);

/* Ends its membership, if it is one, behind what the channel still has for it. The write may lose the client. */
void fc_fanout_part(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel);

/* The client, which is now open, is among everyone. 0 or -ENOMEM. */
int fc_fanout_enter(struct fc_shard *shard, uint32_t slot);

/* Ends all its memberships. What its rooms still have for it isn't sent, unless fc_fanout_catch_up came before. */
void fc_fanout_leave(struct fc_shard *shard, uint32_t slot);

/* Delivers at once what the client's rooms still have for it. False: that has lost the client, or closed it. */
bool fc_fanout_catch_up(struct fc_shard *shard, uint32_t slot);

/* The room of all clients. 0 or -ENOMEM. */
int fc_fanout_open(struct fc_shard *shard);

/* Frees what is left, when there are no clients any more. */
void fc_fanout_close(struct fc_shard *shard);

#endif
