/* The table of channels, shared by all shards and by every publishing thread.
 *
 * Invariant: a channel is in the table exactly while it has references, so that the last reference is
 * dropped under the table's lock; the others are not. References are held by rooms (a shard with members),
 * by commands under way, and by callers for the length of a call.
 */
#include "channel.h"

#include "hash.h"
#include "history.h"
#include "topic.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

int fc_channels_init(struct fc_channels *channels, unsigned shards, const struct fc_rule *rules, unsigned rule_count)
{
    *channels =
        (struct fc_channels){.bucket_count = 16, .shards = shards, .rules = rules, .rule_count = rule_count};
    channels->buckets = calloc(channels->bucket_count, sizeof(struct fc_channel *));
    if (!channels->buckets)
        return -ENOMEM;
    /* Without entropy, early at boot, the time must do. */
    if (getrandom(&channels->key, sizeof channels->key, GRND_NONBLOCK) != sizeof channels->key)
        channels->key = (uint64_t)(uintptr_t)channels->buckets ^ (uint64_t)time(NULL) << 32;
    for (unsigned i = 0; i < rule_count; i++)
        channels->keeps |= fc_rule_keeps(&rules[i]);
    fc_patterns_init(&channels->patterns, channels->key);
    pthread_mutex_init(&channels->lock, NULL);
    return 0;
}

void fc_channels_destroy(struct fc_channels *channels)
{
    if (!channels->buckets)
        return;
    fc_patterns_destroy(&channels->patterns);
    free(channels->buckets);
    pthread_mutex_destroy(&channels->lock);
    channels->buckets = NULL;
}

static struct fc_channel **bucket(struct fc_channels *channels, uint32_t hash)
{
    return &channels->buckets[hash & (channels->bucket_count - 1)];
}

/* A record has the name of its channel, and another hash. */
static uint32_t hash_of(const struct fc_channels *channels, const char *name, size_t length, bool record)
{
    return fc_hash(channels->key, name, length) + record;
}

