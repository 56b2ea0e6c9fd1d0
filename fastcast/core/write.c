/* The sending half of a client.
 *
 * Invariants: a client has a queue exactly while something waits for it, and then everything goes through the
 * queue. Each delivery that is counted as sent is counted as delivered or gone later on, or is in a queue.
 * Owned by the shard's thread.
 */
#include "write.h"

#include "conn.h"
#include "queue.h"

#include <errno.h>
#include <stdlib.h>

static void gone(struct fc_shard *shard, uint64_t frames)
{
    fc_count(&shard->counters.gone, frames);
}

void fc_write_forget(struct fc_shard *shard, struct fc_client *client)
{
    if (!client->queue)
        return;
    fc_discount(&shard->counters.lagging, 1);
    fc_discount(&shard->counters.queued_bytes, client->queue->bytes);
    fc_discount(&shard->counters.queued, client->queue->frames);
    gone(shard, fc_queue_clear(client->queue));
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
    gone(shard, dropped);
    if (client->queue->count == 0)
        fc_write_forget(shard, client);
}

/* Nothing waits for the client any more. */
static void all_written(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (client->state == FC_CLIENT_ENDING)
        fc_conn_shut_down(shard, slot);
}

static bool over_limit(const struct fc_shard *shard, const struct fc_queue *queue, size_t more)
{
    const struct fc_exchange *exchange = shard->exchange;

    /* Its entries take memory, too, and small messages may be smaller than those. */
    if (queue->bytes + queue->count * sizeof(struct fc_message *) + more > exchange->options.max_queue)
        return true;
    /* When all memory for messages is in use, those who lag are the ones that hold it. */
    return atomic_load_explicit(&exchange->account.bytes, memory_order_relaxed) > exchange->options.max_backlog;
}

static void too_slow(struct fc_shard *shard, uint32_t slot)
{
    fc_count(&shard->counters.slow, 1);
    fc_conn_close(shard, slot, FC_ERR_POLICY);
}

/* Adds to the queue without asking for limits. False: no memory, and the client had to be dropped. */
static bool enqueue(struct fc_shard *shard, uint32_t slot, struct fc_message *const *messages, unsigned n)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    for (unsigned i = 0; i < n; i++) {
        if (fc_queue_push(client->queue, messages[i])) {
            for (; i < n; i++)
                gone(shard, messages[i]->frames);
            fc_conn_drop(shard, slot);
            return false;
        }
        fc_count(&shard->counters.queued, messages[i]->frames);
        fc_count(&shard->counters.queued_bytes, messages[i]->size);
    }
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

void fc_write_done(struct fc_shard *shard, uint32_t slot, struct fc_message *const *messages, unsigned n,
                   ssize_t result)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    size_t bytes = 0;
    uint64_t frames = 0;

    for (unsigned i = 0; i < n; i++) {
        bytes += messages[i]->size;
        frames += messages[i]->frames;
    }
    if (result == (ssize_t)bytes) {
        fc_count(&shard->counters.sent_bytes, bytes);
        fc_count(&shard->counters.delivered, frames);
        all_written(shard, client, slot);
        return;
    }
    if (result < 0 && !is_passing((int)result)) {
        gone(shard, frames);
        fc_conn_drop(shard, slot);
        return;
    }
    client->queue = calloc(1, sizeof *client->queue);
    if (!client->queue) {
        gone(shard, frames);
        fc_conn_drop(shard, slot);
        return;
    }
    fc_count(&shard->counters.lagging, 1);
    if (!enqueue(shard, slot, messages, n))
        return;
    count_written(shard, client, result > 0 ? (size_t)result : 0);
    /* One message may be larger than the limit: a client with nothing else waiting isn't slow. */
    if (client->state == FC_CLIENT_OPEN && client->queue->count > 1 && over_limit(shard, client->queue, 0))
        too_slow(shard, slot);
}

static void write_or_queue(struct fc_shard *shard, uint32_t slot, struct fc_message *const *messages, unsigned n)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (client->queue) {
        enqueue(shard, slot, messages, n);
        return;
    }
    struct iovec vector[FC_ROOM_VECTORS];
    for (unsigned i = 0; i < n; i++) {
        vector[i].iov_base = (void *)(uintptr_t)fc_message_wire(messages[i]);
        vector[i].iov_len = messages[i]->size;
    }
    struct fc_send one = {.fd = (int)client->fd, .vectors = n, .vector = vector};
    fc_io_send(shard->io, &one, 1);
    fc_write_done(shard, slot, messages, n, one.result);
}

void fc_write_behind(struct fc_shard *shard, uint32_t slot, struct fc_message *const *messages, unsigned n)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    size_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += messages[i]->size;
    if (client->state == FC_CLIENT_OPEN && over_limit(shard, client->queue, bytes)) {
        for (unsigned i = 0; i < n; i++)
            gone(shard, messages[i]->frames);
        too_slow(shard, slot);
        return;
    }
    enqueue(shard, slot, messages, n);
}

void fc_write_messages(struct fc_shard *shard, uint32_t slot, struct fc_message *const *messages, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fc_count(&shard->counters.sent, messages[i]->frames);
    write_or_queue(shard, slot, messages, n);
}

void fc_write_queued(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    while (client->queue) {
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
    }
    all_written(shard, client, slot);
}

void fc_write_own(struct fc_shard *shard, uint32_t slot, struct fc_message *message)
{
    if (!message) {
        fc_conn_drop(shard, slot);
        return;
    }
    write_or_queue(shard, slot, &message, 1);
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
