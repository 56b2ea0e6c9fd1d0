/* Names and patterns of channels: what is valid, what is a pattern, what it takes in; against the reference, before an
 * unreadable page. */
#include "topic.h"

#include "check.h"
#include "guard.h"

#include <string.h>

static struct guard guards[2];

static bool matches(const char *pattern, size_t pattern_length, const char *name, size_t length)
{
    return fc_topic_matches((const char *)guard_copy(&guards[0], pattern, pattern_length), pattern_length,
                            (const char *)guard_copy(&guards[1], name, length), length);
}

static bool is_pattern(const char *name)
{
    size_t length = strlen(name);

    return fc_topic_is_pattern((const char *)guard_copy(&guards[0], name, length), length);
}

static bool valid(const char *name, size_t length)
{
    return fc_topic_valid((const char *)guard_copy(&guards[0], name, length), length);
}

static void tokens_lie_between_the_dots(void)
{
    static const char name[] = "a.bcd..>";
    static const struct {
        const char *text;
        bool last;
    } expected[] = {{"a", false}, {"bcd", false}, {"", false}, {">", true}};
    const char *placed = (const char *)guard_copy(&guards[0], name, sizeof name - 1);
    size_t offset = 0;

    for (unsigned i = 0; i < 4; i++) {
        struct fc_token token = fc_topic_token(placed, sizeof name - 1, offset);
        CHECK_BYTES(token.text, token.length, expected[i].text, strlen(expected[i].text));
        CHECK_EQ(token.last, expected[i].last);
        offset += token.length + 1;
    }
    CHECK_EQ(offset, sizeof name);
    struct fc_token behind_the_last_dot = fc_topic_token("a.", 2, 2);
    CHECK(behind_the_last_dot.length == 0 && behind_the_last_dot.last);
}

static void a_wildcard_is_a_token_of_its_own(void)
{
    static const char *const patterns[] = {"*", ">", "a.*", "a.>", "*.a", "a.*.b", "..*", "*.>", "a.b.c.d.*"};
    static const char *const names[] = {"", "a", "a.b", "a*", "*a", "**", ">>", "a.b>", "a.*b.c", ".", "/a/*", "a.>b"};

    for (unsigned i = 0; i < sizeof patterns / sizeof *patterns; i++)
        CHECK(is_pattern(patterns[i]));
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        CHECK(!is_pattern(names[i]));
}

static void a_name_is_valid_unless_empty_too_long_or_with_a_rest_amid(void)
{
    static const char *const good[] = {"a", ".", "..", "*", ">", "a.>", "*.*", "a.>b.c", ">>.a", "/a/b?c"};
    static const char *const bad[] = {">.a", "a.>.b", ">.>", ">.", "*.>.*"};
    static char longest[FC_TOPIC_MAX + 1];

    memset(longest, 'a', sizeof longest);
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(valid(good[i], strlen(good[i])));
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!valid(bad[i], strlen(bad[i])));
    CHECK(!valid("", 0));
    CHECK(valid(longest, FC_TOPIC_MAX));
    CHECK(!valid(longest, FC_TOPIC_MAX + 1));
    CHECK(valid("a\0b", 3)); /* bytes with a length */
}

static void a_pattern_takes_in_what_its_tokens_say(void)
{
    static const struct {
        const char *pattern;
        const char *name;
        bool expected;
    } cases[] = {
        {"a", "a", true},          {"a", "b", false},       {"a", "ab", false},       {"ab", "a", false},
        {"a.b", "a.b", true},      {"a.b", "a", false},     {"a", "a.b", false},      {"*", "a", true},
        {"*", "", true},           {"*", "a.b", false},     {"a.*", "a.b", true},     {"a.*", "a", false},
        {"a.*", "a.", true},       {"a.*", "a.b.c", false}, {"*.b", "a.b", true},     {"*.b", "b", false},
        {"*.*", "a.b", true},      {"*.*", "a", false},     {"a.*.c", "a.b.c", true}, {"a.*.c", "a.b.d", false},
        {">", "a", true},          {">", "a.b.c", true},    {">", "", true},          {"a.>", "a.b", true},
        {"a.>", "a.b.c", true},    {"a.>", "a", false},     {"a.>", "a.", true},      {"a.>", "b.c", false},
        {"*.>", "a.b", true},      {"*.>", "a", false},     {"a.*.>", "a.b", false},  {"a.*.>", "a.b.c.d", true},
        {"a*", "ab", false},       {"a*", "a*", true},      {"a.b>", "a.b>", true},   {"a.b>", "a.bc", false},
        {"prices.*", "prices.*", true}, {"prices.>", "prices.*", true}, {"..", "..", true}, {"..", ".", false},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool got = matches(cases[i].pattern, strlen(cases[i].pattern), cases[i].name, strlen(cases[i].name));
        CHECK_EQ(got, cases[i].expected);
    }
    CHECK(matches("a\0b.*", 5, "a\0b.c", 5));
    CHECK(!matches("a\0b", 3, "a\0c", 3));
}

/* ---- the reference: character by character, by recursion ---- */

/* Where the first token ends: at a dot, or at the end. */
static size_t token_end(const char *name, size_t n)
{
    size_t end = 0;

    while (end < n && name[end] != '.')
        end++;
    return end;
}

static bool reference_matches(const char *pattern, size_t m, const char *name, size_t n)
{
    size_t want = token_end(pattern, m);
    size_t have = token_end(name, n);

    if (want == m && m == 1 && pattern[0] == '>')
        return true;
    bool same = want == have;
    for (size_t i = 0; same && i < want; i++)
        same = pattern[i] == name[i];
    if (!same && !(want == 1 && pattern[0] == '*'))
        return false;
    if (want == m || have == n)
        return want == m && have == n;
    return reference_matches(pattern + want + 1, m - want - 1, name + have + 1, n - have - 1);
}

static size_t random_name(uint64_t *seed, char *name)
{
    static const char alphabet[] = "aab...*>";
    size_t n = check_random(seed) % 9;

    for (size_t i = 0; i < n; i++)
        name[i] = alphabet[check_random(seed) % (sizeof alphabet - 1)];
    return n;
}

static void random_names_are_judged_like_the_reference(void)
{
    uint64_t seed = 8;
    unsigned found = 0;

    for (unsigned round = 0; round < 300000; round++) {
        char pattern[8];
        char name[8];
        size_t m = random_name(&seed, pattern);
        size_t n = random_name(&seed, name);
        bool expected = reference_matches(pattern, m, name, n);
        CHECK_EQ(matches(pattern, m, name, n), expected);
        found += expected;
    }
    CHECK(found > 1000);
}

int main(void)
{
    guard_open(&guards[0], 2 * FC_TOPIC_MAX);
    guard_open(&guards[1], 2 * FC_TOPIC_MAX);
    RUN(tokens_lie_between_the_dots);
    RUN(a_wildcard_is_a_token_of_its_own);
    RUN(a_name_is_valid_unless_empty_too_long_or_with_a_rest_amid);
    RUN(a_pattern_takes_in_what_its_tokens_say);
    RUN(random_names_are_judged_like_the_reference);
    guard_close(&guards[0]);
    guard_close(&guards[1]);
    return 0;
}
