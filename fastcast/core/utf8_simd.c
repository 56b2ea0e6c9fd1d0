/* UTF-8 validation a vector at a time, after the lookup method of Keiser and Lemire ("Validating UTF-8 in
 * less than one instruction per byte", 2021).
 *
 * Two neighbouring bytes can be wrong together in few ways, and three nibbles are enough to tell: both of the
 * first byte, the high one of the second. Each way is a bit; one table per nibble says which ways that nibble
 * admits; a pair is wrong when some way is admitted by all three. What a pair can't show is whether a third
 * or fourth byte is due; the bytes two and three places back do.
 *
 * Invariants: reads nothing outside bytes[at - FC_UTF8_SIMD_BEHIND .. n), at any alignment. What a vector
 * depends on is loaded anew from the bytes before it instead of being carried over, so that its verdict has
 * no other input than its place. Pure functions: any thread, nothing allocated.
 */
#include "utf8_simd.h"

#if defined(__x86_64__) || defined(__aarch64__)

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)

#include <immintrin.h>

/* The build's baseline is SSE2: these functions alone are compiled for AVX2, and called where it exists. */
#define TARGET __attribute__((target("avx2")))
#define WIDTH 32
/* AVX2 looks up in each half of 16 bytes by itself. */
#define TABLE(...) {__VA_ARGS__, __VA_ARGS__}

typedef uint8_t vector __attribute__((vector_size(WIDTH)));

static bool available(void)
{
    return __builtin_cpu_supports("avx2");
}

TARGET static inline vector look_up(vector table, vector nibbles)
{
    return (vector)_mm256_shuffle_epi8((__m256i)table, (__m256i)nibbles);
}

TARGET static inline vector subtract_to_zero(vector a, vector b)
{
    return (vector)_mm256_subs_epu8((__m256i)a, (__m256i)b);
}

TARGET static inline bool is_zero(vector v)
{
    return _mm256_testz_si256((__m256i)v, (__m256i)v);
}

TARGET static inline bool is_ascii(vector v)
{
    return _mm256_movemask_epi8((__m256i)v) == 0;
}

#else

#include <arm_neon.h>

#define TARGET
#define WIDTH 16
#define TABLE(...) {__VA_ARGS__}

typedef uint8x16_t vector;

static bool available(void)
{
    return true;
}

static inline vector look_up(vector table, vector nibbles)
{
    return vqtbl1q_u8(table, nibbles);
}

static inline vector subtract_to_zero(vector a, vector b)
{
    return vqsubq_u8(a, b);
}

static inline bool is_zero(vector v)
{
    return vmaxvq_u8(v) == 0;
}

static inline bool is_ascii(vector v)
{
    return vmaxvq_u8(v) < 0x80;
}

#endif

/* The ways in which a pair is wrong. There are nine for eight bits, but F0 and all above F4 can share one:
 * they are the leads that forbid 80..8F. */
enum {
    CUT = 0x01,        /* a lead byte, then no continuation */
    STRAY = 0x02,      /* ASCII, then a continuation */
    OVERLONG_2 = 0x04, /* C0 or C1, then a continuation */
    OVERLONG_3 = 0x08, /* E0, then 80..9F */
    SURROGATE = 0x10,  /* ED, then A0..BF */
    BEYOND = 0x20,     /* F4 and above, then 90..BF: more than U+10FFFF */
    LOW_FOURTH = 0x40, /* F0 (overlong) or F5 and above, then 80..8F */
    FOLLOWING = 0x80,  /* two continuations: wrong unless a third or fourth byte is due */
};

#define ANY_LOW (CUT | STRAY | FOLLOWING) /* ways that don't depend on the first byte's low nibble */
#define HIGH_LEAD (ANY_LOW | BEYOND | LOW_FOURTH)
#define CONTINUATION (STRAY | FOLLOWING | OVERLONG_2)

static const uint8_t first_high[WIDTH] = TABLE(
    STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY,
    FOLLOWING, FOLLOWING, FOLLOWING, FOLLOWING,
    CUT | OVERLONG_2, CUT, CUT | OVERLONG_3 | SURROGATE, CUT | BEYOND | LOW_FOURTH);
static const uint8_t first_low[WIDTH] = TABLE(
    ANY_LOW | OVERLONG_2 | OVERLONG_3 | LOW_FOURTH, ANY_LOW | OVERLONG_2, ANY_LOW, ANY_LOW,
    ANY_LOW | BEYOND, HIGH_LEAD, HIGH_LEAD, HIGH_LEAD,
    HIGH_LEAD, HIGH_LEAD, HIGH_LEAD, HIGH_LEAD,
    HIGH_LEAD, HIGH_LEAD | SURROGATE, HIGH_LEAD, HIGH_LEAD);
static const uint8_t second_high[WIDTH] = TABLE(
    CUT, CUT, CUT, CUT, CUT, CUT, CUT, CUT,
    CONTINUATION | OVERLONG_3 | LOW_FOURTH, CONTINUATION | OVERLONG_3 | BEYOND,
    CONTINUATION | SURROGATE | BEYOND, CONTINUATION | SURROGATE | BEYOND,
    CUT, CUT, CUT, CUT);

TARGET static inline vector load(const uint8_t *bytes)
{
    vector v;

    memcpy(&v, bytes, sizeof v);
    return v;
}

TARGET static inline vector fill(uint8_t byte)
{
    return (vector){0} + byte;
}

/* True when each byte of the vector at `place` may follow the three before it. */
TARGET static inline bool fits(const uint8_t *place)
{
    vector byte = load(place);
    vector before = load(place - 1);
    vector ways = look_up(load(first_high), before >> 4) & look_up(load(first_low), before & fill(0x0F)) &
                  look_up(load(second_high), byte >> 4);

    /* The top bit is set where a third byte is due (E0 or above, two back) or a fourth (F0 or above, three
     * back). FOLLOWING is the same bit, and must be set in exactly the same places. */
    vector due = subtract_to_zero(load(place - 2), fill(0xE0 - FOLLOWING)) |
                 subtract_to_zero(load(place - 3), fill(0xF0 - FOLLOWING));

    return is_zero(ways ^ (due & fill(FOLLOWING)));
}

/* How many bytes before `end` belong to a character that isn't complete. */
static inline size_t unfinished(const uint8_t *end)
{
    return end[-1] >= 0xC0 ? 1 : end[-2] >= 0xE0 ? 2 : end[-3] >= 0xF0 ? 3 : 0;
}

TARGET static size_t advance(const uint8_t *bytes, size_t at, size_t n)
{
    for (; n - at >= WIDTH; at += WIDTH) {
        const uint8_t *place = bytes + at;
        if (is_ascii(load(place)) ? unfinished(place) > 0 : !fits(place))
            return at - unfinished(place);
    }
    /* The remainder goes as one more vector, which ends with the text and looks at some bytes again. */
    if (at < n && n >= WIDTH + FC_UTF8_SIMD_BEHIND && fits(bytes + n - WIDTH))
        at = n;
    return at - unfinished(bytes + at);
}

size_t fc_utf8_simd_advance(const uint8_t *bytes, size_t at, size_t n)
{
    return available() ? advance(bytes, at, n) : at;
}

#else

size_t fc_utf8_simd_advance(const uint8_t *bytes, size_t at, size_t n)
{
    (void)bytes;
    (void)n;
    return at;
}

#endif
