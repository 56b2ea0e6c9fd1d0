/* Clients that are to hear a message by more than one channel, and are to hear it once. */
#ifndef FC_SHARED_H
#define FC_SHARED_H

#include "shard.h"

struct fc_shared {
    uint64_t *ids; /* for free() */
    uint32_t count;
    uint32_t capacity;
};

/* The room here of the channel that the command names; NULL if it has none. */
static inline struct fc_room *fc_shared_room(const struct fc_shard *shard, const struct fc_command *command)
{
    return command->channel->seats[shard->index].room;
}

/* Those who are members of two or more of the rooms that the commands name, each once. 0 or -ENOMEM. */
int fc_shared_find(const struct fc_shard *shard, const struct fc_command *commands, uint32_t count, struct fc_shared *shared);

#endif
