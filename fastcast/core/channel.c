/* The table of channels, shared by all shards and by every publishing thread.
 *
 * Invariant: a channel is in the table exactly while it has references, so that the last reference is
 * dropped under the table's lock; the others are not. References are held by rooms (a shard with members),
 * by commands under way, and by callers for the length of a call.
 */
#include "channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Eight bytes at a time: multiplied into 128 bits, whose halves are folded; the key enters before each. */
static uint64_t fold(uint64_t word, uint64_t key)
{
    unsigned __int128 product = (unsigned __int128)(word ^ key) * UINT64_C(0x9E3779B97F4A7C15);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_name(const struct fc_channels *channels, const char *name, size_t length)
{
    uint64_t hash = channels->key ^ length;

    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, name + i, length - i < 8 ? length - i : 8);
        hash = fold(hash + word, channels->key + i);
    }
    return (uint32_t)(hash ^ hash >> 32);
}

int fc_channels_init(struct fc_channels *channels, unsigned shards)
{
    *channels = (struct fc_channels){.bucket_count = 16, .shards = shards};
    channels->buckets = calloc(channels->bucket_count, sizeof(struct fc_channel *));
    if (!channels->buckets)
        return -ENOMEM;
    /* Without entropy, early at boot, the time must do. */
    if (getrandom(&channels->key, sizeof channels->key, GRND_NONBLOCK) != sizeof channels->key)
        channels->key = (uint64_t)(uintptr_t)channels->buckets ^ (uint64_t)time(NULL) << 32;
    pthread_mutex_init(&channels->lock, NULL);
    return 0;
}

void fc_channels_destroy(struct fc_channels *channels)
{
    if (!channels->buckets)
        return;
    free(channels->buckets);
    pthread_mutex_destroy(&channels->lock);
    channels->buckets = NULL;
}

static struct fc_channel **bucket(struct fc_channels *channels, uint32_t hash)
{
    return &channels->buckets[hash & (channels->bucket_count - 1)];
}

static struct fc_channel *lookup(struct fc_channels *channels, uint32_t hash, const char *name, size_t length)
{
    struct fc_channel *channel = *bucket(channels, hash);

    while (channel && !(channel->hash == hash && channel->length == length && !memcmp(channel->name, name, length)))
        channel = channel->next;
    return channel;
}

/* Longer chains are the only harm when memory for more buckets is missing. */
static void grow(struct fc_channels *channels)
{
    struct fc_channel **old = channels->buckets;
    size_t old_count = channels->bucket_count;
    struct fc_channel **wider = calloc(2 * old_count, sizeof(struct fc_channel *));

    if (!wider)
        return;
    channels->buckets = wider;
    channels->bucket_count = 2 * old_count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct fc_channel *channel = old[i], *next; channel; channel = next) {
            struct fc_channel **place = bucket(channels, channel->hash);
            next = channel->next;
            channel->next = *place;
            *place = channel;
        }
    }
    free(old);
}

static struct fc_channel *make(struct fc_channels *channels, uint32_t hash, const char *name, size_t length)
{
    struct fc_channel *channel = malloc(sizeof *channel + length);

    if (!channel)
        return NULL;
    *channel = (struct fc_channel){.hash = hash, .length = length};
    channel->seats = calloc(channels->shards, sizeof *channel->seats);
    if (!channel->seats) {
        free(channel);
        return NULL;
    }
    atomic_init(&channel->references, 1);
    pthread_mutex_init(&channel->lock, NULL);
    memcpy(channel->name, name, length);

    if (channels->count >= channels->bucket_count)
        grow(channels);
    channel->next = *bucket(channels, hash);
    *bucket(channels, hash) = channel;
    channels->count++;
    return channel;
}

static struct fc_channel *acquire(struct fc_channels *channels, const char *name, size_t length, bool may_make)
{
    uint32_t hash = hash_name(channels, name, length);

    pthread_mutex_lock(&channels->lock);
    struct fc_channel *channel = lookup(channels, hash, name, length);
    if (channel)
        fc_channel_ref(channel);
    else if (may_make)
        channel = make(channels, hash, name, length);
    pthread_mutex_unlock(&channels->lock);
    return channel;
}

struct fc_channel *fc_channels_get(struct fc_channels *channels, const char *name, size_t length)
{
    return acquire(channels, name, length, true);
}

struct fc_channel *fc_channels_find(struct fc_channels *channels, const char *name, size_t length)
{
    return acquire(channels, name, length, false);
}

void fc_channel_unref(struct fc_channels *channels, struct fc_channel *channel)
{
    if (!channel)
        return;

    /* Not the last one: no lock. Release, so that what this holder did comes before the channel's end. */
    unsigned references = atomic_load_explicit(&channel->references, memory_order_relaxed);
    while (references > 1) {
        if (atomic_compare_exchange_weak_explicit(&channel->references, &references, references - 1,
                                                  memory_order_release, memory_order_relaxed))
            return;
    }

    /* Perhaps the last one: under the lock nobody can find it and take another. */
    pthread_mutex_lock(&channels->lock);
    bool last = atomic_fetch_sub_explicit(&channel->references, 1, memory_order_acq_rel) == 1;
    if (last) {
        struct fc_channel **place = bucket(channels, channel->hash);
        while (*place != channel)
            place = &(*place)->next;
        *place = channel->next;
        channels->count--;
    }
    pthread_mutex_unlock(&channels->lock);
    if (last) {
        pthread_mutex_destroy(&channel->lock);
        free(channel->seats);
        free(channel);
    }
}
