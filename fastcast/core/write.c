/* The sending half of a client.
 *
 * Invariants: a client has a queue exactly while something waits for it, and then everything goes through the
 * queue. Each delivery that is counted as sent is counted as delivered or gone later on, or is in a queue.
 * Owned by the shard's thread.
 */
#include "write.h"

#include "conn.h"
#include "extra.h"
#include "queue.h"
#include "resume.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define SENDS_IN_A_TURN 32

void fc_write_ended(struct fc_queue_host *host, struct fc_channel *channel, enum fc_fate fate, uint64_t frames)
{
    struct fc_shard *shard = (struct fc_shard *)((char *)host - offsetof(struct fc_shard, queues));

    fc_shard_tally(shard, channel, fate, frames);
}

void fc_write_forget(struct fc_shard *shard, struct fc_client *client)
{
    if (!client->queue)
        return;
    fc_discount(&shard->counters.lagging, 1);
    fc_discount(&shard->counters.queued_bytes, client->queue->bytes);
    fc_discount(&shard->counters.queued, client->queue->frames);
    fc_count(&shard->counters.gone, fc_queue_clear(client->queue));
    free(client->queue);
    client->queue = NULL;
}

void fc_write_drop_unstarted(struct fc_shard *shard, struct fc_client *client)
{
    if (!client->queue)
        return;
    size_t before = client->queue->bytes;
    uint64_t dropped = fc_queue_drop_unstarted(client->queue);
    fc_discount(&shard->counters.queued, dropped);
    fc_discount(&shard->counters.queued_bytes, before - client->queue->bytes);
    fc_count(&shard->counters.gone, dropped);
    if (client->queue->count == 0)
        fc_write_forget(shard, client);
}

/* Nothing waits for the client any more. */
static void all_written(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (client->state == FC_CLIENT_ENDING)
        fc_conn_shut_down(shard, slot);
    else if (client->extended && client->extra->replays)
        fc_resume_later(shard, slot);
}

static void lose(struct fc_shard *shard, struct fc_channel *channel, struct fc_message *const *messages, unsigned n,
                 enum fc_fate fate)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < n; i++)
        frames += messages[i]->frames;
    fc_count(fate == FC_GONE ? &shard->counters.gone : &shard->counters.dropped, frames);
    fc_shard_tally(shard, channel, fate, frames);
}

static bool has_room(const struct fc_queue *queue, const struct fc_rule *rule, const struct fc_message *message)
{
    /* One message may be larger than the limit: a client with nothing else waiting isn't slow. */
    if (queue->count == 0)
        return true;
    uint64_t frames = queue->frames > queue->waived ? queue->frames - queue->waived : 0;
    if (rule->max_messages > 0 && frames + message->frames > rule->max_messages)
        return false;
    /* Its entries take memory, too, and small messages may be smaller than those. */
    size_t bytes = queue->bytes > queue->replayed ? queue->bytes - queue->replayed : 0;
    size_t entries = queue->count > queue->waived ? queue->count - queue->waived : 0;
    return bytes + entries * sizeof(struct fc_entry) + message->size <= rule->max_queue;
}

/* When all memory for messages is in use, those who lag are the ones that hold it. */
static bool is_memory_short(const struct fc_shard *shard)
{
    const struct fc_exchange *exchange = shard->exchange;

    return fc_exchange_alive(exchange) > exchange->options.max_backlog;
}

static void tell_slow(struct fc_shard *shard, struct fc_client *client, uint32_t slot, enum fc_policy policy)
{
    if (client->queue->told)
        return;
    client->queue->told = true;
    fc_shard_tell(shard, &(struct fc_event){.kind = FC_EVENT_SLOW,
                                            .client = fc_shard_id(shard, client, slot),
                                            .code = (uint16_t)policy,
                                            .number = client->queue->bytes});
}

static void too_slow(struct fc_shard *shard, uint32_t slot)
{
    fc_count(&shard->counters.slow, 1);
    fc_conn_close(shard, slot, FC_ERR_POLICY);
}

/* Puts a message at the end of the queue. False: no memory, and the client had to be dropped. */
static bool push(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel, struct fc_message *message)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (fc_queue_push(client->queue, message, channel)) {
        lose(shard, channel, &message, 1, FC_GONE);
        fc_conn_drop(shard, slot);
        return false;
    }
    fc_count(&shard->counters.queued, message->frames);
    fc_count(&shard->counters.queued_bytes, message->size);
    return true;
}

/* Makes room by dropping what is older, under the same rule. Returns whether there is some: in any case if nothing waits
 * any more but what is begun, since the newest message is the one that matters. */
