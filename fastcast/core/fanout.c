/* Fan-out: append, then flush.
 *
 * Published messages are appended to their rooms; a flush then goes over a room's members and writes all that
 * came due in one write to each. Rooms with something to send stand in line for the next pass, and a pass is served in
 * slices of some FC_SEND_BATCH writes; between slices the shard reads, accepts and pings.
 *
 * A client that must be served out of turn (it leaves a room, gets something of its own, or two of its channels get the
 * same message) is caught up: what its rooms owe it is written at once, and they note that it has it. Owned by the
 * shard's thread.
 */
#include "fanout.h"

#include "conn.h"
#include "extra.h"
#include "marks.h"
#include "shared.h"
#include "write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct fc_seat *seat(const struct fc_shard *shard, struct fc_channel *channel)
{
    return &channel->seats[shard->index];
}

/* ---- lines ---- */

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

/* ---- rooms ---- */

static struct fc_room *open_room(struct fc_shard *shard, struct fc_channel *channel)
{
    struct fc_room *room = fc_room_new(channel);

    if (room) {
        pthread_mutex_lock(&channel->lock);
        seat(shard, channel)->room = room;
        pthread_mutex_unlock(&channel->lock);
    }
    return room;
}

/* What isn't written any more is settled all the same. */
static void free_room(struct fc_shard *shard, struct fc_room *room)
{
    struct fc_channel *channel = room->channel;

    pthread_mutex_lock(&channel->lock);
    seat(shard, channel)->room = NULL;
    if (channel->history)
        fc_history_touch(&shard->exchange->histories, channel->history, shard->now);
    for (unsigned fate = 0; fate < FC_FATES; fate++)
        fc_shard_tally(shard, channel, fate, atomic_load_explicit(&room->tally.of[fate], memory_order_relaxed));
    pthread_mutex_unlock(&channel->lock);
    fc_exchange_settle(shard->exchange, shard->index, fc_room_free(room));
    fc_channel_unref(&shard->exchange->channels, channel);
}

static void free_if_idle(struct fc_shard *shard, struct fc_room *room)
{
    if (fc_room_size(room) == 0 && !room->listed && !room->everyone)
        free_room(shard, room);
}

int fc_fanout_open(struct fc_shard *shard)
{
    struct fc_channel *everyone = fc_channel_ref(shard->exchange->everyone);

    shard->everyone = open_room(shard, everyone);
    if (!shard->everyone) {
        fc_channel_unref(&shard->exchange->channels, everyone);
        return -ENOMEM;
    }
    shard->everyone->everyone = true;
    return 0;
}

void fc_fanout_close(struct fc_shard *shard)
{
    struct fc_line *lines[] = {&shard->served, &shard->due};

    for (unsigned i = 0; i < 2; i++) {
        while (lines[i]->first) {
            struct fc_room *room = take_first(lines[i]);
            if (!room->everyone)
                free_room(shard, room);
        }
    }
    if (shard->everyone)
        free_room(shard, shard->everyone);
    shard->everyone = NULL;
    fc_marks_close(shard);
}

/* ---- messages come in ---- */

static void drop_for_want_of_memory(struct fc_shard *shard, struct fc_room *room, uint64_t messages)
{
    uint64_t deliveries = messages * fc_room_size(room);
    struct fc_channel *channel = room->channel;

    if (channel->history) {
        pthread_mutex_lock(&channel->lock);
        fc_exchange_lose(shard->exchange, channel, shard->index);
        pthread_mutex_unlock(&channel->lock);
    }

    fc_count(&shard->counters.sent, deliveries);
    fc_count(&shard->counters.dropped, deliveries);
    fc_count(&room->tally.of[FC_SENT], deliveries);
    fc_count(&room->tally.of[FC_DROPPED], deliveries);
}

