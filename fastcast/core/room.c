/* Rooms: dense lists of members, and the flush over them.
 *
 * Invariants: a client knows its place in `members`. While a flush is under way places don't move: who leaves makes a
 * hole, who joins goes to the end, beyond the audience; so that a flush in slices serves everyone exactly once. Messages
 * are numbered as they come in. Who joins while some wait, or was served ahead of the others, is `late`, until those
 * messages are through: so that a membership has an exact beginning, and nobody gets a message twice.
 *
 * Owned by the shard's thread, which makes a room with its first member and frees it after the last. Members are changed
 * under the channel's lock, so that others may read who they are.
 */
#include "room.h"

#include "extra.h"

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

static void free_flush(struct fc_flush *flush)
{
    for (uint32_t i = 0; i < flush->vectors; i++)
        fc_message_unref(flush->batch[i]);
    for (uint32_t i = 0; flush->singly && i < flush->frames; i++)
        fc_message_unref(flush->singly[i]);
    free(flush->singly);
    free(flush);
}

uint32_t fc_room_drop_due(struct fc_room *room, size_t *weight)
{
    uint32_t dropped = room->due_count;

    *weight = 0;
    for (uint32_t i = 0; i < dropped; i++) {
        *weight += fc_message_weight(room->due[i]);
        fc_message_unref(room->due[i]);
    }
    room->due_count = 0;
    room->picky = false;
    fc_late_prune(&room->late, room->given);
    return dropped;
}

size_t fc_room_free(struct fc_room *room)
{
    size_t weight;

    fc_room_drop_due(room, &weight);
    if (room->flush) {
        weight += room->flush->weight;
        free_flush(room->flush);
    }
    fc_late_free(&room->late);
    free(room->due);
    free(room->members);
    free(room);
    return weight;
}

/* ---- members ---- */

static uint32_t place_of(const struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    return room->everyone ? slot : *fc_client_position(client, room);
}

static int skip_to(struct fc_room *room, struct fc_client *client, uint32_t slot, uint64_t number)
{
    int error = fc_late_put(&room->late, slot, number);

    if (!error)
        client->late = 1;
    return error;
}

int fc_room_skip(struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    return fc_room_busy(room) ? skip_to(room, client, slot, room->given) : 0;
}

static void forget_late(struct fc_room *room, const struct fc_client *client, uint32_t slot)
{
    if (client->late)
        fc_late_remove(&room->late, slot);
}

uint32_t fc_room_missed(const struct fc_room *room, const struct fc_client *client, uint32_t slot, uint64_t first,
                        uint32_t n)
{
    uint64_t from = client->late ? fc_late_find(&room->late, slot) : 0;

    if (from <= first)
        return 0;
    return from - first < n ? (uint32_t)(from - first) : n;
}

