/* Rooms: dense lists of members, and the flush over them.
 *
 * Invariants: client->position is the client's place in `members`. While a flush is under way places don't move:
 * who leaves makes a hole, who joins goes to the end, beyond the audience; so that a flush in slices serves
 * everyone exactly once. Owned by the shard's thread; the shard makes a room with its first member and
 * frees it after the last.
 */
#include "room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Copying small messages into one buffer once for the shard is cheaper than gathering them for each
 * client; above this size it's the other way round. */
#define JOIN_MAX ((size_t)32 * 1024)

struct fc_room *fc_room_new(struct fc_channel *channel)
{
    struct fc_room *room = calloc(1, sizeof *room);

    if (room)
        room->channel = channel;
    return room;
}

size_t fc_room_free(struct fc_room *room)
{
    size_t weight = room->weight;

    for (uint32_t i = 0; i < room->vectors; i++)
        fc_message_unref(room->batch[i]);
    for (uint32_t i = 0; i < room->due_count; i++) {
        weight += fc_message_weight(room->due[i]);
        fc_message_unref(room->due[i]);
    }
    free(room->due);
    free(room->members);
    free(room);
    return weight;
}

int fc_room_join(struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    if (room->count == room->capacity) {
        uint32_t capacity = room->capacity + room->capacity / 2 + 4;
        uint32_t *grown = realloc(room->members, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        room->members = grown;
        room->capacity = capacity;
    }
    client->room = room;
    client->position = room->count;
    room->members[room->count++] = slot;
    return 0;
}

static void move(struct fc_room *room, const struct fc_clients *clients, uint32_t from, uint32_t to)
{
    room->members[to] = room->members[from];
    fc_clients_at(clients, room->members[to])->position = to;
}

/* Gives memory back when a crowd has gone. */
static void shrink(struct fc_room *room)
{
    if (room->capacity > 64 && room->count < room->capacity / 4) {
        uint32_t capacity = room->capacity / 2;
        uint32_t *smaller = realloc(room->members, capacity * sizeof *smaller);
        if (smaller) {
            room->members = smaller;
            room->capacity = capacity;
        }
    }
}

void fc_room_leave(struct fc_room *room, const struct fc_clients *clients, struct fc_client *client)
{
    if (room->vectors > 0) {
        room->members[client->position] = FC_NO_SLOT;
        room->holes++;
    } else {
        room->count--;
        if (client->position != room->count)
            move(room, clients, room->count, client->position);
        shrink(room);
    }
    client->room = NULL;
}

int fc_room_add(struct fc_room *room, struct fc_message *message)
{
    if (room->due_count == room->due_capacity) {
        uint32_t capacity = room->due_capacity ? 2 * room->due_capacity : 16;
        struct fc_message **grown = realloc(room->due, capacity * sizeof(struct fc_message *));
        if (!grown)
            return -ENOMEM;
        room->due = grown;
        room->due_capacity = capacity;
    }
    room->due[room->due_count++] = message;
    return 0;
}

/* How many of the messages go into one piece. */
static uint32_t run_length(struct fc_message *const *messages, uint32_t n)
{
    size_t size = messages[0]->size;
    uint32_t length = 1;

    while (length < n && size + messages[length]->size <= JOIN_MAX)
        size += messages[length++]->size;
    return length;
}

void fc_room_begin(struct fc_room *room)
{
    uint32_t taken = 0;

    while (taken < room->due_count && room->vectors < FC_ROOM_VECTORS) {
        struct fc_message **run = room->due + taken;
        uint32_t length = run_length(run, room->due_count - taken);
        struct fc_message *piece = run[0];

        if (length > 1) {
            piece = fc_message_join(run[0]->account, run, length);
            if (!piece) { /* no memory: one by one then */
                piece = run[0];
                length = 1;
            }
        }
        for (uint32_t i = 0; i < length; i++) {
            room->weight += fc_message_weight(run[i]);
            if (run[i] != piece)
                fc_message_unref(run[i]);
        }
        room->batch[room->vectors] = piece;
        room->vector[room->vectors].iov_base = (void *)(uintptr_t)fc_message_wire(piece);
        room->vector[room->vectors].iov_len = piece->size;
        room->vectors++;
        room->frames += piece->frames;
        room->bytes += piece->size;
        taken += length;
    }
    room->due_count -= taken;
    room->more = room->due_count > 0;
    memmove(room->due, room->due + taken, room->due_count * sizeof(struct fc_message *));

    /* Steps of the golden ratio spread the starts evenly, whatever the number of members. */
    room->phase += UINT32_C(0x9E3779B9);
    room->audience = room->count;
    room->start = (uint32_t)((uint64_t)room->phase * room->audience >> 32);
    room->visited = 0;
}

uint32_t fc_room_next(struct fc_room *room)
{
    while (room->visited < room->audience) {
        uint32_t place = room->start + room->visited++;
        if (place >= room->audience)
            place -= room->audience;
        if (room->members[place] != FC_NO_SLOT)
            return room->members[place];
    }
    return FC_NO_SLOT;
}

size_t fc_room_end(struct fc_room *room, const struct fc_clients *clients)
{
    size_t weight = room->weight;

    for (uint32_t i = 0; i < room->vectors; i++)
        fc_message_unref(room->batch[i]);
    room->vectors = 0;
    room->frames = 0;
    room->bytes = 0;
    room->weight = 0;
    for (uint32_t i = 0; room->holes > 0 && i < room->count;) {
        if (room->members[i] != FC_NO_SLOT) {
            i++;
            continue;
        }
        room->count--;
        room->holes--;
        if (i < room->count && room->members[room->count] != FC_NO_SLOT)
            move(room, clients, room->count, i++);
        /* else the last place was a hole, too, and this one comes again */
    }
    shrink(room);
    if (room->due_count == 0 && room->due_capacity > 64) {
        free(room->due);
        room->due = NULL;
        room->due_capacity = 0;
    }
    return weight;
}

bool fc_room_owes(const struct fc_room *room, const struct fc_client *client)
{
    if (room->vectors == 0 || client->position >= room->audience)
        return false;
    uint32_t distance = client->position >= room->start ? client->position - room->start
                                                        : client->position + room->audience - room->start;
    return distance >= room->visited;
}