/* Whether clients that lag must get it for itself, since its rule has more to say than when to close them. */
static bool is_picky(const struct fc_shard *shard, const struct fc_message *message)
{
    const struct fc_exchange *exchange = shard->exchange;

    return message->rule + 1u < exchange->rule_count || exchange->rules[message->rule].policy != FC_POLICY_CLOSE;
}

/* Takes over the reference. */
static void add(struct fc_shard *shard, struct fc_room *room, struct fc_message *message)
{
    size_t weight = fc_message_weight(message);

    if (room && fc_room_size(room) > 0) {
        if (fc_room_add(room, message, is_picky(shard, message)) == 0) {
            if (!room->listed)
                append(&shard->due, room);
            return;
        }
        drop_for_want_of_memory(shard, room, 1);
    }
    fc_exchange_settle(shard->exchange, shard->index, weight);
    fc_message_unref(message);
}

/* ---- out of turn ---- */

static bool is_there(const struct fc_shard *shard, uint64_t id)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, id);

    return client && (client->state == FC_CLIENT_OPEN || client->state == FC_CLIENT_LEAVING);
}

/* Delivers what the room still has for the member, who has then missed nothing. While something is to be sent the room
 * stands in a line, and isn't freed though the member may be lost. False: it is, or has been closed. */
static bool settle(struct fc_shard *shard, uint32_t slot, struct fc_room *room)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    uint64_t id = fc_shard_id(shard, client, slot);
    const struct fc_flush *flush = room->flush;
    uint64_t first_due = room->given - room->due_count;
    uint32_t in_batch = 0;

    if (!fc_room_busy(room))
        return true;
    if (fc_room_owes(room, client, slot))
        in_batch = flush->frames - fc_room_missed(room, client, slot, flush->first, flush->frames);
    uint32_t in_due = room->due_count - fc_room_missed(room, client, slot, first_due, room->due_count);
    if (fc_room_skip(room, client, slot)) {
        fc_conn_drop(shard, slot);
        return false;
    }
    if (in_batch > 0 && flush->singly)
        fc_write_messages(shard, slot, room->channel, flush->singly + flush->frames - in_batch, in_batch);
    else if (in_batch > 0)
        fc_write_messages(shard, slot, room->channel, flush->batch, flush->vectors);
    if (in_due > 0 && is_there(shard, id))
        fc_write_messages(shard, slot, room->channel, room->due + room->due_count - in_due, in_due);
    return is_there(shard, id);
}

bool fc_fanout_catch_up(struct fc_shard *shard, uint32_t slot)
{
    if (!shard->due.first && !shard->served.first)
        return true;
    struct fc_client *client = fc_shard_client(shard, slot);
    for (uint32_t i = 0; i < fc_client_rooms(client); i++) {
        if (!settle(shard, slot, fc_client_room(client, i)))
            return false;
    }
    return settle(shard, slot, shard->everyone);
}

/* ---- one message for several rooms ---- */

/* What its rooms have got before the message is written to the client before it. Its other rooms can wait: messages of
 * different channels have no order. */
static void settle_rooms(struct fc_shard *shard, uint64_t id, const struct fc_command *commands, uint32_t count)
{
    uint32_t slot = fc_client_id_slot(id);

    for (uint32_t i = 0; i < count && is_there(shard, id); i++) {
        struct fc_room *room = fc_shared_room(shard, &commands[i]);
        if (fc_client_is_member(fc_shard_client(shard, slot), room))
            settle(shard, slot, room);
    }
}

/* The message, which the rooms have got by now, goes to a client of several of them at once, and with none of them. */
static void serve_alone(struct fc_shard *shard, uint64_t id, const struct fc_command *commands, uint32_t count)
{
    uint32_t slot = fc_client_id_slot(id);
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_channel *channel = NULL;
    struct fc_message *message = NULL;
    bool had = false; /* with the replay of a history */

    for (uint32_t i = 0; i < count; i++) {
        struct fc_room *room = fc_shared_room(shard, &commands[i]);
        if (!fc_client_is_member(client, room))
            continue;
        if (commands[i].muted) {
            had = true;
            continue;
        }
        had |= room->channel->history && fc_room_missed(room, client, slot, room->given - 1, 1) > 0;
        if (!channel || room->channel->history) { /* its record's is the one that it counts on */
            channel = room->channel;
            message = commands[i].message;
        }
        if (fc_room_skip(room, client, slot)) {
            fc_conn_drop(shard, slot);
            return;
        }
    }
    if (!had)
        fc_write_messages(shard, slot, channel, &message, 1);
}