static bool make_room(struct fc_shard *shard, struct fc_client *client, const struct fc_rule *rule,
                      const struct fc_message *message)
{
    bool dropped_some = false;

    while (!has_room(client->queue, rule, message) || (is_memory_short(shard) && !dropped_some)) {
        size_t before = client->queue->bytes;
        uint64_t frames = fc_queue_drop_oldest(client->queue, message->rule);
        if (frames == 0)
            return fc_queue_unbegun(client->queue) == 0;
        dropped_some = true;
        fc_count(&shard->counters.dropped, frames);
        fc_count(&shard->counters.dropped_oldest, frames);
        fc_discount(&shard->counters.queued, frames);
        fc_discount(&shard->counters.queued_bytes, before - client->queue->bytes);
    }
    return true;
}

static bool replace(struct fc_shard *shard, struct fc_client *client, struct fc_channel *channel,
                    struct fc_message *message)
{
    size_t before = client->queue->bytes;

    if (!fc_queue_replace(client->queue, message, channel))
        return false;
    fc_count(&shard->counters.dropped, message->frames);
    fc_count(&shard->counters.conflated, message->frames);
    fc_count(&shard->counters.queued_bytes, client->queue->bytes - before); /* modulo 2^64 it may be less, too */
    return true;
}

/* Lets a message wait, as its rule says. False: the client is closed, or dropped, and the message is lost. */
static bool admit(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel, struct fc_message *message)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    const struct fc_rule *rule = &shard->exchange->rules[message->rule];

    if (client->state != FC_CLIENT_OPEN) /* it gets the last that there is for it */
        return push(shard, slot, channel, message);
    if (rule->policy == FC_POLICY_LATEST && replace(shard, client, channel, message)) {
        tell_slow(shard, client, slot, rule->policy);
        return true;
    }
    if (has_room(client->queue, rule, message) && (client->queue->count == 0 || !is_memory_short(shard)))
        return push(shard, slot, channel, message);
    tell_slow(shard, client, slot, rule->policy);
    if (rule->policy == FC_POLICY_CLOSE) {
        lose(shard, channel, &message, 1, FC_GONE);
        too_slow(shard, slot);
        return false;
    }
    if (rule->policy != FC_POLICY_DROP_NEWEST && make_room(shard, client, rule, message))
        return push(shard, slot, channel, message);
    lose(shard, channel, &message, 1, FC_DROPPED);
    fc_count(&shard->counters.dropped_newest, message->frames);
    return true;
}

static void count_written(struct fc_shard *shard, struct fc_client *client, size_t bytes)
{
    uint64_t frames = fc_queue_wrote(client->queue, bytes);

    fc_count(&shard->counters.sent_bytes, bytes);
    fc_count(&shard->counters.delivered, frames);
    fc_discount(&shard->counters.queued, frames);
    fc_discount(&shard->counters.queued_bytes, bytes);
    if (client->queue->count == 0)
        fc_write_forget(shard, client);
}

/* The kernel can't take it now. An event, or the sweep, brings us back. */
static bool is_passing(int error)
{
    return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM;
}

void fc_write_behind(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                     struct fc_message *const *messages, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (admit(shard, slot, channel, messages[i]))
            continue;
        lose(shard, channel, messages + i + 1, n - i - 1, FC_GONE);
        return;
    }
}

static int make_queue(struct fc_shard *shard, struct fc_client *client)
{
    client->queue = calloc(1, sizeof *client->queue);
    if (!client->queue)
        return -ENOMEM;
    client->queue->host = &shard->queues;
    fc_count(&shard->counters.lagging, 1);
    return 0;
}

/* Makes a queue of what a write has left over: `begun` bytes of the first message are written. */
static void queue_rest(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                       struct fc_message *const *messages, unsigned n, size_t begun)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (make_queue(shard, client)) {
        lose(shard, channel, messages, n, FC_GONE);
        fc_conn_drop(shard, slot);
        return;
    }
    if (!push(shard, slot, channel, messages[0])) {
        lose(shard, channel, messages + 1, n - 1, FC_GONE);
        return;
    }
    if (begun > 0)
        count_written(shard, client, begun);
    fc_write_behind(shard, slot, channel, messages + 1, n - 1);
}

void fc_write_done(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                   struct fc_message *const *messages, unsigned n, ssize_t result)
{
    if (result < 0 && !is_passing((int)result)) {
        lose(shard, channel, messages, n, FC_GONE);
        fc_conn_drop(shard, slot);
        return;
    }
    size_t written = result > 0 ? (size_t)result : 0;
    size_t complete = 0;
    uint64_t frames = 0;
    unsigned i = 0;
    for (; i < n && complete + messages[i]->size <= written; i++) {
        complete += messages[i]->size;
        frames += messages[i]->frames;
    }
    fc_count(&shard->counters.sent_bytes, complete);
    fc_count(&shard->counters.delivered, frames);
    fc_shard_tally(shard, channel, FC_DELIVERED, frames);
    if (i == n)
        all_written(shard, fc_shard_client(shard, slot), slot);
    else
        queue_rest(shard, slot, channel, messages + i, n - i, written - complete);
}

