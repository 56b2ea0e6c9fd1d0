/* The table of channels: names, references, growth, who hears what is published under a name; and threads that take and
 * give back the same channels. */
#include "channel.h"

#include "check.h"
#include "faults.h"
#include "topic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct fc_rule rules[] = {
    {.channels = {"prices.*", 8}}, {.channels = {"chat", 4}}, {.channels = {">", 1}}};

enum { RULES = sizeof rules / sizeof *rules };

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

    CHECK_EQ(fc_channels_init(&channels, 3, rules, RULES), 0);
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

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
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

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
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

    if (fc_channels_init(&channels, 2, rules, RULES)) {
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

static void a_channel_knows_its_rule_and_whether_it_is_a_pattern(void)
{
    static const struct {
        const char *name;
        unsigned rule;
        bool pattern;
    } cases[] = {{"prices.eur", 0, false}, {"prices.*", 0, true}, {"chat", 1, false}, {"*", 2, true},
                 {"prices.>", 0, true},    {"a*", 2, false},      {"", 2, false}};
    struct fc_channels channels;

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_channel *channel = get(&channels, cases[i].name);
        CHECK(channel->listed);
        CHECK_EQ(channel->rule, cases[i].rule);
        CHECK_EQ(channel->pattern, cases[i].pattern);
        fc_channel_unref(&channels, channel);
    }
    fc_channels_destroy(&channels);
}

static void an_unlisted_channel_is_in_no_table_and_nobody_finds_it(void)
{
    struct fc_channels channels;
    struct fc_audience audience;

    CHECK_EQ(fc_channels_init(&channels, 2, rules, RULES), 0);
    struct fc_channel *unlisted = fc_channels_unlisted(&channels);
    CHECK(!unlisted->listed && !unlisted->pattern);
    CHECK_EQ(unlisted->length, 0);
    CHECK(unlisted->seats[1].members == 0 && !unlisted->seats[1].room);
    CHECK_EQ(channels.count, 0);
    CHECK(!find(&channels, ""));
    struct fc_channel *nameless = get(&channels, "");
    CHECK(nameless != unlisted);
    CHECK_EQ(fc_channels_resolve(&channels, "", 0, &audience), 0);
    CHECK(audience.count == 1 && audience.channels[0] == nameless);
    fc_channels_release(&channels, &audience);
    CHECK(fc_channel_ref(unlisted) == unlisted);
    fc_channel_unref(&channels, unlisted);
    fc_channel_unref(&channels, unlisted);
    CHECK(find(&channels, "") == nameless);
    fc_channel_unref(&channels, nameless);
    fc_channel_unref(&channels, nameless);
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

static void all_channels_are_listed_with_a_reference_each(void)
{
    struct fc_channels channels;
    struct fc_channel *made[40];
    struct fc_channel **all;
    char name[16];
    size_t count;

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
    struct fc_channel *unlisted = fc_channels_unlisted(&channels);
    CHECK_EQ(fc_channels_all(&channels, &all, &count), 0);
    CHECK_EQ(count, 0);
    free(all);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof name, i % 2 ? "%u.*" : "%u", i);
        made[i] = get(&channels, name);
    }
    CHECK_EQ(fc_channels_all(&channels, &all, &count), 0);
    CHECK_EQ(count, 40);
    for (unsigned i = 0; i < 40; i++) {
        CHECK_EQ(all[i]->references, 2);
        fc_channel_unref(&channels, all[i]);
        CHECK_EQ(all[i]->references, 1); /* each once */
    }
    free(all);
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_channels_all(&channels, &all, &count), -ENOMEM);
    CHECK_EQ(count, 0);
    for (unsigned i = 0; i < 40; i++)
        fc_channel_unref(&channels, made[i]);
    fc_channel_unref(&channels, unlisted);
    fc_channels_destroy(&channels);
}

/* ---- who hears what ---- */

static bool hears(const struct fc_audience *audience, const struct fc_channel *channel)
{
    unsigned n = 0;

    for (unsigned i = 0; i < audience->count; i++)
        n += audience->channels[i] == channel;
    CHECK(n <= 1);
    return n == 1;
}