static void refuse(struct fc_shard *shard, const struct fc_command *command)
{
    struct fc_room *room = fc_shared_room(shard, command);

    if (room && !command->muted)
        drop_for_want_of_memory(shard, room, 1);
    fc_exchange_settle(shard->exchange, shard->index, fc_message_weight(command->message));
    fc_message_unref(command->message);
}

void fc_fanout_add(struct fc_shard *shard, const struct fc_command *commands, uint32_t count)
{
    struct fc_shared shared = {0};
    int error = count > 1 && shard->mixed > 0 ? fc_shared_find(shard, commands, count, &shared) : 0;

    for (uint32_t i = 0; !error && i < shared.count; i++)
        settle_rooms(shard, shared.ids[i], commands, count);
    for (uint32_t i = 0; i < count; i++) {
        seat(shard, commands[i].channel)->taken += commands[i].channel->history && !commands[i].muted;
        if (shared.count > 0)
            fc_message_ref(commands[i].message);
        if (error || commands[i].muted)
            refuse(shard, &commands[i]);
        else
            add(shard, fc_shared_room(shard, &commands[i]), commands[i].message);
    }
    for (uint32_t i = 0; !error && i < shared.count; i++) {
        if (is_there(shard, shared.ids[i]))
            serve_alone(shard, shared.ids[i], commands, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (shared.count > 0)
            fc_message_unref(commands[i].message);
        fc_channel_unref(&shard->exchange->channels, commands[i].channel);
    }
    free(shared.ids);
}

/* ---- members ---- */

static void tell_of(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel, enum fc_event_kind kind)
{
    if (!shard->exchange->options.presence)
        return;
    fc_shard_tell(shard, &(struct fc_event){.kind = kind,
                                            .client = fc_shard_id(shard, fc_shard_client(shard, slot), slot),
                                            .channel = {channel->name, channel->length},
                                            .origin = fc_channel_ref(channel)});
}

/* How many of the messages that are yet to come to the room a client has with the replay; or has to wait for. */
static uint64_t has_had(const struct fc_shard *shard, struct fc_channel *record, const struct fc_since *since,
                        const struct fc_replay *replay)
{
    if (!since || since->from == FC_RESUME_HERE)
        return 0;
    return replay->more ? UINT64_MAX / 2 : seat(shard, record)->told - seat(shard, record)->taken;
}

/* Under the lock that publishers hold: a member hears all that is published after this, and what is in the mailbox by now
 * but if it's part of a replay. */
static int join_room(struct fc_shard *shard, struct fc_room *room, uint32_t slot, const struct fc_since *since,
                     struct fc_replay *replay)
{
    struct fc_channel *channel = room->channel;
    struct fc_histories *histories = &shard->exchange->histories;
    int error = 0;

    pthread_mutex_lock(&channel->lock);
    if (since)
        error = fc_history_replay(histories, channel->history, since, shard->now, replay);
    if (since && since->from == FC_RESUME_HERE && since->losses != seat(shard, channel)->losses)
        error = -ENOMEM; /* it has missed what came behind its position */
    if (!error)
        error = fc_room_join_behind(room, fc_shard_client(shard, slot), slot, has_had(shard, channel, since, replay));
    seat(shard, channel)->members = fc_room_size(room);
    pthread_mutex_unlock(&channel->lock);
    return error;
}

int fc_fanout_go_on(struct fc_shard *shard, uint32_t slot, struct fc_channel *record, const struct fc_position *position,
                    struct fc_replay *replay)
{
    const struct fc_since since = {.from = FC_RESUME_SINCE, .positions = position, .count = 1};
    struct fc_histories *histories = &shard->exchange->histories;

    pthread_mutex_lock(&record->lock);
    int error = fc_history_replay(histories, record->history, &since, shard->now, replay);
    if (!error && !replay->more)
        error = fc_room_go_live(seat(shard, record)->room, fc_shard_client(shard, slot), slot,
                                has_had(shard, record, &since, replay));
    pthread_mutex_unlock(&record->lock);
    return error;
}

static void leave_room(struct fc_shard *shard, struct fc_room *room, uint32_t slot)
{
    struct fc_channel *channel = room->channel;

    if (!room->everyone)
        tell_of(shard, slot, channel, FC_EVENT_LEFT);
    pthread_mutex_lock(&channel->lock);
    fc_room_leave(room, &shard->clients, fc_shard_client(shard, slot), slot);
    seat(shard, channel)->members = fc_room_size(room);
    seat(shard, channel)->lost &= fc_room_size(room) > 0;
    pthread_mutex_unlock(&channel->lock);
    free_if_idle(shard, room);
}

int fc_fanout_enter(struct fc_shard *shard, uint32_t slot)
{
    return join_room(shard, shard->everyone, slot, NULL, NULL);
}

static int join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel, const struct fc_since *since,
                struct fc_replay *replay)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_room *room = seat(shard, channel)->room;
    bool is_new = !room || !fc_client_is_member(client, room);

    if (room) {
        fc_channel_unref(&shard->exchange->channels, channel); /* the room has one */
    } else {
        room = open_room(shard, channel);
        if (!room) {
            fc_channel_unref(&shard->exchange->channels, channel);
            return -ENOMEM;
        }
    }
    if (!is_new)
        return 0;
    int error = join_room(shard, room, slot, since, replay);
    if (error) {
        free_if_idle(shard, room);
        return error;
    }
    shard->mixed += fc_client_rooms(client) == 2;
    tell_of(shard, slot, room->channel, FC_EVENT_JOINED);
    return 0;
}