/* One write, of FC_ROOM_VECTORS messages at most. */
static void write_now(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                      struct fc_message *const *messages, unsigned n)
{
    const struct fc_client *client = fc_shard_client(shard, slot);
    struct iovec vector[FC_ROOM_VECTORS];

    for (unsigned i = 0; i < n; i++) {
        vector[i].iov_base = (void *)(uintptr_t)fc_message_wire(messages[i]);
        vector[i].iov_len = messages[i]->size;
    }
    struct fc_send one = {.fd = (int)client->fd, .vectors = n, .vector = vector};
    fc_io_send(shard->io, &one, 1);
    fc_write_done(shard, slot, channel, messages, n, one.result);
}

void fc_write_messages(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                       struct fc_message *const *messages, unsigned n)
{
    uint64_t id = fc_shard_id(shard, fc_shard_client(shard, slot), slot);
    uint64_t frames = 0;

    for (unsigned i = 0; i < n; i++)
        frames += messages[i]->frames;
    fc_count(&shard->counters.sent, frames);
    fc_shard_tally(shard, channel, FC_SENT, frames);
    for (unsigned i = 0, now; i < n; i += now) {
        const struct fc_client *client = fc_clients_find(&shard->clients, id);
        now = n - i < FC_ROOM_VECTORS ? n - i : FC_ROOM_VECTORS;
        /* Each write may find it too slow, or gone: then nothing may follow. */
        if (!client || (client->state != FC_CLIENT_OPEN && client->state != FC_CLIENT_LEAVING)) {
            lose(shard, channel, messages + i, n - i, FC_GONE);
            return;
        }
        if (client->queue)
            fc_write_behind(shard, slot, channel, messages + i, now);
        else
            write_now(shard, slot, channel, messages + i, now);
    }
}

/* Whether the rest is written in another turn. Without memory for that, it's written now. */
static bool pauses(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (!client->queue->in_line && fc_ready_push(&shard->writers, fc_shard_id(shard, client, slot)))
        return false;
    client->queue->in_line = true;
    return true;
}

void fc_write_queued(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    for (unsigned sends = 1; client->queue; sends++) {
        struct iovec vector[FC_ROOM_VECTORS];
        struct fc_send one = {
            .fd = (int)client->fd,
            .vectors = fc_queue_gather(client->queue, vector, FC_ROOM_VECTORS),
            .vector = vector,
        };
        size_t bytes = 0;
        for (unsigned i = 0; i < one.vectors; i++)
            bytes += vector[i].iov_len;
        fc_io_send(shard->io, &one, 1);
        if (one.result < 0 && !is_passing((int)one.result)) {
            fc_conn_drop(shard, slot);
            return;
        }
        if (one.result <= 0)
            return;
        if (client->state == FC_CLIENT_OPEN || shard->stopping)
            client->active = shard->tick; /* it reads, if slowly; a closing client has its time for all of it */
        count_written(shard, client, (size_t)one.result);
        if ((size_t)one.result < bytes)
            return;
        if (client->queue && sends == SENDS_IN_A_TURN && pauses(shard, client, slot))
            return;
    }
    all_written(shard, client, slot);
}

void fc_write_replay(struct fc_shard *shard, uint32_t slot, struct fc_channel *record,
                     struct fc_message *const *messages, unsigned n)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    fc_count(&shard->counters.sent, n);
    fc_shard_tally(shard, record, FC_SENT, n);
    if (!client->queue && make_queue(shard, client)) {
        lose(shard, record, messages, n, FC_GONE);
        fc_conn_drop(shard, slot);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!push(shard, slot, record, messages[i])) {
            lose(shard, record, messages + i + 1, n - i - 1, FC_GONE);
            return;
        }
        client->queue->replayed += messages[i]->size;
        client->queue->waived++;
    }
    fc_write_queued(shard, slot);
}

void fc_write_own(struct fc_shard *shard, uint32_t slot, struct fc_message *message)
{
    if (!message) {
        fc_conn_drop(shard, slot);
        return;
    }
    if (fc_shard_client(shard, slot)->queue)
        push(shard, slot, NULL, message);
    else
        write_now(shard, slot, NULL, &message, 1);
    fc_message_unref(message);
}

void fc_write_pongs(struct fc_shard *shard, uint32_t slot, const uint8_t *pongs, size_t n, size_t last)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (!client->queue) {
        fc_write_own(shard, slot, fc_message_raw(&shard->exchange->account, pongs, n));
        return;
    }
    struct fc_message *pong = fc_message_raw(&shard->exchange->account, pongs + last, n - last);
    size_t before = client->queue->bytes;
    if (!pong || fc_queue_push_pong(client->queue, pong)) {
        fc_message_unref(pong);
        fc_conn_drop(shard, slot);
        return;
    }
    fc_count(&shard->counters.queued_bytes, client->queue->bytes - before);
    fc_message_unref(pong);
}
