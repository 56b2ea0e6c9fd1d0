/* Fan-out: append, then flush.
 *
 * Published messages are appended to their rooms; a flush then goes over a room's members and writes all that
 * came due in one write to each. Rooms with something to send stand in line for the next pass, and a pass is served in
 * slices of some FC_SEND_BATCH writes; between slices the shard reads, accepts and pings. Owned by the shard's thread.
 */
#include "fanout.h"

#include "room.h"
#include "write.h"

#include <errno.h>

static struct fc_seat *seat(const struct fc_shard *shard, struct fc_channel *channel)
{
    return &channel->seats[shard->index];
}

static void append(struct fc_line *line, struct fc_room *room)
{
    room->listed = true;
    room->next = NULL;
    if (line->last)
        line->last->next = room;
    else
        line->first = room;
    line->last = room;
}

static struct fc_room *take_first(struct fc_line *line)
{
    struct fc_room *room = line->first;

    line->first = room->next;
    if (!line->first)
        line->last = NULL;
    return room;
}

/* What isn't written any more is settled all the same. */
static void free_room(struct fc_shard *shard, struct fc_room *room)
{
    struct fc_channel *channel = room->channel;

    seat(shard, channel)->room = NULL;
    fc_exchange_settle(shard->exchange, shard->index, fc_room_free(room));
    fc_channel_unref(&shard->exchange->channels, channel);
}

void fc_fanout_add(struct fc_shard *shard, struct fc_channel *channel, struct fc_message *message)
{
    struct fc_room *room = seat(shard, channel)->room;
    size_t weight = fc_message_weight(message);

    if (room && fc_room_size(room) > 0) {
        if (fc_room_add(room, message) == 0) {
            message = NULL;
            weight = 0;
            if (!room->listed)
                append(&shard->due, room);
        } else {
            fc_count(&shard->counters.sent, fc_room_size(room));
            fc_count(&shard->counters.dropped, fc_room_size(room));
        }
    }
    fc_exchange_settle(shard->exchange, shard->index, weight);
    fc_message_unref(message);
    fc_channel_unref(&shard->exchange->channels, channel);
}

static void set_members(const struct fc_shard *shard, struct fc_channel *channel, uint32_t members)
{
    /* Under the lock that publishers hold: a member hears all that is published after this. */
    pthread_mutex_lock(&channel->lock);
    seat(shard, channel)->members = members;
    pthread_mutex_unlock(&channel->lock);
}

int fc_fanout_join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel)
{
    struct fc_room *room = seat(shard, channel)->room;

    if (room) {
        fc_channel_unref(&shard->exchange->channels, channel); /* the room has one */
    } else {
        room = fc_room_new(channel);
        if (!room) {
            fc_channel_unref(&shard->exchange->channels, channel);
            return -ENOMEM;
        }
        seat(shard, channel)->room = room;
    }
    if (fc_room_join(room, fc_shard_client(shard, slot), slot)) {
        if (fc_room_size(room) == 0 && !room->listed)
            free_room(shard, room);
        return -ENOMEM;
    }
    set_members(shard, room->channel, fc_room_size(room));
    return 0;
}

void fc_fanout_leave(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_room *room = client->room;

    fc_room_leave(room, &shard->clients, client);
    set_members(shard, room->channel, fc_room_size(room));
    if (fc_room_size(room) == 0 && !room->listed)
        free_room(shard, room);
}

void fc_fanout_settle(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_room *room = client->room;
    uint64_t id = fc_shard_id(shard, client, slot);

    if (fc_room_owes(room, client))
        fc_write_messages(shard, slot, room->batch, room->vectors);
    /* Each write may find it too slow, or gone: then it's no member any more, and nothing may follow. */
    for (uint32_t i = 0;
         fc_clients_find(&shard->clients, id) == client && client->room == room && i < room->due_count;) {
        uint32_t n = room->due_count - i < FC_ROOM_VECTORS ? room->due_count - i : FC_ROOM_VECTORS;
        fc_write_messages(shard, slot, room->due + i, n);
        i += n;
    }
}

/* One batch of writes to a room's next members. Returns how many clients it dealt with; 0: all are done. */
static unsigned write_batch(struct fc_shard *shard, struct fc_room *room, unsigned budget)
{
    unsigned n = 0;
    unsigned visited = 0;
    uint32_t slot;

    while (visited < budget && (slot = fc_room_next(room)) != FC_NO_SLOT) {
        struct fc_client *client = fc_shard_client(shard, slot);
        visited++;
        if (client->queue) {
            fc_write_behind(shard, slot, room->batch, room->vectors);
            continue;
        }
        shard->sends[n] =
            (struct fc_send){.fd = (int)client->fd, .vectors = room->vectors, .vector = room->vector};
        shard->send_slots[n++] = slot;
    }
    fc_count(&shard->counters.sent, (uint64_t)visited * room->frames);
    fc_io_send(shard->io, shard->sends, n);

    uint64_t complete = 0;
    for (unsigned i = 0; i < n; i++) {
        /* A client that is ending isn't a member, so that a complete write needs nothing but to be counted. */
        if (shard->sends[i].result == (ssize_t)room->bytes)
            complete++;
        else
            fc_write_done(shard, shard->send_slots[i], room->batch, room->vectors, shard->sends[i].result);
    }
    fc_count(&shard->counters.delivered, complete * room->frames);
    fc_count(&shard->counters.sent_bytes, complete * room->bytes);
    return visited;
}

bool fc_fanout_possible(const struct fc_shard *shard)
{
    if (shard->served.first)
        return true;
    return shard->due.first &&
           (shard->now >= shard->flush_after || shard->stopping || fc_exchange_congested(shard->exchange));
}

/* The turn of a room that's first in line. It counts as listed until the end of its turn, so that it isn't freed when a
 * write loses its last member. Returns how many clients were dealt with. */
static unsigned serve(struct fc_shard *shard, struct fc_room *room, unsigned budget)
{
    if (fc_room_size(room) == 0) {
        free_room(shard, room);
        return 0;
    }
    if (room->vectors == 0)
        fc_room_begin(room);
    unsigned visited = write_batch(shard, room, budget);
    if (room->visited < room->audience) {
        append(&shard->served, room); /* behind the others: a large room doesn't hold up the small ones */
        return visited;
    }
    room->listed = false;
    bool more = room->more;
    fc_exchange_settle(shard->exchange, shard->index, fc_room_end(room, &shard->clients));
    if (fc_room_size(room) == 0)
        free_room(shard, room);
    else if (room->due_count > 0)
        append(more ? &shard->served : &shard->due, room);
    return visited;
}

/* A pass serves every room that had something due when it began; what comes due in it waits for the next pass, which
 * with a flush interval begins that much later. */
void fc_fanout_slice(struct fc_shard *shard)
{
    unsigned budget = FC_SEND_BATCH;

    if (!shard->served.first) {
        shard->served = shard->due;
        shard->due = (struct fc_line){0};
        shard->flush_after = shard->now + shard->exchange->options.flush_interval;
    }
    while (shard->served.first && budget > 0) {
        unsigned visited = serve(shard, take_first(&shard->served), budget);
        budget -= visited > 0 ? visited : 1;
    }
}

void fc_fanout_clear(struct fc_shard *shard)
{
    while (shard->served.first)
        free_room(shard, take_first(&shard->served));
    while (shard->due.first)
        free_room(shard, take_first(&shard->due));
}
