/* Incremental UTF-8 validation (RFC 3629), for text messages and close reasons. */
#ifndef FC_UTF8_H
#define FC_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised is "between characters". */
struct fc_utf8 {
    uint8_t need; /* continuation bytes still missing */
    uint8_t low;  /* range that the next continuation byte must lie in */
    uint8_t high;
};

/* Returns false at the first byte that can't be part of valid UTF-8; the state is then useless. */
bool fc_utf8_feed(struct fc_utf8 *state, const uint8_t *bytes, size_t n);

/* True when the text may end here. */
static inline bool fc_utf8_complete(const struct fc_utf8 *state)
{
    return state->need == 0;
}

#endif
