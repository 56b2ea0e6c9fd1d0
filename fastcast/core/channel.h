/* Channels by name: who must hear what, and in which order. */
#ifndef FC_CHANNEL_H
#define FC_CHANNEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct fc_room;

/* A shard's part of a channel. */
struct fc_seat {
    uint32_t members;     /* under the channel's lock: a publisher skips shards where nobody listens */
    struct fc_room *room; /* touched by the shard's own thread only */
};

struct fc_channel {
    atomic_uint references;
    uint32_t hash;
    struct fc_channel *next; /* in the table's bucket */
    pthread_mutex_t lock;    /* publishing is one critical section for each channel: that's its one order */
    struct fc_seat *seats;   /* one for each shard */
    size_t length;
    char name[];
};

struct fc_channels {
    pthread_mutex_t lock;
    struct fc_channel **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    unsigned shards;
    uint64_t key; /* of the hash: names are the clients' choice, and must not be made to collide */
};

int fc_channels_init(struct fc_channels *channels, unsigned shards);

/* All channels must have been given back. */
void fc_channels_destroy(struct fc_channels *channels);

/* The channel of that name, with one more reference; made if there is none. NULL: no memory. */
struct fc_channel *fc_channels_get(struct fc_channels *channels, const char *name, size_t length);

/* The same, but NULL if there is none. */
struct fc_channel *fc_channels_find(struct fc_channels *channels, const char *name, size_t length);

static inline struct fc_channel *fc_channel_ref(struct fc_channel *channel)
{
    /* Relaxed: the caller holds a reference, so that nothing needs to be ordered by it. */
    atomic_fetch_add_explicit(&channel->references, 1, memory_order_relaxed);
    return channel;
}

/* Gives a reference back; the last one takes the channel out of the table. NULL is allowed. */
void fc_channel_unref(struct fc_channels *channels, struct fc_channel *channel);

#endif
