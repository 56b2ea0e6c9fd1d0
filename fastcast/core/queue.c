/* The queue of one lagging client: a ring of references.
 *
 * Owned by the client's shard, which frees it when it runs empty. Each entry owns one reference. Only the first
 * may be partly written; a Pong that isn't begun lies at the first boundary behind that. An entry may hold several
 * frames (messages of one tick are joined), so that frames are counted by walking the written part: the counters
 * must add up even for a client that goes in the middle.
 */
#include "queue.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static struct fc_message **entry(const struct fc_queue *queue, uint32_t i)
{
    return &queue->ring[(queue->first + i) & (queue->capacity - 1)];
}

static int grow(struct fc_queue *queue)
{
    uint32_t capacity = queue->capacity ? 2 * queue->capacity : 4;
    struct fc_message **ring = malloc(capacity * sizeof *ring);

    if (!ring)
        return -ENOMEM;
    for (uint32_t i = 0; i < queue->count; i++)
        ring[i] = *entry(queue, i);
    free(queue->ring);
    queue->ring = ring;
    queue->first = 0;
    queue->capacity = capacity;
    return 0;
}

static int reserve(struct fc_queue *queue)
{
    return queue->count < queue->capacity ? 0 : grow(queue);
}

static void account(struct fc_queue *queue, const struct fc_message *message)
{
    queue->count++;
    queue->bytes += message->size;
    queue->frames += message->frames;
}

int fc_queue_push(struct fc_queue *queue, struct fc_message *message)
{
    if (reserve(queue))
        return -ENOMEM;
    *entry(queue, queue->count) = fc_message_ref(message);
    account(queue, message);
    return 0;
}

/* Begun, or no data frame: then it may be the response to the handshake, which comes before all else. */
static bool first_stays(const struct fc_queue *queue)
{
    return queue->count > 0 && (queue->offset > 0 || (*entry(queue, 0))->frames == 0);
}

int fc_queue_push_pong(struct fc_queue *queue, struct fc_message *message)
{
    if (queue->pong) {
        struct fc_message **place = entry(queue, (uint32_t)queue->pong - 1);
        queue->bytes = queue->bytes - (*place)->size + message->size;
        fc_message_unref(*place);
        *place = fc_message_ref(message);
        return 0;
    }
    if (reserve(queue))
        return -ENOMEM;
    uint32_t place = first_stays(queue) ? 1 : 0;
    queue->first = (queue->first - 1) & (queue->capacity - 1);
    if (place == 1)
        *entry(queue, 0) = *entry(queue, 1);
    *entry(queue, place) = fc_message_ref(message);
    queue->pong = (int8_t)(place + 1);
    account(queue, message);
    return 0;
}

unsigned fc_queue_gather(const struct fc_queue *queue, struct iovec *vectors, unsigned max)
{
    unsigned n = 0;

    for (; n < queue->count && n < max; n++) {
        const struct fc_message *message = *entry(queue, n);
        size_t skip = n == 0 ? queue->offset : 0;
        vectors[n].iov_base = (void *)(uintptr_t)(fc_message_wire(message) + skip);
        vectors[n].iov_len = message->size - skip;
    }
    return n;
}

static unsigned frames_within(const struct fc_message *message, size_t n)
{
    if (message->frames <= 1)
        return n == message->size ? message->frames : 0;
    return fc_frame_count(fc_message_wire(message), n);
}

uint64_t fc_queue_wrote(struct fc_queue *queue, size_t n)
{
    uint64_t completed = 0;

    while (n > 0) {
        struct fc_message *message = *entry(queue, 0);
        size_t left = message->size - queue->offset;
        size_t now = n < left ? n : left;
        unsigned before = frames_within(message, queue->offset);

        queue->offset += now;
        queue->bytes -= now;
        completed += frames_within(message, queue->offset) - before;
        n -= now;
        if (queue->pong == 1)
            queue->pong = 0; /* begun */
        if (now < left)
            break;
        if (queue->pong == 2)
            queue->pong = 1;
        queue->first = (queue->first + 1) & (queue->capacity - 1);
        queue->count--;
        queue->offset = 0;
        fc_message_unref(message);
    }
    queue->frames -= completed;
    return completed;
}

static uint64_t drop_from(struct fc_queue *queue, uint32_t keep)
{
    uint64_t dropped = 0;

    while (queue->count > keep) {
        struct fc_message *message = *entry(queue, --queue->count);
        queue->bytes -= message->size;
        dropped += message->frames;
        fc_message_unref(message);
    }
    queue->frames -= dropped;
    queue->pong = 0;
    return dropped;
}

uint64_t fc_queue_drop_unstarted(struct fc_queue *queue)
{
    return drop_from(queue, first_stays(queue) ? 1 : 0);
}

uint64_t fc_queue_clear(struct fc_queue *queue)
{
    uint64_t waiting = queue->frames;

    drop_from(queue, 0);
    free(queue->ring);
    *queue = (struct fc_queue){0};
    return waiting;
}
