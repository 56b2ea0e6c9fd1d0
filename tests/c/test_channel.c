/* The table of channels: names, references, growth; and threads that take and give back the same channels. */
#include "channel.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fc_channel *get(struct fc_channels *channels, const char *name)
{
    return fc_channels_get(channels, name, strlen(name));
}

static struct fc_channel *find(struct fc_channels *channels, const char *name)
{
    return fc_channels_find(channels, name, strlen(name));
}

static void a_channel_is_there_while_it_has_references(void)
{
    struct fc_channels channels;

    CHECK_EQ(fc_channels_init(&channels, 3), 0);
    CHECK(!find(&channels, "/a"));
    struct fc_channel *channel = get(&channels, "/a");
    CHECK(channel);
    CHECK_BYTES(channel->name, channel->length, "/a", 2);
    for (unsigned i = 0; i < 3; i++)
        CHECK(channel->seats[i].members == 0 && !channel->seats[i].room);
    CHECK(get(&channels, "/a") == channel);
    CHECK(find(&channels, "/a") == channel);
    CHECK_EQ(channels.count, 1);
    fc_channel_unref(&channels, channel);
    fc_channel_unref(&channels, channel);
    CHECK(find(&channels, "/a") == channel);
    fc_channel_unref(&channels, channel);
    fc_channel_unref(&channels, channel);
    CHECK_EQ(channels.count, 0);
    CHECK(!find(&channels, "/a"));
    fc_channel_unref(&channels, NULL);
    fc_channels_destroy(&channels);
}

static void names_are_bytes_with_a_length(void)
{
    static const struct {
        const char *name;
        size_t length;
    } names[] = {{"a", 1}, {"ab", 2}, {"a\0b", 3}, {"a\0c", 3}, {"\xFF", 1}, {"", 0}};
    struct fc_channel *made[6];
    struct fc_channels channels;

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    for (unsigned i = 0; i < 6; i++)
        made[i] = fc_channels_get(&channels, names[i].name, names[i].length);
    CHECK_EQ(channels.count, 6);
    for (unsigned i = 0; i < 6; i++) {
        struct fc_channel *found = fc_channels_find(&channels, names[i].name, names[i].length);
        CHECK(found == made[i]);
        fc_channel_unref(&channels, found);
        fc_channel_unref(&channels, made[i]);
    }
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

static void the_table_grows_and_nobody_is_lost(void)
{
    enum { MANY = 3000 };
    static struct fc_channel *made[MANY];
    struct fc_channels channels;
    char name[16];

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "/%u", i);
        if (i == 100) /* longer chains are the only harm */
            fault_arm(FAULT_ALLOCATION, 2, 1, ENOMEM);
        made[i] = get(&channels, name);
    }
    CHECK(channels.bucket_count >= MANY / 2);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "/%u", i);
        struct fc_channel *found = find(&channels, name);
        CHECK(found == made[i]);
        fc_channel_unref(&channels, found);
        fc_channel_unref(&channels, made[i]);
    }
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

static bool make_some(void)
{
    struct fc_channels channels;
    unsigned made = 0;
    char name[16];

    if (fc_channels_init(&channels, 2)) {
        fc_channels_destroy(&channels); /* as the exchange does */
        return false;
    }
    struct fc_channel *all[20];
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "/%u", i);
        all[made] = get(&channels, name);
        made += all[made] != NULL;
    }
    CHECK_EQ(channels.count, made);
    for (unsigned i = 0; i < made; i++)
        fc_channel_unref(&channels, all[i]);
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
    return made == 20;
}

static void missing_memory_gives_null_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(make_some), 1 + 2 * 20 + 1);
}

/* ---- threads ---- */

enum { THREADS = 4, NAMES = 5, ROUNDS = 100000 };

static struct fc_channels shared;
static unsigned visits[NAMES]; /* each under its channel's lock */

static void *take_and_give(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t number = check_random(&seed);
        char name = (char)('a' + number % NAMES);
        bool only_find = number >> 32 & 1;
        struct fc_channel *channel =
            only_find ? fc_channels_find(&shared, &name, 1) : fc_channels_get(&shared, &name, 1);
        CHECK(channel || only_find);
        if (!channel)
            continue;
        CHECK_EQ(channel->name[0], name);
        if (number >> 33 & 1) {
            fc_channel_ref(channel);
            fc_channel_unref(&shared, channel);
        }
        pthread_mutex_lock(&channel->lock);
        visits[number % NAMES]++;
        pthread_mutex_unlock(&channel->lock);
        fc_channel_unref(&shared, channel);
    }
    return NULL;
}

/* Held, so that each name has one channel and one lock all the time: what the lock guards is seen by TSan. */
static void threads_share_channels_that_somebody_holds(void)
{
    struct fc_channel *held[NAMES];
    pthread_t threads[THREADS];
    uint64_t sum = 0;

    memset(visits, 0, sizeof visits);
    CHECK_EQ(fc_channels_init(&shared, 2), 0);
    for (unsigned i = 0; i < NAMES; i++)
        held[i] = fc_channels_get(&shared, &(char){(char)('a' + i)}, 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, take_and_give, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < NAMES; i++) {
        sum += visits[i];
        fc_channel_unref(&shared, held[i]);
    }
    CHECK_EQ(sum, THREADS * ROUNDS);
    CHECK_EQ(shared.count, 0);
    fc_channels_destroy(&shared);
}

static void *come_and_go(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        char name = (char)('a' + check_random(&seed) % NAMES);
        struct fc_channel *channel = fc_channels_get(&shared, &name, 1);
        CHECK(channel);
        CHECK_EQ(channel->name[0], name);
        pthread_mutex_lock(&channel->lock);
        channel->seats[round % 2].members++;
        pthread_mutex_unlock(&channel->lock);
        fc_channel_unref(&shared, channel);
    }
    return NULL;
}

/* Nobody else holds them: they are made and freed all the time. */
static void the_last_of_many_threads_frees(void)
{
    pthread_t threads[THREADS];

    CHECK_EQ(fc_channels_init(&shared, 2), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(shared.count, 0);
    fc_channels_destroy(&shared);
}

int main(void)
{
    RUN(a_channel_is_there_while_it_has_references);
    RUN(names_are_bytes_with_a_length);
    RUN(the_table_grows_and_nobody_is_lost);
    RUN(missing_memory_gives_null_and_nothing_leaks);
    RUN(threads_share_channels_that_somebody_holds);
    RUN(the_last_of_many_threads_frees);
    return 0;
}