static void a_message_is_heard_by_its_channel_and_by_patterns_that_take_it_in(void)
{
    struct fc_channels channels;
    struct fc_audience audience;

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
    CHECK(!fc_channels_have_patterns(&channels));
    CHECK_EQ(fc_channels_resolve(&channels, "a.b", 3, &audience), 0);
    CHECK_EQ(audience.count, 0);
    fc_channels_release(&channels, &audience);
    CHECK_EQ(channels.count, 0); /* nothing is made by asking */

    struct fc_channel *plain = get(&channels, "a.b");
    CHECK(!fc_channels_have_patterns(&channels));
    struct fc_channel *one = get(&channels, "a.*");
    struct fc_channel *rest = get(&channels, ">");
    struct fc_channel *other = get(&channels, "b.*");
    CHECK(get(&channels, "a.*") == one); /* known, and not added twice */
    fc_channel_unref(&channels, one);
    CHECK_EQ(channels.pattern_count, 3);
    CHECK_EQ(fc_channels_resolve(&channels, "a.b", 3, &audience), 0);
    CHECK_EQ(audience.count, 3);
    CHECK(hears(&audience, plain) && hears(&audience, one) && hears(&audience, rest));
    CHECK(plain->references == 2 && one->references == 2 && rest->references == 2 && other->references == 1);
    fc_channels_release(&channels, &audience);
    CHECK(plain->references == 1 && one->references == 1 && rest->references == 1);
    fc_channels_release(&channels, &audience); /* empty now */

    CHECK_EQ(fc_channels_resolve(&channels, "a.c", 3, &audience), 0);
    CHECK(audience.count == 2 && hears(&audience, one) && hears(&audience, rest));
    fc_channel_unref(&channels, one); /* what is resolved stays until it's released */
    CHECK(fc_channels_have_patterns(&channels));
    CHECK_EQ(channels.count, 4);
    fc_channels_release(&channels, &audience);
    CHECK_EQ(channels.count, 3);
    CHECK_EQ(fc_channels_resolve(&channels, "a.c", 3, &audience), 0);
    CHECK(audience.count == 1 && hears(&audience, rest));
    fc_channels_release(&channels, &audience);
    fc_channel_unref(&channels, rest);
    fc_channel_unref(&channels, other);
    CHECK(!fc_channels_have_patterns(&channels));
    fc_channel_unref(&channels, plain);
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

enum { DEPTH = 5, PATTERNS = 1 << DEPTH };

/* The i-th of the patterns that take in a.a.a.a.a: the bits tell where it has a wildcard. */
static size_t pattern(char *name, unsigned i)
{
    for (unsigned k = 0; k < DEPTH; k++)
        memcpy(name + 2 * k, i >> k & 1 ? "*." : "a.", 2);
    return 2 * DEPTH - 1;
}

static void an_audience_may_be_larger_than_usual(void)
{
    struct fc_channels channels;
    struct fc_audience audience;
    struct fc_channel *made[PATTERNS];
    char name[2 * DEPTH];

    CHECK_EQ(fc_channels_init(&channels, 1, rules, RULES), 0);
    for (unsigned n = 0; n < PATTERNS; n++) {
        made[n] = fc_channels_get(&channels, name, pattern(name, n));
        pattern(name, 0);
        CHECK_EQ(fc_channels_resolve(&channels, name, 2 * DEPTH - 1, &audience), 0);
        CHECK_EQ(audience.count, n + 1);
        for (unsigned i = 0; i <= n; i++)
            CHECK(hears(&audience, made[i]));
        fc_channels_release(&channels, &audience);
    }
    for (unsigned i = 0; i < PATTERNS; i++) {
        CHECK_EQ(made[i]->references, 1);
        fc_channel_unref(&channels, made[i]);
    }
    CHECK_EQ(channels.count, 0);
    CHECK_EQ(channels.patterns.nodes, 0);
    fc_channels_destroy(&channels);
}

static bool make_and_resolve(void)
{
    struct fc_channels channels;
    struct fc_audience audience;
    struct fc_channel *made[PATTERNS];
    char name[2 * DEPTH];
    unsigned n = 0;

    if (fc_channels_init(&channels, 1, rules, RULES)) {
        fc_channels_destroy(&channels);
        return false;
    }
    for (unsigned i = 0; i < PATTERNS; i++) {
        made[n] = fc_channels_get(&channels, name, pattern(name, i));
        n += made[n] != NULL;
    }
    CHECK_EQ(channels.count, n);
    CHECK_EQ(channels.pattern_count, n - (made[0]->pattern ? 0 : 1));
    pattern(name, 0);
    int error = fc_channels_resolve(&channels, name, 2 * DEPTH - 1, &audience);
    CHECK(error == 0 || error == -ENOMEM);
    if (!error) {
        CHECK_EQ(audience.count, n);
        fc_channels_release(&channels, &audience);
    }
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(made[i]->references, 1); /* nothing of a failed one is left */
        fc_channel_unref(&channels, made[i]);
    }
    CHECK_EQ(channels.count, 0);
    CHECK_EQ(channels.pattern_count, 0);
    CHECK_EQ(channels.patterns.nodes, 0);
    fc_channels_destroy(&channels);
    return !error && n == PATTERNS;
}

