/* The queue of one lagging client: a ring of references.
 *
 * Owned by the client's shard, which frees it when it runs empty. Each entry owns its references. Only the first
 * may be partly written; a Pong that isn't begun lies at the first boundary behind that. An entry may hold several
 * frames (messages of one tick are joined), so that frames are counted by walking the written part: the counters
 * must add up even for a client that goes in the middle.
 */
#include "queue.h"

#include <errno.h>
#include <stdlib.h>

static struct fc_entry *entry(const struct fc_queue *queue, uint32_t i)
{
    return &queue->ring[(queue->first + i) & (queue->capacity - 1)];
}

static int grow(struct fc_queue *queue)
{
    uint32_t capacity = queue->capacity ? 2 * queue->capacity : 4;
    struct fc_entry *ring = malloc(capacity * sizeof *ring);

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

static struct fc_entry refer(struct fc_message *message, struct fc_channel *channel)
{
    return (struct fc_entry){fc_message_ref(message), channel ? fc_channel_ref(channel) : NULL};
}

/* The end of an entry, `frames` of whose messages come to this. */
static void end_entry(const struct fc_queue *queue, const struct fc_entry *ended, enum fc_fate fate, uint64_t frames)
{
    if (ended->channel && frames > 0)
        queue->host->ended(queue->host, ended->channel, fate, frames);
    fc_channel_unref(queue->host->channels, ended->channel);
    fc_message_unref(ended->message);
}

static void account(struct fc_queue *queue, const struct fc_message *message)
{
    queue->count++;
    queue->bytes += message->size;
    queue->frames += message->frames;
}

int fc_queue_push(struct fc_queue *queue, struct fc_message *message, struct fc_channel *channel)
{
    if (reserve(queue))
        return -ENOMEM;
    *entry(queue, queue->count) = refer(message, channel);
    account(queue, message);
    return 0;
}

bool fc_queue_replace(struct fc_queue *queue, struct fc_message *message, struct fc_channel *channel)
{
    for (uint32_t i = queue->offset > 0 ? 1 : 0; i < queue->count; i++) {
        struct fc_entry *found = entry(queue, i);
        struct fc_entry old = *found;
        if (!fc_message_same_key(old.message, message))
            continue;
        *found = refer(message, channel);
        queue->bytes = queue->bytes - old.message->size + message->size;
        end_entry(queue, &old, FC_DROPPED, old.message->frames);
        return true;
    }
    return false;
}

uint64_t fc_queue_drop_oldest(struct fc_queue *queue, uint8_t rule)
{
    uint32_t i = queue->offset > 0 ? 1 : 0;

    while (i < queue->count && (entry(queue, i)->message->frames == 0 || entry(queue, i)->message->rule != rule))
        i++;
    if (i >= queue->count)
        return 0;
    struct fc_entry old = *entry(queue, i);
    uint64_t frames = old.message->frames;
    queue->bytes -= old.message->size;
    queue->frames -= frames;
    /* Those before it move up: usually there are none, or one that's begun. */
    for (uint32_t k = i; k > 0; k--)
        *entry(queue, k) = *entry(queue, k - 1);
    queue->first = (queue->first + 1) & (queue->capacity - 1);
    queue->count--;
    end_entry(queue, &old, FC_DROPPED, frames);
    return frames;
}

/* Begun, or no data frame: then it may be the response to the handshake, which comes before all else. */
static bool first_stays(const struct fc_queue *queue)
{
    return queue->count > 0 && (queue->offset > 0 || entry(queue, 0)->message->frames == 0);
}

int fc_queue_push_pong(struct fc_queue *queue, struct fc_message *message)
{
    if (queue->pong) {
        struct fc_entry *place = entry(queue, (uint32_t)queue->pong - 1);
        queue->bytes = queue->bytes - place->message->size + message->size;
        fc_message_unref(place->message);
        place->message = fc_message_ref(message);
        return 0;
    }
    if (reserve(queue))
        return -ENOMEM;
    uint32_t place = first_stays(queue) ? 1 : 0;
    queue->first = (queue->first - 1) & (queue->capacity - 1);
    if (place == 1)
        *entry(queue, 0) = *entry(queue, 1);
    *entry(queue, place) = refer(message, NULL);
    queue->pong = (int8_t)(place + 1);
    account(queue, message);
    return 0;
}

unsigned fc_queue_gather(const struct fc_queue *queue, struct iovec *vectors, unsigned max)
{
    unsigned n = 0;

    for (; n < queue->count && n < max; n++) {
        const struct fc_message *message = entry(queue, n)->message;
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

uint64_t fc_queue_unbegun(const struct fc_queue *queue)
{
    if (queue->offset == 0)
        return queue->frames;
    const struct fc_message *first = entry(queue, 0)->message;
    return queue->frames - (first->frames - frames_within(first, queue->offset));
}

uint64_t fc_queue_wrote(struct fc_queue *queue, size_t n)
{
    uint64_t total = 0;

    while (n > 0) {
        struct fc_entry *first = entry(queue, 0);
        struct fc_message *message = first->message;
        size_t left = message->size - queue->offset;
        size_t now = n < left ? n : left;
        unsigned before = frames_within(message, queue->offset);
        unsigned completed = frames_within(message, queue->offset + now) - before;

        queue->offset += now;
        queue->bytes -= now;
        if (first->channel)
            queue->replayed -= now < queue->replayed ? now : queue->replayed;
        total += completed;
        n -= now;
        if (queue->pong == 1)
            queue->pong = 0; /* begun */
        if (now < left) {
            if (first->channel && completed > 0)
                queue->host->ended(queue->host, first->channel, FC_DELIVERED, completed);
            break;
        }
        if (queue->pong == 2)
            queue->pong = 1;
        queue->first = (queue->first + 1) & (queue->capacity - 1);
        queue->count--;
        queue->waived -= first->channel && queue->waived > 0;
        queue->offset = 0;
        end_entry(queue, first, FC_DELIVERED, completed);
    }
    queue->frames -= total;
    return total;
}

static uint64_t drop_from(struct fc_queue *queue, uint32_t keep)
{
    uint64_t total = 0;

    while (queue->count > keep) {
        const struct fc_entry *last = entry(queue, --queue->count);
        size_t written = queue->count == 0 ? queue->offset : 0;
        uint64_t frames = last->message->frames - frames_within(last->message, written);
        queue->bytes -= last->message->size - written;
        total += frames;
        end_entry(queue, last, FC_GONE, frames);
    }
    queue->frames -= total;
    queue->pong = 0;
    return total;
}

uint64_t fc_queue_drop_unstarted(struct fc_queue *queue)
{
    return drop_from(queue, first_stays(queue) ? 1 : 0);
}

uint64_t fc_queue_clear(struct fc_queue *queue)
{
    uint64_t waiting = drop_from(queue, 0);

    free(queue->ring);
    *queue = (struct fc_queue){.host = queue->host};
    return waiting;
}