static struct fc_channel *lookup(struct fc_channels *channels, uint32_t hash, const char *name, size_t length,
                                 bool record)
{
    struct fc_channel *channel = *bucket(channels, hash);

    while (channel && !(channel->hash == hash && channel->length == length && (channel->history != NULL) == record &&
                        !memcmp(channel->name, name, length)))
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

static void destroy(struct fc_channel *channel)
{
    pthread_mutex_destroy(&channel->lock);
    fc_history_free(channel->history);
    free(channel->seats);
    free(channel);
}

static struct fc_channel *make(const struct fc_channels *channels, const char *name, size_t length)
{
    struct fc_channel *channel = malloc(sizeof *channel + length);

    if (!channel)
        return NULL;
    *channel = (struct fc_channel){.length = length};
    channel->seats = calloc(channels->shards, sizeof *channel->seats);
    if (!channel->seats) {
        free(channel);
        return NULL;
    }
    atomic_init(&channel->references, 1);
    pthread_mutex_init(&channel->lock, NULL);
    if (length > 0)
        memcpy(channel->name, name, length);
    /* What has no name isn't taken in by any pattern. */
    channel->rule = length > 0 ? fc_rules_find(channels->rules, channels->rule_count, name, length)
                               : (uint8_t)(channels->rule_count - 1);
    return channel;
}

static int add_history(const struct fc_channels *channels, struct fc_channel *record)
{
    record->history = fc_history_new(record, channels->shards, &channels->rules[record->rule],
                                     fc_rules_lossless(channels->rule_count, record->rule));
    return record->history ? 0 : -ENOMEM;
}

static struct fc_channel *enlist(struct fc_channels *channels, uint32_t hash, const char *name, size_t length,
                                 bool record)
{
    struct fc_channel *channel = make(channels, name, length);

    if (!channel)
        return NULL;
    channel->hash = hash;
    if (record && add_history(channels, channel)) {
        destroy(channel);
        return NULL;
    }
    channel->pattern = fc_topic_is_pattern(name, length);
    if (channel->pattern) {
        if (fc_patterns_add(&channels->patterns, name, length, channel)) {
            destroy(channel);
            return NULL;
        }
        atomic_fetch_add_explicit(&channels->pattern_count, 1, memory_order_relaxed);
    }
    if (channels->count >= channels->bucket_count)
        grow(channels);
    channel->listed = true;
    channel->next = *bucket(channels, hash);
    *bucket(channels, hash) = channel;
    channels->count++;
    return channel;
}

static void unlist(struct fc_channels *channels, struct fc_channel *channel)
{
    struct fc_channel **place = bucket(channels, channel->hash);

    while (*place != channel)
        place = &(*place)->next;
    *place = channel->next;
    channels->count--;
    if (channel->pattern) {
        fc_patterns_remove(&channels->patterns, channel->name, channel->length);
        atomic_fetch_sub_explicit(&channels->pattern_count, 1, memory_order_relaxed);
    }
}

static struct fc_channel *acquire(struct fc_channels *channels, const char *name, size_t length, bool record,
                                  bool may_make)
{
    uint32_t hash = hash_of(channels, name, length, record);

    pthread_mutex_lock(&channels->lock);
    struct fc_channel *channel = lookup(channels, hash, name, length, record);
    if (channel)
        fc_channel_ref(channel);
    else if (may_make)
        channel = enlist(channels, hash, name, length, record);
    pthread_mutex_unlock(&channels->lock);
    return channel;
}

struct fc_channel *fc_channels_get(struct fc_channels *channels, const char *name, size_t length)
{
    return acquire(channels, name, length, false, true);
}

struct fc_channel *fc_channels_find(struct fc_channels *channels, const char *name, size_t length)
{
    return acquire(channels, name, length, false, false);
}

bool fc_channels_keep(const struct fc_channels *channels, const char *name, size_t length)
{
    if (!channels->keeps || fc_topic_is_pattern(name, length))
        return false;
    return fc_rule_keeps(&channels->rules[fc_rules_find(channels->rules, channels->rule_count, name, length)]);
}

struct fc_channel *fc_channels_get_record(struct fc_channels *channels, const char *name, size_t length)
{
    return acquire(channels, name, length, true, true);
}

struct fc_channel *fc_channels_find_record(struct fc_channels *channels, const char *name, size_t length)
{
    return channels->keeps ? acquire(channels, name, length, true, false) : NULL;
}

struct fc_channel *fc_channels_unlisted(struct fc_channels *channels)
{
    return make(channels, "", 0);
}

static int add_to_audience(void *context, struct fc_channel *channel)
{
    struct fc_audience *audience = context;

    if (audience->count == audience->capacity) {
        unsigned capacity = 2 * audience->capacity;
        struct fc_channel **old = audience->channels == audience->few ? NULL : audience->channels;
        struct fc_channel **grown = realloc(old, capacity * sizeof(struct fc_channel *));
        if (!grown)
            return -ENOMEM;
        if (!old)
            memcpy(grown, audience->few, sizeof audience->few);
        audience->channels = grown;
        audience->capacity = capacity;
    }
    audience->channels[audience->count++] = fc_channel_ref(channel);
    return 0;
}

/* The table is locked. */
static int add_record(struct fc_channels *channels, const char *name, size_t length, bool may_make,
                      struct fc_audience *audience)
{
    uint32_t hash = hash_of(channels, name, length, true);
    struct fc_channel *record = lookup(channels, hash, name, length, true);

    if (record)
        return add_to_audience(audience, record);
    if (!may_make)
        return 0;
    record = enlist(channels, hash, name, length, true);
    if (!record)
        return -ENOMEM;
    audience->channels[audience->count++] = record; /* with the reference that it was made with; there's room for it */
    return 0;
}

static int resolve(struct fc_channels *channels, const char *name, size_t length, bool keeps,
                   struct fc_audience *audience)
{
    uint32_t hash = hash_of(channels, name, length, false);

    audience->count = 0;
    audience->capacity = sizeof audience->few / sizeof audience->few[0];
    audience->channels = audience->few;
    pthread_mutex_lock(&channels->lock);
    struct fc_channel *channel = lookup(channels, hash, name, length, false);
    int error = channel ? add_to_audience(audience, channel) : 0;
    if (!error && channels->keeps)
        error = add_record(channels, name, length, keeps, audience);
    if (!error)
        error = fc_patterns_match(&channels->patterns, name, length, add_to_audience, audience);
    pthread_mutex_unlock(&channels->lock);
    if (error)
        fc_channels_release(channels, audience);
    return error;
}

int fc_channels_resolve(struct fc_channels *channels, const char *name, size_t length, struct fc_audience *audience)
{
    return resolve(channels, name, length, false, audience);
}

int fc_channels_address(struct fc_channels *channels, const char *name, size_t length, struct fc_audience *audience)
{
    return resolve(channels, name, length, fc_channels_keep(channels, name, length), audience);
}

void fc_channels_release(struct fc_channels *channels, struct fc_audience *audience)
{
    for (unsigned i = 0; i < audience->count; i++)
        fc_channel_unref(channels, audience->channels[i]);
    if (audience->channels != audience->few)
        free(audience->channels);
    audience->count = 0;
    audience->channels = audience->few;
}

int fc_channels_all(struct fc_channels *channels, struct fc_channel ***all, size_t *count)
{
    *count = 0;
    pthread_mutex_lock(&channels->lock);
    *all = malloc((channels->count + 1) * sizeof(struct fc_channel *));
    for (size_t i = 0; *all && i < channels->bucket_count; i++) {
        for (struct fc_channel *channel = channels->buckets[i]; channel; channel = channel->next)
            (*all)[(*count)++] = fc_channel_ref(channel);
    }
    pthread_mutex_unlock(&channels->lock);
    return *all ? 0 : -ENOMEM;
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
    if (last && channel->listed)
        unlist(channels, channel);
    pthread_mutex_unlock(&channels->lock);
    if (last)
        destroy(channel);
}
