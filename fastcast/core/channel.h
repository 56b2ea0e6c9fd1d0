/* Channels by name: who must hear what, and in which order. */
#ifndef FC_CHANNEL_H
#define FC_CHANNEL_H

#include "patterns.h"
#include "rules.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_history;
struct fc_room;

/* What a delivery to a subscriber comes to. What was sent, and none of the others yet, is queued. */
enum fc_fate { FC_SENT, FC_DELIVERED, FC_DROPPED, FC_GONE, FC_FATES };

struct fc_tally {
    atomic_ullong of[FC_FATES];
};

/* A shard's part of a channel. */
struct fc_seat {
    uint32_t members;     /* under the channel's lock: a publisher skips shards where nobody listens */
    uint32_t coming;      /* subscriptions that are in the shard's mailbox, and hear what is published behind them */
    struct fc_room *room; /* written by the shard's own thread, under the channel's lock */
    uint64_t told;        /* of a record: messages that were put into the shard's mailbox, */
    uint64_t taken;       /* and taken out of it; the shard's own */
    bool lost;            /* of a record, under its lock: its members here have missed something, for want of memory */
    uint64_t losses;      /* how often it wasn't put into the mailbox at all: who was still to come has missed it, too */
};

struct fc_channel {
    atomic_uint references;
    uint32_t hash;
    struct fc_channel *next; /* in the table's bucket */
    pthread_mutex_t lock;    /* publishing is one critical section for each channel: that's its one order */
    struct fc_seat *seats;   /* one for each shard */
    struct fc_tally past;    /* of rooms that have gone */
    bool listed;             /* in the table */
    bool pattern;            /* also among the patterns: then the name is one */
    struct fc_history *history; /* it's the record of the channel of its name: see history.h; or NULL */
    uint8_t rule;
    size_t length;
    char name[];
};

struct fc_channels {
    pthread_mutex_t lock;
    struct fc_channel **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    struct fc_patterns patterns;
    atomic_size_t pattern_count; /* of `patterns`, to be read without the lock */
    const struct fc_rule *rules;
    unsigned rule_count;
    bool keeps; /* under some of the rules channels have a history */
    unsigned shards;
    uint64_t key; /* of the hashes: names are the clients' choice, and must not be made to collide */
};

/* The channels that hear one message: that of its name, if it has members, its record, if it has one, and those of patterns
 * that take the name in. */
struct fc_audience {
    unsigned count;
    unsigned capacity;
    struct fc_channel **channels; /* one reference each */
    struct fc_channel *few[8];    /* what `channels` points to as long as that suffices */
};

/* The rules must stay where they are. */
int fc_channels_init(struct fc_channels *channels, unsigned shards, const struct fc_rule *rules, unsigned rule_count);

/* All channels must have been given back. */
void fc_channels_destroy(struct fc_channels *channels);

/* The channel of that name, with one more reference; made if there is none. NULL: no memory. */
struct fc_channel *fc_channels_get(struct fc_channels *channels, const char *name, size_t length);

/* The same, but NULL if there is none. */
struct fc_channel *fc_channels_find(struct fc_channels *channels, const char *name, size_t length);

/* Whether the channel of that name has a history; patterns have none. */
bool fc_channels_keep(const struct fc_channels *channels, const char *name, size_t length);

/* The record of such a channel; the same in all else. */
struct fc_channel *fc_channels_get_record(struct fc_channels *channels, const char *name, size_t length);
struct fc_channel *fc_channels_find_record(struct fc_channels *channels, const char *name, size_t length);

/* A channel outside of the table, without a name. NULL: no memory. */
struct fc_channel *fc_channels_unlisted(struct fc_channels *channels);

/* Who hears what is published under the name; to be released. 0, or -ENOMEM and nothing to release. */
int fc_channels_resolve(struct fc_channels *channels, const char *name, size_t length, struct fc_audience *audience);

/* The same for what is about to be published: with its record, if it has a history, even without members. */
int fc_channels_address(struct fc_channels *channels, const char *name, size_t length, struct fc_audience *audience);

void fc_channels_release(struct fc_channels *channels, struct fc_audience *audience);

/* All channels, with a reference each, in an array for free(). 0 or -ENOMEM. */
int fc_channels_all(struct fc_channels *channels, struct fc_channel ***all, size_t *count);

/* Whether somebody subscribes to a pattern. */
static inline bool fc_channels_have_patterns(struct fc_channels *channels)
{
    /* Relaxed: who subscribed before the publisher was told so is seen by it, since being told orders it. */
    return atomic_load_explicit(&channels->pattern_count, memory_order_relaxed) > 0;
}

static inline struct fc_channel *fc_channel_ref(struct fc_channel *channel)
{
    /* Relaxed: the caller holds a reference, so that nothing needs to be ordered by it. */
    atomic_fetch_add_explicit(&channel->references, 1, memory_order_relaxed);
    return channel;
}

/* Gives a reference back; the last one takes the channel out of the table. NULL is allowed. */
void fc_channel_unref(struct fc_channels *channels, struct fc_channel *channel);

#endif
