/* Finds the clients that one message reaches by several of their channels. */
#include "shared.h"

#include "extra.h"
#include "room.h"

#include <errno.h>
#include <stdlib.h>

static int note_id(struct fc_shared *list, uint64_t id)
{
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity ? 2 * list->capacity : 16;
        uint64_t *grown = realloc(list->ids, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        list->ids = grown;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return 0;
}

static uint32_t largest_of(const struct fc_shard *shard, const struct fc_command *commands, uint32_t count)
{
    uint32_t largest = 0;
    uint32_t most = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct fc_room *room = fc_shared_room(shard, &commands[i]);
        if (room && room->count > most) {
            most = room->count;
            largest = i;
        }
    }
    return largest;
}

/* Whether a member of the i-th room is one of another, too, and hasn't been found there. The largest isn't searched. */
static bool is_shared(const struct fc_shard *shard, struct fc_client *client, const struct fc_command *commands,
                      uint32_t count, uint32_t i, uint32_t largest)
{
    bool shared = false;

    for (uint32_t k = 0; k < count; k++) {
        if (k == i || !fc_client_is_member(client, fc_shared_room(shard, &commands[k])))
            continue;
        if (k < i && k != largest)
            return false;
        shared = true;
    }
    return shared;
}

/* All of them are in a room other than the largest. */
int fc_shared_find(const struct fc_shard *shard, const struct fc_command *commands, uint32_t count, struct fc_shared *shared)
{
    uint32_t largest = largest_of(shard, commands, count);

    for (uint32_t i = 0; i < count; i++) {
        const struct fc_room *room = fc_shared_room(shard, &commands[i]);
        for (uint32_t place = 0; i != largest && room && place < room->count; place++) {
            uint32_t slot = room->members[place];
            if (slot == FC_NO_SLOT)
                continue;
            struct fc_client *client = fc_shard_client(shard, slot);
            if (fc_client_rooms(client) >= 2 && is_shared(shard, client, commands, count, i, largest) &&
                note_id(shared, fc_shard_id(shard, client, slot)))
                return -ENOMEM;
        }
    }
    return 0;
}