/* What only makes tables longer may be missing; so this can't be check_each_allocation. */
static void missing_memory_for_patterns_and_audiences_is_an_error(void)
{
    unsigned failures = 0;

    for (unsigned long n = 0;; n++) {
        fault_clear();
        fault_arm(FAULT_ALLOCATION, n, 1, ENOMEM);
        bool succeeded = make_and_resolve();
        unsigned long injected = fault_injected(FAULT_ALLOCATION);
        failures += !succeeded;
        if (injected == 0) {
            CHECK(succeeded);
            break;
        }
    }
    /* The table; channels and seats; nodes, buckets of the trie; two growths of the audience. */
    CHECK(failures >= 1 + 2 * PATTERNS + PATTERNS + 1 + 2);
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
    CHECK_EQ(fc_channels_init(&shared, 2, rules, RULES), 0);
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

    CHECK_EQ(fc_channels_init(&shared, 2, rules, RULES), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(shared.count, 0);
    fc_channels_destroy(&shared);
}

/* Patterns come and go while others resolve: what is found is alive, and takes in the name. */
static void *resolve_all(void *argument)
{
    static const char *const names[] = {"a.b", "a.c", "b.b", "a"};
    static const char *const subscribed[] = {"a.*", "*.b", ">", "a.b", "a.>", "*"};
    uint64_t seed = (uint64_t)(uintptr_t)argument;

    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        const char *name = names[check_random(&seed) % 4];
        struct fc_channel *mine = get(&shared, subscribed[check_random(&seed) % 6]);
        struct fc_audience audience;
        CHECK_EQ(fc_channels_resolve(&shared, name, strlen(name), &audience), 0);
        bool expected = fc_topic_matches(mine->name, mine->length, name, strlen(name));
        CHECK_EQ(hears(&audience, mine), expected);
        CHECK(!mine->pattern || fc_channels_have_patterns(&shared));
        for (unsigned i = 0; i < audience.count; i++) {
            struct fc_channel *channel = audience.channels[i];
            CHECK(fc_topic_matches(channel->name, channel->length, name, strlen(name)));
            pthread_mutex_lock(&channel->lock);
            channel->seats[0].members++;
            pthread_mutex_unlock(&channel->lock);
        }
        fc_channels_release(&shared, &audience);
        fc_channel_unref(&shared, mine);
    }
    return NULL;
}

static void threads_resolve_while_patterns_come_and_go(void)
{
    pthread_t threads[THREADS];

    CHECK_EQ(fc_channels_init(&shared, 2, rules, RULES), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, resolve_all, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(shared.count, 0);
    CHECK(!fc_channels_have_patterns(&shared));
    CHECK_EQ(shared.patterns.nodes, 0);
    fc_channels_destroy(&shared);
}

int main(void)
{
    RUN(a_channel_is_there_while_it_has_references);
    RUN(names_are_bytes_with_a_length);
    RUN(the_table_grows_and_nobody_is_lost);
    RUN(missing_memory_gives_null_and_nothing_leaks);
    RUN(a_channel_knows_its_rule_and_whether_it_is_a_pattern);
    RUN(an_unlisted_channel_is_in_no_table_and_nobody_finds_it);
    RUN(all_channels_are_listed_with_a_reference_each);
    RUN(a_message_is_heard_by_its_channel_and_by_patterns_that_take_it_in);
    RUN(an_audience_may_be_larger_than_usual);
    RUN(missing_memory_for_patterns_and_audiences_is_an_error);
    RUN(threads_share_channels_that_somebody_holds);
    RUN(the_last_of_many_threads_frees);
    RUN(threads_resolve_while_patterns_come_and_go);
    return 0;
}
