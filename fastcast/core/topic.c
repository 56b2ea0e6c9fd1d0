/* Names and patterns, token by token. Pure functions: no state, no allocation. */
#include "topic.h"

#include <string.h>

struct fc_token fc_topic_token(const char *name, size_t length, size_t offset)
{
    const char *text = name + offset;
    const char *dot = memchr(text, '.', length - offset);

    return (struct fc_token){text, dot ? (size_t)(dot - text) : length - offset, !dot};
}

bool fc_topic_is_pattern(const char *name, size_t length)
{
    struct fc_token token;

    for (size_t offset = 0;; offset += token.length + 1) {
        token = fc_topic_token(name, length, offset);
        if (fc_token_is(&token, '*') || fc_token_is(&token, '>'))
            return true;
        if (token.last)
            return false;
    }
}

bool fc_topic_valid(const char *name, size_t length)
{
    struct fc_token token;

    if (length == 0 || length > FC_TOPIC_MAX)
        return false;
    for (size_t offset = 0;; offset += token.length + 1) {
        token = fc_topic_token(name, length, offset);
        if (token.last)
            return true;
        if (fc_token_is(&token, '>'))
            return false;
    }
}

bool fc_topic_matches(const char *pattern, size_t pattern_length, const char *name, size_t length)
{
    size_t at = 0;
    size_t offset = 0;

    for (;;) {
        struct fc_token want = fc_topic_token(pattern, pattern_length, at);
        struct fc_token have = fc_topic_token(name, length, offset);
        if (want.last && fc_token_is(&want, '>'))
            return true;
        if (!fc_token_is(&want, '*') &&
            (want.length != have.length || memcmp(want.text, have.text, want.length) != 0))
            return false;
        if (want.last || have.last)
            return want.last && have.last;
        at += want.length + 1;
        offset += have.length + 1;
    }
}