static int add_member(struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    if (room->count == room->capacity) {
        uint32_t capacity = room->capacity + room->capacity / 2 + 4;
        uint32_t *grown = realloc(room->members, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        room->members = grown;
        room->capacity = capacity;
    }
    int error = fc_client_add_room(client, room, room->count);
    if (error)
        return error;
    room->members[room->count] = slot;
    return 0;
}

int fc_room_join(struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    return fc_room_join_behind(room, client, slot, 0);
}

int fc_room_join_behind(struct fc_room *room, struct fc_client *client, uint32_t slot, uint64_t had)
{
    int error = had > 0 ? skip_to(room, client, slot, room->given + had) : fc_room_skip(room, client, slot);

    if (!error && !room->everyone)
        error = add_member(room, client, slot);
    if (error)
        forget_late(room, client, slot);
    else
        room->count++;
    return error;
}

int fc_room_go_live(struct fc_room *room, struct fc_client *client, uint32_t slot, uint64_t had)
{
    forget_late(room, client, slot);
    return had > 0 ? skip_to(room, client, slot, room->given + had) : fc_room_skip(room, client, slot);
}

static void move(struct fc_room *room, const struct fc_clients *clients, uint32_t from, uint32_t to)
{
    room->members[to] = room->members[from];
    *fc_client_position(fc_clients_at(clients, room->members[to]), room) = to;
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

void fc_room_leave(struct fc_room *room, const struct fc_clients *clients, struct fc_client *client, uint32_t slot)
{
    uint32_t place = place_of(room, client, slot);

    forget_late(room, client, slot);
    if (room->everyone) {
        room->count--;
        return;
    }
    if (room->flush) {
        room->members[place] = FC_NO_SLOT;
        room->holes++;
    } else {
        room->count--;
        if (place != room->count)
            move(room, clients, room->count, place);
        shrink(room);
    }
    fc_client_remove_room(client, room);
}

/* ---- messages ---- */

int fc_room_add(struct fc_room *room, struct fc_message *message, bool picky)
{
    if (room->due_count == room->due_capacity) {
        uint32_t capacity = room->due_capacity ? 2 * room->due_capacity : 4;
        struct fc_message **grown = realloc(room->due, capacity * sizeof(struct fc_message *));
        if (!grown)
            return -ENOMEM;
        room->due = grown;
        room->due_capacity = capacity;
    }
    room->due[room->due_count++] = message;
    room->given++;
    room->picky |= picky;
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

/* Moves messages from `due` into the batch, as pieces. Returns how many. */
static uint32_t fill_batch(struct fc_room *room, struct fc_flush *flush)
{
    uint32_t taken = 0;

    while (taken < room->due_count && flush->vectors < FC_ROOM_VECTORS) {
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
            flush->weight += fc_message_weight(run[i]);
            if (flush->singly)
                flush->singly[taken + i] = length > 1 ? run[i] : fc_message_ref(run[i]);
            else if (run[i] != piece)
                fc_message_unref(run[i]);
        }
        flush->batch[flush->vectors] = piece;
        flush->vector[flush->vectors].iov_base = (void *)(uintptr_t)fc_message_wire(piece);
        flush->vector[flush->vectors].iov_len = piece->size;
        flush->vectors++;
        flush->frames += piece->frames;
        flush->bytes += piece->size;
        taken += length;
    }
    return taken;
}

int fc_room_begin(struct fc_room *room, const struct fc_clients *clients)
{
    struct fc_flush *flush = calloc(1, sizeof *flush);

    if (!flush)
        return -ENOMEM;
    if (room->picky || room->late.count > 0) {
        flush->singly = malloc(room->due_count * sizeof(struct fc_message *));
        if (!flush->singly) {
            free(flush);
            return -ENOMEM;
        }
    }
    flush->first = room->given - room->due_count;
    uint32_t taken = fill_batch(room, flush);
    room->due_count -= taken;
    memmove(room->due, room->due + taken, room->due_count * sizeof(struct fc_message *));

    /* Steps of the golden ratio spread the starts evenly, whatever the number of members. */
    room->phase += UINT32_C(0x9E3779B9);
    flush->audience = room->everyone ? fc_clients_end(clients) : room->count;
    flush->start = (uint32_t)((uint64_t)room->phase * flush->audience >> 32);
    room->flush = flush;
    return 0;
}

/* The slot at the place, if a member is there. */
static uint32_t member_at(const struct fc_room *room, const struct fc_clients *clients, uint32_t place)
{
    if (!room->everyone)
        return room->members[place];
    const struct fc_client *client = fc_clients_at(clients, place);
    bool is_open = client && (client->state == FC_CLIENT_OPEN || client->state == FC_CLIENT_LEAVING);
    return is_open ? place : FC_NO_SLOT;
}

uint32_t fc_room_next(struct fc_room *room, const struct fc_clients *clients)
{
    struct fc_flush *flush = room->flush;

    while (flush->visited < flush->audience) {
        uint32_t place = flush->start + flush->visited++;
        if (place >= flush->audience)
            place -= flush->audience;
        uint32_t slot = member_at(room, clients, place);
        if (slot != FC_NO_SLOT)
            return slot;
    }
    return FC_NO_SLOT;
}

static void close_holes(struct fc_room *room, const struct fc_clients *clients)
{
    pthread_mutex_lock(&room->channel->lock);
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
    pthread_mutex_unlock(&room->channel->lock);
}

size_t fc_room_end(struct fc_room *room, const struct fc_clients *clients)
{
    size_t weight = room->flush->weight;

    free_flush(room->flush);
    room->flush = NULL;
    if (room->holes > 0)
        close_holes(room, clients);
    fc_late_prune(&room->late, room->given - room->due_count);
    if (room->due_count == 0) {
        room->picky = false;
        if (room->due_capacity > 64) {
            free(room->due);
            room->due = NULL;
            room->due_capacity = 0;
        }
    }
    return weight;
}

bool fc_room_owes(const struct fc_room *room, struct fc_client *client, uint32_t slot)
{
    const struct fc_flush *flush = room->flush;

    if (!flush)
        return false;
    uint32_t place = place_of(room, client, slot);
    if (place >= flush->audience)
        return false;
    uint32_t distance = place >= flush->start ? place - flush->start : place + flush->audience - flush->start;
    return distance >= flush->visited;
}
