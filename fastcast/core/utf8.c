/* Incremental UTF-8 validation.
 *
 * Invariant: between calls the state says how many continuation bytes are missing and which range the
 * next one must lie in. The range carries the three exclusions of RFC 3629 (overlong forms, surrogates,
 * beyond U+10FFFF), all of which show in the second byte, so that text fails at the earliest byte.
 * Vectors (utf8_simd.h) take longer text from between characters to between characters and only as far as it
 * is valid, so that the state and every refusal are the business of the code below alone.
 * Pure functions: any thread, nothing allocated.
 */
#include "utf8.h"

#include "utf8_simd.h"

#include <string.h>

/* The least that is worth a try: at most six bytes before the first vector (three to look back at, and the
 * rest of a character that begins with the third), and a vector of 32. */
#define VECTORS_MIN 38

/* The compiler makes what it can of this: one register, or two of 64 bits where there's nothing better. */
typedef uint64_t block __attribute__((vector_size(16)));

static inline block load_block(const uint8_t *bytes)
{
    block b;

    memcpy(&b, bytes, sizeof b);
    return b;
}

static inline bool has_high_bit(block b)
{
    return (b[0] | b[1]) & UINT64_C(0x8080808080808080);
}

/* Most text is ASCII: how much there is of it at the start. */
static inline size_t skip_ascii(const uint8_t *bytes, size_t n)
{
    size_t i = 0;

    for (; n - i >= 64; i += 64) {
        block first = load_block(bytes + i) | load_block(bytes + i + 16);
        block second = load_block(bytes + i + 32) | load_block(bytes + i + 48);
        if (has_high_bit(first | second))
            break;
    }
    while (n - i >= 16 && !has_high_bit(load_block(bytes + i)))
        i += 16;
    while (i < n && bytes[i] < 0x80)
        i++;
    return i;
}

static bool lead(struct fc_utf8 *state, uint8_t byte)
{
    state->low = 0x80;
    state->high = 0xBF;
    if (byte >= 0xC2 && byte <= 0xDF) {
        state->need = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
        state->need = 2;
        if (byte == 0xE0)
            state->low = 0xA0; /* overlong */
        else if (byte == 0xED)
            state->high = 0x9F; /* surrogates */
    } else if (byte >= 0xF0 && byte <= 0xF4) {
        state->need = 3;
        if (byte == 0xF0)
            state->low = 0x90; /* overlong */
        else if (byte == 0xF4)
            state->high = 0x8F; /* beyond U+10FFFF */
    } else {
        return false;
    }
    return true;
}

static bool continuation(struct fc_utf8 *state, uint8_t byte)
{
    if (byte < state->low || byte > state->high)
        return false;
    state->need--;
    state->low = 0x80;
    state->high = 0xBF;
    return true;
}

static bool feed_byte(struct fc_utf8 *state, uint8_t byte)
{
    if (state->need > 0)
        return continuation(state, byte);
    return byte < 0x80 || lead(state, byte);
}

/* A character of two bytes, as most alphabets have: the one length whose second byte has no special range, so
 * that it takes no state. */
static inline bool whole_pair(const uint8_t *bytes, size_t n)
{
    return n >= 2 && bytes[0] >= 0xC2 && bytes[0] <= 0xDF && (bytes[1] & 0xC0) == 0x80;
}

/* Does without vectors: what is short, what they left, and all there is where they don't exist. */
static bool feed_bytes(struct fc_utf8 *state, const uint8_t *bytes, size_t n)
{
    struct fc_utf8 now = *state; /* a copy, for the compiler to keep in registers */
    size_t i = 0;

    while (i < n) {
        if (now.need > 0) {
            if (!continuation(&now, bytes[i++]))
                return false;
        } else if (bytes[i] < 0x80) {
            i += skip_ascii(bytes + i, n - i);
        } else if (whole_pair(bytes + i, n - i)) {
            i += 2;
        } else if (!lead(&now, bytes[i++])) {
            return false;
        }
    }
    *state = now;
    return true;
}

/* Takes as much of at least VECTORS_MIN bytes as vectors find valid, and leaves the state between characters.
 * Returns how many bytes that is, or 0 if one before the first vector is wrong. */
static size_t feed_vectors(struct fc_utf8 *state, const uint8_t *bytes, size_t n)
{
    size_t i = 0;

    while (i < FC_UTF8_SIMD_BEHIND || state->need > 0) {
        if (!feed_byte(state, bytes[i++]))
            return 0;
    }
    return fc_utf8_simd_advance(bytes, i, n);
}

static bool feed_mixed(struct fc_utf8 *state, const uint8_t *bytes, size_t n)
{
    size_t valid = 0;

    if (n >= VECTORS_MIN) {
        valid = feed_vectors(state, bytes, n);
        if (valid == 0)
            return false;
    }
    return feed_bytes(state, bytes + valid, n - valid);
}

bool fc_utf8_feed(struct fc_utf8 *state, const uint8_t *bytes, size_t n)
{
    size_t ascii = state->need > 0 ? 0 : skip_ascii(bytes, n);

    return ascii == n || feed_mixed(state, bytes + ascii, n - ascii);
}
