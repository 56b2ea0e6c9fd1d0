/* The rooms of a client: one lies in its slot, several in an array sorted by address.
 *
 * Most clients have one channel, and cost nothing here. Sorted, since a room that moves one of its members has to find
 * the client's note of its place, and a client may have a thousand of them. Owned by the shard's thread.
 */
#include "extra.h"

#include "room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fc_channel *fc_client_home(const struct fc_client *client)
{
    if (client->extended)
        return client->extra->home;
    return client->room ? client->room->channel : NULL;
}

/* The first membership that isn't before the room's. */
static uint32_t place_of(const struct fc_extra *extra, const struct fc_room *room)
{
    uint32_t low = 0;
    uint32_t high = extra->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)extra->members[middle].room < (uintptr_t)room)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t *fc_client_position(struct fc_client *client, const struct fc_room *room)
{
    if (!client->extended)
        return client->room == room ? &client->position : NULL;
    uint32_t place = place_of(client->extra, room);
    if (place == client->extra->count || client->extra->members[place].room != room)
        return NULL;
    return &client->extra->members[place].position;
}

static int reserve(struct fc_extra *extra)
{
    if (extra->count < extra->capacity)
        return 0;
    uint32_t capacity = extra->capacity + extra->capacity / 2 + 2;
    struct fc_membership *grown = realloc(extra->members, capacity * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    extra->members = grown;
    extra->capacity = capacity;
    return 0;
}

static void insert(struct fc_extra *extra, struct fc_room *room, uint32_t position)
{
    uint32_t place = place_of(extra, room);

    memmove(extra->members + place + 1, extra->members + place, (extra->count - place) * sizeof *extra->members);
    extra->members[place] = (struct fc_membership){room, position};
    extra->count++;
}

int fc_client_extend(struct fc_client *client)
{
    if (client->extended)
        return 0;
    struct fc_channel *home = fc_client_home(client);
    struct fc_extra *extra = calloc(1, sizeof *extra);
    if (!extra)
        return -ENOMEM;
    if (client->room) {
        if (reserve(extra)) {
            free(extra);
            return -ENOMEM;
        }
        insert(extra, client->room, client->position);
    }
    extra->home = home ? fc_channel_ref(home) : NULL;
    client->extra = extra;
    client->extended = 1;
    return 0;
}

int fc_client_add_room(struct fc_client *client, struct fc_room *room, uint32_t position)
{
    if (!client->extended && !client->room) {
        client->room = room;
        client->position = position;
        return 0;
    }
    if (fc_client_extend(client) || reserve(client->extra))
        return -ENOMEM;
    insert(client->extra, room, position);
    if (!client->extra->home)
        client->extra->home = fc_channel_ref(room->channel);
    return 0;
}

void fc_client_remove_room(struct fc_client *client, const struct fc_room *room)
{
    if (!client->extended) {
        client->room = NULL;
        return;
    }
    struct fc_extra *extra = client->extra;
    uint32_t place = place_of(extra, room);
    extra->count--;
    memmove(extra->members + place, extra->members + place + 1, (extra->count - place) * sizeof *extra->members);
}

int fc_client_add_replay(struct fc_client *client, struct fc_channel *record, const struct fc_position *position)
{
    struct fc_replaying *replaying = fc_client_extend(client) ? NULL : malloc(sizeof *replaying);

    if (!replaying)
        return -ENOMEM;
    *replaying = (struct fc_replaying){.record = fc_channel_ref(record), .position = *position};
    struct fc_replaying **last = &client->extra->replays;
    while (*last)
        last = &(*last)->next;
    *last = replaying;
    return 0;
}

static void free_replay(struct fc_replaying **place, struct fc_channels *channels)
{
    struct fc_replaying *replaying = *place;

    *place = replaying->next;
    fc_channel_unref(channels, replaying->record);
    free(replaying);
}

void fc_client_remove_replay(struct fc_client *client, struct fc_channels *channels, const struct fc_channel *record)
{
    if (!client->extended)
        return;
    for (struct fc_replaying **place = &client->extra->replays; *place; place = &(*place)->next) {
        if ((*place)->record == record) {
            free_replay(place, channels);
            return;
        }
    }
}

void fc_client_free_extra(struct fc_client *client, struct fc_channels *channels)
{
    if (!client->extended)
        return;
    while (client->extra->replays)
        free_replay(&client->extra->replays, channels);
    fc_channel_unref(channels, client->extra->home);
    free(client->extra->members);
    free(client->extra);
    client->extra = NULL;
    client->extended = 0;
}