int fc_fanout_join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel)
{
    return join(shard, slot, channel, NULL, NULL);
}

int fc_fanout_join_record(struct fc_shard *shard, uint32_t slot, struct fc_channel *record, const struct fc_since *since,
                          struct fc_replay *replay)
{
    *replay = (struct fc_replay){0};
    return join(shard, slot, record, since, replay);
}

void fc_fanout_part(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_room *room = seat(shard, channel)->room;

    if (!fc_client_is_member(client, room) || !settle(shard, slot, room))
        return;
    /* To remember its home. Without memory for that, what it sends is for nobody. */
    (void)fc_client_extend(client);
    leave_room(shard, room, slot);
    shard->mixed -= fc_client_rooms(client) == 1;
}

void fc_fanout_leave(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    shard->mixed -= fc_client_rooms(client) >= 2;
    while (fc_client_rooms(client) > 0)
        leave_room(shard, fc_client_room(client, fc_client_rooms(client) - 1), slot);
    if (client->state == FC_CLIENT_OPEN || client->state == FC_CLIENT_LEAVING)
        leave_room(shard, shard->everyone, slot);
}

/* ---- messages go out ---- */

/* One batch of writes to a room's next members. Returns how many clients it dealt with; 0: all are done. */
static unsigned write_batch(struct fc_shard *shard, struct fc_room *room, unsigned budget)
{
    const struct fc_flush *flush = room->flush;
    struct fc_message *const *messages = flush->singly ? flush->singly : flush->batch;
    unsigned message_count = flush->singly ? flush->frames : flush->vectors;
    unsigned visited = 0;
    uint64_t served = 0;
    unsigned n = 0;
    uint32_t slot;

    while (visited < budget && (slot = fc_room_next(room, &shard->clients)) != FC_NO_SLOT) {
        struct fc_client *client = fc_shard_client(shard, slot);
        uint32_t missed = fc_room_missed(room, client, slot, flush->first, flush->frames);
        visited++;
        if (missed > 0) {
            if (missed < flush->frames)
                fc_write_messages(shard, slot, room->channel, flush->singly + missed, flush->frames - missed);
            continue;
        }
        served++;
        if (client->queue) {
            fc_write_behind(shard, slot, room->channel, messages, message_count);
            continue;
        }
        shard->sends[n] =
            (struct fc_send){.fd = (int)client->fd, .vectors = flush->vectors, .vector = flush->vector};
        shard->send_slots[n++] = slot;
    }
    fc_count(&shard->counters.sent, served * flush->frames);
    fc_count(&room->tally.of[FC_SENT], served * flush->frames);
    fc_io_send(shard->io, shard->sends, n);

    uint64_t complete = 0;
    for (unsigned i = 0; i < n; i++) {
        /* A client that is ending isn't a member, so that a complete write needs nothing but to be counted. */
        if (shard->sends[i].result == (ssize_t)flush->bytes)
            complete++;
        else
            fc_write_done(shard, shard->send_slots[i], room->channel, messages, message_count,
                          shard->sends[i].result);
    }
    fc_count(&shard->counters.delivered, complete * flush->frames);
    fc_count(&shard->counters.sent_bytes, complete * flush->bytes);
    fc_count(&room->tally.of[FC_DELIVERED], complete * flush->frames);
    return visited;
}

