/* Validation against the reference: every short sequence at every split, and long text around the block size. */
#include "utf8.h"

#include "check.h"
#include "guard.h"
#include "reference.h"

#include <stdlib.h>
#include <string.h>

/* Bytes at the borders of all ranges that RFC 3629 tells apart. */
static const uint8_t borders[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0,
                                  0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF};

/* How many bytes it takes to see that this is no text, or n + 1 if it may be some. */
static size_t reference_failure(const uint8_t *bytes, size_t n, bool *complete)
{
    struct reference_utf8 state = {0};

    for (size_t i = 0; i < n; i++) {
        if (!reference_utf8_take(&state, bytes[i]))
            return i + 1;
    }
    *complete = state.need == 0;
    return n + 1;
}

/* The first `split` bytes must pass exactly if the failure lies behind them, and so must all of them. */
static void compare_split(const uint8_t *bytes, size_t n, size_t split, size_t failure, bool complete)
{
    struct fc_utf8 state = {0};

    bool valid = fc_utf8_feed(&state, bytes, split);
    CHECK_EQ(valid, split < failure);
    if (!valid)
        return;
    valid = fc_utf8_feed(&state, bytes + split, n - split);
    CHECK_EQ(valid, n < failure);
    if (valid)
        CHECK_EQ(fc_utf8_complete(&state), complete);
}

static void compare(const uint8_t *bytes, size_t n)
{
    bool complete = false;
    size_t failure = reference_failure(bytes, n, &complete);

    for (size_t split = 0; split <= n; split++)
        compare_split(bytes, n, split, failure, complete);
}

static void every_pair_of_bytes_is_judged_like_the_reference(void)
{
    struct guard guard;

    guard_open(&guard, 2);
    uint8_t *bytes = guard_place(&guard, 2);
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        bytes[0] = (uint8_t)(pair >> 8);
        bytes[1] = (uint8_t)pair;
        compare(bytes, 2);
    }
    guard_close(&guard);
}

static void every_sequence_of_four_border_bytes_is_judged_like_the_reference(void)
{
    struct guard guard;
    unsigned n = sizeof borders;

    guard_open(&guard, 4);
    uint8_t *bytes = guard_place(&guard, 4);
    for (unsigned i = 0; i < n * n * n * n; i++) {
        unsigned rest = i;
        for (unsigned k = 0; k < 4; k++, rest /= n)
            bytes[k] = borders[rest % n];
        compare(bytes, 4);
    }
    guard_close(&guard);
}

static size_t encode(uint32_t code_point, uint8_t *out)
{
    if (code_point < 0x80) {
        out[0] = (uint8_t)code_point;
        return 1;
    }
    unsigned more = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (uint8_t)(leads[more] | code_point >> 6 * more);
    for (unsigned i = 1; i <= more; i++)
        out[i] = (uint8_t)(0x80 | (code_point >> 6 * (more - i) & 0x3F));
    return more + 1;
}

static void every_code_point_is_text_and_no_surrogate_is(void)
{
    for (uint32_t code_point = 0; code_point <= 0x110000; code_point++) {
        uint8_t bytes[4];
        size_t n = encode(code_point, bytes);
        struct fc_utf8 state = {0};
        bool valid = fc_utf8_feed(&state, bytes, n) && fc_utf8_complete(&state);
        CHECK_EQ(valid, code_point <= 0x10FFFF && !(code_point >= 0xD800 && code_point <= 0xDFFF));
    }
}

static void a_character_is_found_at_every_place_in_long_text(void)
{
    static const char *const sequences[] = {
        "\xC3\xA9",     "\xE2\x82\xAC",     "\xF0\x9F\x98\x80", "\x80", "\xC0\x80",
        "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82",         "\xFF",
    };
    struct guard guard;

    guard_open(&guard, 300);
    for (unsigned k = 0; k < sizeof sequences / sizeof *sequences; k++) {
        size_t length = strlen(sequences[k]);
        for (size_t n = length; n < 300; n += n < 140 ? 1 : 11) {
            uint8_t *text = guard_place(&guard, n);
            for (size_t place = 0; place + length <= n; place += n < 100 ? 1 : 7) {
                memset(text, 'a', n);
                memcpy(text + place, sequences[k], length);
                bool complete = false;
                size_t failure = reference_failure(text, n, &complete);
                compare_split(text, n, 0, failure, complete);
                compare_split(text, n, place, failure, complete);
                compare_split(text, n, place + 1, failure, complete);
            }
        }
    }
    guard_close(&guard);
}

/* What vectors judge: sequences amid text that is longer than any, and isn't ASCII, at several places in them. */
static void every_sequence_of_four_border_bytes_is_judged_amid_long_text(void)
{
    static const char filler[9 + 1] = "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
    struct guard guard;
    unsigned n = sizeof borders;
    size_t length = 18 * 9;

    guard_open(&guard, length);
    uint8_t *text = guard_place(&guard, length);
    for (size_t k = 0; k < length; k += 9)
        memcpy(text + k, filler, 9);
    for (unsigned i = 0; i < n * n * n * n; i++) {
        unsigned rest = i;
        size_t place = 9 * (1 + i % 17) - 4 * (i % 2); /* at a border between characters, or not */
        for (unsigned k = 0; k < 4; k++, rest /= n)
            text[place + k] = borders[rest % n];
        bool complete = false;
        size_t failure = reference_failure(text, length, &complete);
        compare_split(text, length, 0, failure, complete);
        compare_split(text, length, i % length, failure, complete);
        memcpy(text + place / 9 * 9, filler, 9);
    }
    guard_close(&guard);
}

static void random_text_and_noise_are_judged_like_the_reference(void)
{
    uint64_t seed = 1;
    struct guard guard;

    guard_open(&guard, 256);
    for (unsigned round = 0; round < 4000; round++) {
        uint8_t text[260];
        size_t n = 0;
        while (n < 1 + check_random(&seed) % 250) {
            uint32_t code_point = (uint32_t)(check_random(&seed) % 0x110000) >> (check_random(&seed) % 21);
            n += encode(code_point, text + n);
        }
        if (round % 2)
            text[check_random(&seed) % n] = (uint8_t)check_random(&seed);
        n = n < 256 ? n : 256;
        compare(guard_copy(&guard, text, n), n);
    }
    guard_close(&guard);
}

int main(void)
{
    RUN(every_pair_of_bytes_is_judged_like_the_reference);
    RUN(every_sequence_of_four_border_bytes_is_judged_like_the_reference);
    RUN(every_sequence_of_four_border_bytes_is_judged_amid_long_text);
    RUN(every_code_point_is_text_and_no_surrogate_is);
    RUN(a_character_is_found_at_every_place_in_long_text);
    RUN(random_text_and_noise_are_judged_like_the_reference);
    return 0;
}
