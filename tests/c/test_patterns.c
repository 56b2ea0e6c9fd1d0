/* The trie of patterns: against a list of them and fc_topic_matches; many siblings; missing memory. */
#include "patterns.h"

#include "check.h"
#include "faults.h"
#include "topic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands for a channel, which the trie only points to. */
struct subject {
    char name[24];
    size_t length;
    bool present;
    unsigned found;
};

static struct fc_channel *as_channel(struct subject *subject)
{
    return (struct fc_channel *)(void *)subject;
}

static struct subject subject_of(const char *name)
{
    struct subject subject = {.length = strlen(name)};

    memcpy(subject.name, name, subject.length);
    return subject;
}

static int add(struct fc_patterns *patterns, struct subject *subject)
{
    return fc_patterns_add(patterns, subject->name, subject->length, as_channel(subject));
}

static void drop(struct fc_patterns *patterns, const struct subject *subject)
{
    fc_patterns_remove(patterns, subject->name, subject->length);
}

static int count(void *context, struct fc_channel *channel)
{
    struct subject *subject = (struct subject *)(void *)channel;

    subject->found++;
    ++*(unsigned *)context;
    return 0;
}

static unsigned match(const struct fc_patterns *patterns, const char *name, size_t length)
{
    unsigned n = 0;

    CHECK_EQ(fc_patterns_match(patterns, name, length, count, &n), 0);
    return n;
}

static unsigned match_text(const struct fc_patterns *patterns, const char *name)
{
    return match(patterns, name, strlen(name));
}

static void close_patterns(struct fc_patterns *patterns)
{
    CHECK_EQ(patterns->count, 0);
    CHECK_EQ(patterns->nodes, 0);
    fc_patterns_destroy(patterns);
}

static void without_patterns_nothing_is_found(void)
{
    struct fc_patterns patterns;

    fc_patterns_init(&patterns, 1);
    CHECK_EQ(match_text(&patterns, "a.b"), 0);
    close_patterns(&patterns);
}

static void all_that_take_in_a_name_are_found_once(void)
{
    static const char *const names[] = {"a.*", "a.>", ">", "*.*", "*.b", "*.>", "a.b.>", "*", "b.*", "a.*.c"};
    enum { NAMES = sizeof names / sizeof *names };
    struct subject subjects[NAMES];
    struct fc_patterns patterns;

    fc_patterns_init(&patterns, 2);
    for (unsigned i = 0; i < NAMES; i++) {
        subjects[i] = subject_of(names[i]);
        CHECK_EQ(add(&patterns, &subjects[i]), 0);
    }
    CHECK_EQ(patterns.count, NAMES);
    CHECK_EQ(match_text(&patterns, "a.b"), 6);
    for (unsigned i = 0; i < NAMES; i++)
        CHECK_EQ(subjects[i].found, i < 6);
    CHECK_EQ(match_text(&patterns, "a"), 2);
    CHECK_EQ(match_text(&patterns, "a.b.c"), 5);
    CHECK_EQ(match_text(&patterns, "c.d.e.f"), 2);
    CHECK_EQ(match_text(&patterns, ""), 2);
    for (unsigned i = 0; i < NAMES; i++)
        drop(&patterns, &subjects[i]);
    CHECK_EQ(match_text(&patterns, "a.b"), 0);
    close_patterns(&patterns);
}

/* What is published under a wildcard's name would be found by two ways. */
static void a_name_that_looks_like_a_pattern_finds_each_pattern_once(void)
{
    static const char *const names[] = {"a.*", "a.>", "*.>", ">"};
    struct subject subjects[4];
    struct fc_patterns patterns;

    fc_patterns_init(&patterns, 3);
    for (unsigned i = 0; i < 4; i++) {
        subjects[i] = subject_of(names[i]);
        CHECK_EQ(add(&patterns, &subjects[i]), 0);
    }
    CHECK_EQ(match_text(&patterns, "a.*"), 4);
    CHECK_EQ(match_text(&patterns, "a.>"), 4);
    CHECK_EQ(match_text(&patterns, "*.>"), 2);
    CHECK_EQ(match_text(&patterns, ">"), 1);
    for (unsigned i = 0; i < 4; i++)
        drop(&patterns, &subjects[i]);
    close_patterns(&patterns);
}

static void a_pattern_stays_when_one_that_it_begins_with_or_that_begins_with_it_goes(void)
{
    struct subject inner = subject_of("a.*");
    struct subject outer = subject_of("a.*.b.*");
    struct subject other = subject_of("a.*.c");
    struct fc_patterns patterns;

    fc_patterns_init(&patterns, 4);
    CHECK(add(&patterns, &outer) == 0 && add(&patterns, &inner) == 0 && add(&patterns, &other) == 0);
    CHECK_EQ(patterns.nodes, 5);
    drop(&patterns, &inner);
    CHECK_EQ(patterns.nodes, 5);
    CHECK(match_text(&patterns, "a.x") == 0 && match_text(&patterns, "a.x.b.y") == 1);
    CHECK_EQ(add(&patterns, &inner), 0);
    drop(&patterns, &outer);
    CHECK_EQ(patterns.nodes, 3);
    CHECK(match_text(&patterns, "a.x") == 1 && match_text(&patterns, "a.x.b.y") == 0);
    drop(&patterns, &inner);
    CHECK(match_text(&patterns, "a.x") == 0 && match_text(&patterns, "a.x.c") == 1);
    drop(&patterns, &other);
    close_patterns(&patterns);
}

