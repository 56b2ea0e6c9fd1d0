/* Incremental UTF-8 validation.
 *
 * Invariant: between calls the state says how many continuation bytes are missing and which range the
 * next one must lie in. The range carries the three exclusions of RFC 3629 (overlong forms, surrogates,
 * beyond U+10FFFF), all of which show in the second byte, so that text fails at the earliest byte.
 * Pure functions: any thread, nothing allocated.
 */
#include "utf8.h"

#include <string.h>

/* Most text is ASCII: skip it a block at a time. The block loop is plain C that compilers turn into
 * vector instructions on every target. */
static size_t skip_ascii(const uint8_t *bytes, size_t n)
{
    size_t i = 0;

    while (n - i >= 32) {
        uint64_t word[4];
        memcpy(word, bytes + i, sizeof word);
        if ((word[0] | word[1] | word[2] | word[3]) & UINT64_C(0x8080808080808080))
            break;
        i += 32;
    }
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

bool fc_utf8_feed(struct fc_utf8 *state, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (state->need == 0) {
            i += skip_ascii(bytes + i, n - i);
            if (i == n)
                break;
            if (!lead(state, bytes[i]))
                return false;
        } else {
            if (bytes[i] < state->low || bytes[i] > state->high)
                return false;
            state->need--;
            state->low = 0x80;
            state->high = 0xBF;
        }
    }
    return true;
}
