/* Vectors against the reference: pairs and border sequences all over a text, and long text in chunks. */
#include "utf8.h"
#include "utf8_simd.h"

#include "check.h"
#include "guard.h"
#include "reference.h"

#include <stdlib.h>
#include <string.h>

/* Where vectors begin, and a length that has two of any target's after that and a remainder. Both are multiples
 * of the fillers' lengths. */
#define START 12
#define TEXT 105

/* Sizes of the widest vector, and of the longest character, which it must not cut. */
#define VECTOR 32
#define CHARACTER 4

/* Bytes at the borders of all ranges that RFC 3629 tells apart. */
static const uint8_t borders[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF,
                                  0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xF8, 0xFF};

struct expectation {
    size_t failure; /* index of the first byte that no text has there, n if there is none */
    size_t whole;   /* bytes before it that are whole characters */
};

static struct expectation expect(const uint8_t *bytes, size_t n)
{
    struct reference_utf8 state = {0};
    struct expectation expectation = {.failure = n};

    for (size_t i = 0; i < n; i++) {
        if (!reference_utf8_take(&state, bytes[i])) {
            expectation.failure = i;
            break;
        }
        if (state.need == 0)
            expectation.whole = i + 1;
    }
    return expectation;
}

/* A processor without the instructions leaves everything to the scalar code. */
static bool has_vectors(void)
{
    uint8_t text[TEXT];

    memset(text, 'a', sizeof text);
    return fc_utf8_simd_advance(text, START, sizeof text) > START;
}

static bool cuts_no_character(const uint8_t *bytes, size_t n, size_t offset)
{
    return offset == n || (bytes[offset] & 0xC0) != 0x80;
}

/* Vectors must stop between characters, not behind the last that's whole and not long before it; the text must
 * be judged right. */
static void compare(const uint8_t *bytes, size_t n, size_t at)
{
    struct expectation expectation = expect(bytes, n);
    size_t reached = fc_utf8_simd_advance(bytes, at, n);
    struct fc_utf8 state = {0};

    CHECK(reached >= at);
    CHECK(reached <= expectation.whole);
    CHECK(reached == expectation.whole || cuts_no_character(bytes, n, reached));
    if (has_vectors() && n >= VECTOR + FC_UTF8_SIMD_BEHIND)
        CHECK(expectation.failure == n ? reached == expectation.whole
                                       : expectation.whole - reached < VECTOR + CHARACTER);
    bool valid = fc_utf8_feed(&state, bytes, n);
    CHECK_EQ(valid, expectation.failure == n);
    if (valid)
        CHECK_EQ(fc_utf8_complete(&state), expectation.whole == n);
}

/* What stands around a wrong pair must not be what tells that it is wrong, nor make a good one look wrong: so
 * each comes after no lead and after the longer two, and with as many continuations as it could need. */
static void every_pair_of_bytes_is_judged_like_the_reference_whatever_is_around(void)
{
    static const uint8_t leads[] = {'a', 0xE1, 0xF1};
    struct guard guard;

    guard_open(&guard, TEXT);
    uint8_t *text = guard_place(&guard, TEXT);
    for (unsigned i = 0; i < 9 * 0x10000; i++) {
        size_t place = START + i % (TEXT - START - 5);
        memset(text, 'a', TEXT);
        text[place] = leads[(i >> 16) % 3];
        text[place + 1] = (uint8_t)(i >> 8);
        text[place + 2] = (uint8_t)i;
        memset(text + place + 3, 0x80, (i >> 16) / 3);
        compare(text, TEXT, START);
    }
    guard_close(&guard);
}

static void border_sequences_in(const char *filler)
{
    struct guard guard;
    unsigned n = sizeof borders;
    size_t unit = strlen(filler);

    guard_open(&guard, TEXT);
    uint8_t *text = guard_place(&guard, TEXT);
    for (unsigned i = 0; i < n * n * n * n; i++) {
        size_t place = START + i % ((TEXT - START) / unit) * unit;
        for (size_t k = 0; k < TEXT; k++)
            text[k] = (uint8_t)filler[k % unit];
        unsigned rest = i;
        for (size_t k = place; k < place + 4 && k < TEXT; k++, rest /= n)
            text[k] = borders[rest % n];
        compare(text, TEXT, START);
    }
    guard_close(&guard);
}

static void border_sequences_among_ascii_are_judged_like_the_reference(void)
{
    border_sequences_in("a");
}

static void border_sequences_among_long_characters_are_judged_like_the_reference(void)
{
    border_sequences_in("\xE4\xBD\xA0");
}

static void a_character_cut_by_the_end_is_incomplete_at_every_length(void)
{
    static const char *const characters[] = {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};

    for (unsigned k = 0; k < sizeof characters / sizeof *characters; k++) {
        size_t unit = strlen(characters[k]);
        for (size_t n = START; n <= 4 * TEXT; n++) {
            /* From the heap, where AddressSanitizer watches the start as well. */
            uint8_t *text = malloc(n);
            CHECK(text != NULL);
            for (size_t i = 0; i < n; i++)
                text[i] = (uint8_t)characters[k][i % unit];
            compare(text, n, START);
            free(text);
        }
    }
}

/* Runs of one script, as text has them: vectors meet ASCII, other characters and the change between. */
static size_t write_text(uint8_t *out, size_t n, uint64_t *seed)
{
    static const char *const units[] = {"a", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80", "e\xCC\x81"};
    size_t length = 0;

    for (;;) {
        const char *unit = units[check_random(seed) % (sizeof units / sizeof *units)];
        size_t size = strlen(unit);
        for (size_t run = check_random(seed) % 60; run > 0; run--) {
            if (length + size > n)
                return length;
            memcpy(out + length, unit, size);
            length += size;
        }
    }
}

static void long_text_in_chunks_fails_in_the_chunk_of_the_first_wrong_byte(void)
{
    uint64_t seed = 7;
    struct guard guard;
    uint8_t text[1500];

    guard_open(&guard, sizeof text);
    for (unsigned round = 0; round < 20000; round++) {
        size_t n = write_text(text, 1 + check_random(&seed) % sizeof text, &seed);
        if (n > 0 && round % 4)
            text[check_random(&seed) % n] ^= (uint8_t)(1 + check_random(&seed) % 255);
        struct expectation expectation = expect(text, n);
        struct fc_utf8 state = {0};
        size_t longest = 1 + check_random(&seed) % 400;
        bool valid = true;
        for (size_t done = 0, chunk; valid && done < n; done += chunk) {
            chunk = 1 + check_random(&seed) % longest;
            chunk = chunk < n - done ? chunk : n - done;
            valid = fc_utf8_feed(&state, guard_copy(&guard, text + done, chunk), chunk);
            CHECK_EQ(valid, expectation.failure == n || done + chunk <= expectation.failure);
        }
        if (valid)
            CHECK_EQ(fc_utf8_complete(&state), expectation.whole == n);
    }
    guard_close(&guard);
}

int main(void)
{
    RUN(every_pair_of_bytes_is_judged_like_the_reference_whatever_is_around);
    RUN(border_sequences_among_ascii_are_judged_like_the_reference);
    RUN(border_sequences_among_long_characters_are_judged_like_the_reference);
    RUN(a_character_cut_by_the_end_is_incomplete_at_every_length);
    RUN(long_text_in_chunks_fails_in_the_chunk_of_the_first_wrong_byte);
    return 0;
}