static int end_at_the_second(void *context, struct fc_channel *channel)
{
    (void)channel;
    return ++*(unsigned *)context == 2 ? -ENOMEM : 0;
}

static void the_first_result_that_is_not_zero_ends_the_search(void)
{
    static const char *const names[] = {"a.*.c", "a.>", "*.b.c", ">", "a.*.*"};
    struct subject subjects[5];
    struct fc_patterns patterns;
    unsigned calls = 0;

    fc_patterns_init(&patterns, 5);
    for (unsigned i = 0; i < 5; i++) {
        subjects[i] = subject_of(names[i]);
        CHECK_EQ(add(&patterns, &subjects[i]), 0);
    }
    CHECK_EQ(fc_patterns_match(&patterns, "a.b.c", 5, end_at_the_second, &calls), -ENOMEM);
    CHECK_EQ(calls, 2);
    for (unsigned i = 0; i < 5; i++)
        drop(&patterns, &subjects[i]);
    close_patterns(&patterns);
}

static void the_longest_name_is_searched_to_its_end(void)
{
    static char dots[FC_TOPIC_MAX];
    struct subject subject = {.present = true};
    struct fc_patterns patterns;

    memset(dots, '.', sizeof dots);
    fc_patterns_init(&patterns, 6);
    dots[sizeof dots - 1] = '*';
    CHECK_EQ(fc_patterns_add(&patterns, dots, sizeof dots, as_channel(&subject)), 0);
    CHECK_EQ(patterns.nodes, FC_TOPIC_MAX);
    dots[sizeof dots - 1] = 'x';
    CHECK_EQ(match(&patterns, dots, sizeof dots), 1);
    CHECK_EQ(match(&patterns, dots, sizeof dots - 2), 0);
    dots[sizeof dots - 1] = '*';
    fc_patterns_remove(&patterns, dots, sizeof dots);
    close_patterns(&patterns);
}

/* ---- the model: a list of patterns, each of which is looked at ---- */

static size_t random_name(uint64_t *seed, char *name, bool as_pattern)
{
    static const char *const tokens[] = {"a", "b", "aa", "", "*", "*", "c", "price"};
    unsigned count_of_tokens = 1 + (unsigned)(check_random(seed) % 4);
    size_t length = 0;

    for (unsigned i = 0; i < count_of_tokens; i++) {
        const char *token = tokens[check_random(seed) % 8];
        if (as_pattern && i + 1 == count_of_tokens && check_random(seed) % 3 == 0)
            token = ">";
        if (!as_pattern && token[0] == '*' && check_random(seed) % 8 > 0)
            token = "d";
        if (i > 0)
            name[length++] = '.';
        memcpy(name + length, token, strlen(token));
        length += strlen(token);
    }
    return length;
}

enum { SUBJECTS = 600 };

static struct subject pool[SUBJECTS];

static struct subject *in_pool(const char *name, size_t length, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (pool[i].length == length && !memcmp(pool[i].name, name, length))
            return &pool[i];
    }
    return NULL;
}

static void fill_pool(uint64_t *seed)
{
    memset(pool, 0, sizeof pool);
    for (unsigned n = 0; n < SUBJECTS;) {
        pool[n].length = random_name(seed, pool[n].name, true);
        CHECK(pool[n].length == 0 || fc_topic_valid(pool[n].name, pool[n].length));
        n += !in_pool(pool[n].name, pool[n].length, n);
    }
}

static void random_patterns_are_found_like_one_by_one(void)
{
    uint64_t seed = 12;
    struct fc_patterns patterns;
    unsigned present = 0;
    uint64_t total = 0;

    fill_pool(&seed);
    fc_patterns_init(&patterns, check_random(&seed));
    for (unsigned round = 0; round < 20000; round++) {
        struct subject *subject = &pool[check_random(&seed) % SUBJECTS];
        bool wanted = check_random(&seed) % 4000 > (round % 4000); /* from nearly all to nearly none, and again */
        if (wanted && !subject->present)
            CHECK_EQ(add(&patterns, subject), 0);
        else if (!wanted && subject->present)
            drop(&patterns, subject);
        present = present + wanted - subject->present;
        subject->present = wanted;
        CHECK_EQ(patterns.count, present);

        char name[24];
        size_t length = random_name(&seed, name, false);
        unsigned n = match(&patterns, name, length);
        unsigned expected = 0;
        for (unsigned i = 0; i < SUBJECTS; i++) {
            bool takes_in =
                pool[i].present && fc_topic_matches(pool[i].name, pool[i].length, name, length);
            CHECK_EQ(pool[i].found, takes_in);
            pool[i].found = 0;
            expected += takes_in;
        }
        CHECK_EQ(n, expected);
        total += n;
    }
    CHECK(total > 20000);
    for (unsigned i = 0; i < SUBJECTS; i++) {
        if (pool[i].present)
            drop(&patterns, &pool[i]);
    }
    close_patterns(&patterns);
}