bool fc_fanout_possible(const struct fc_shard *shard)
{
    if (shard->served.first)
        return true;
    return shard->due.first &&
           (shard->now >= shard->flush_after || shard->stopping || fc_exchange_congested(shard->exchange));
}

/* What is due in the room goes to nobody: there's nobody any more, or no memory. */
static void abandon(struct fc_shard *shard, struct fc_room *room)
{
    size_t weight;

    drop_for_want_of_memory(shard, room, room->due_count);
    fc_room_drop_due(room, &weight);
    fc_exchange_settle(shard->exchange, shard->index, weight);
    room->listed = false;
    free_if_idle(shard, room);
}

/* The turn of a room that's first in line. It counts as listed until the end of its turn, so that it isn't freed when a
 * write loses its last member. Returns how many clients were dealt with. */
static unsigned serve(struct fc_shard *shard, struct fc_room *room, unsigned budget)
{
    if (!room->flush && (fc_room_size(room) == 0 || fc_room_begin(room, &shard->clients))) {
        abandon(shard, room);
        return 0;
    }
    unsigned visited = write_batch(shard, room, budget);
    if (room->flush->visited < room->flush->audience) {
        append(&shard->served, room); /* behind the others: a large room doesn't hold up the small ones */
        return visited;
    }
    fc_exchange_settle(shard->exchange, shard->index, fc_room_end(room, &shard->clients));
    room->listed = false;
    if (room->due_count > 0)
        append(room->given - room->due_count < room->goal ? &shard->served : &shard->due, room);
    else
        free_if_idle(shard, room);
    return visited;
}

/* A pass writes what was due when it began, and no room has a second turn for what has come since: so it ends, however
 * fast messages come in, and all rooms get theirs. With a flush interval the next pass begins that much later. */
void fc_fanout_slice(struct fc_shard *shard)
{
    unsigned budget = FC_SEND_BATCH;

    if (!shard->served.first) {
        shard->served = shard->due;
        shard->due = (struct fc_line){0};
        shard->flush_after = shard->now + shard->exchange->options.flush_interval;
        shard->passes++;
        for (struct fc_room *room = shard->served.first; room; room = room->next)
            room->goal = room->given;
    }
    while (shard->served.first && budget > 0) {
        unsigned visited = serve(shard, take_first(&shard->served), budget);
        budget -= visited > 0 ? visited : 1;
    }
    if (!shard->served.first)
        fc_marks_end_pass(shard);
}