/* ---- many siblings ---- */

static size_t longest_chain(const struct fc_patterns *patterns)
{
    size_t longest = 0;

    for (size_t i = 0; i < patterns->bucket_count; i++) {
        size_t n = 0;
        for (const struct fc_node *node = patterns->buckets[i]; node; node = node->next)
            n++;
        longest = n > longest ? n : longest;
    }
    return longest;
}

static void a_hundred_thousand_siblings_are_as_good_as_two(void)
{
    enum { SIBLINGS = 100000 };
    static const uint64_t keys[] = {0, UINT64_MAX, UINT64_C(0x123456789ABCDEF)};
    struct subject *siblings = calloc(SIBLINGS, sizeof *siblings);
    struct fc_patterns patterns;
    char name[24];

    for (unsigned i = 0; i < SIBLINGS; i++) {
        snprintf(name, sizeof name, "prices.%u.*", i);
        siblings[i] = subject_of(name);
    }
    for (unsigned k = 0; k < sizeof keys / sizeof *keys; k++) {
        fc_patterns_init(&patterns, keys[k]);
        for (unsigned i = 0; i < SIBLINGS; i++)
            CHECK_EQ(add(&patterns, &siblings[i]), 0);
        CHECK_EQ(patterns.nodes, 1 + 2 * SIBLINGS);
        CHECK(patterns.bucket_count >= patterns.nodes / 2);
        CHECK(longest_chain(&patterns) <= 24); /* how far a search may have to look at each of its edges */
        for (unsigned i = 0; i < SIBLINGS; i++) {
            int n = snprintf(name, sizeof name, "prices.%u.x", i);
            CHECK_EQ(match(&patterns, name, (size_t)n), 1);
            CHECK_EQ(siblings[i].found, k + 1);
        }
        CHECK_EQ(match_text(&patterns, "prices.100000.x"), 0);
        for (unsigned i = 0; i < SIBLINGS; i++)
            drop(&patterns, &siblings[i]);
        close_patterns(&patterns);
    }
    free(siblings);
}

/* ---- missing memory ---- */

static bool add_some(void)
{
    static const char *const names[] = {"a.*", "a.*.b.c.d.*", "*", "a.b.c.>", "b.*.1.2.3.4.5.6.7.8"};
    enum { NAMES = sizeof names / sizeof *names };
    struct subject subjects[NAMES];
    struct fc_patterns patterns;
    unsigned added = 0;

    fc_patterns_init(&patterns, 7);
    for (unsigned i = 0; i < NAMES; i++) {
        subjects[i] = subject_of(names[i]);
        size_t before = patterns.nodes;
        int error = add(&patterns, &subjects[i]);
        CHECK(error == 0 || error == -ENOMEM);
        if (error)
            CHECK_EQ(patterns.nodes, before); /* nothing of it stays */
        subjects[i].present = !error;
        added += !error;
    }
    CHECK_EQ(patterns.count, added);
    for (unsigned i = 0; i < NAMES; i++) {
        match(&patterns, names[i], strlen(names[i]));
        CHECK_EQ(subjects[i].found > 0, subjects[i].present);
    }
    for (unsigned i = 0; i < NAMES; i++) {
        if (subjects[i].present)
            drop(&patterns, &subjects[i]);
    }
    close_patterns(&patterns);
    return added == NAMES;
}

static void missing_memory_is_an_error_and_what_is_there_stays(void)
{
    /* Eleven nodes for the first four, ten for the last; buckets twice, whose second time may fail without harm. */
    for (unsigned long n = 0;; n++) {
        fault_clear();
        fault_arm(FAULT_ALLOCATION, n, 1, ENOMEM);
        bool all = add_some();
        unsigned long injected = fault_injected(FAULT_ALLOCATION);
        if (injected == 0) {
            CHECK(all);
            CHECK(n >= 20);
            break;
        }
        CHECK(!all || n > 10);
    }
}

int main(void)
{
    RUN(without_patterns_nothing_is_found);
    RUN(all_that_take_in_a_name_are_found_once);
    RUN(a_name_that_looks_like_a_pattern_finds_each_pattern_once);
    RUN(a_pattern_stays_when_one_that_it_begins_with_or_that_begins_with_it_goes);
    RUN(the_first_result_that_is_not_zero_ends_the_search);
    RUN(the_longest_name_is_searched_to_its_end);
    RUN(random_patterns_are_found_like_one_by_one);
    RUN(missing_memory_is_an_error_and_what_is_there_stays);
    RUN(a_hundred_thousand_siblings_are_as_good_as_two);
    return 0;
}
