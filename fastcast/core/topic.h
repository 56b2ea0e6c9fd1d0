/* Names of channels, and patterns of names: tokens with dots between them, of which "*" stands for any one and a last
 * ">" for one or more, as in NATS. */
#ifndef FC_TOPIC_H
#define FC_TOPIC_H

#include <stdbool.h>
#include <stddef.h>

#define FC_TOPIC_MAX 1024 /* bytes of a name */

struct fc_token {
    const char *text;
    size_t length;
    bool last;
};

/* The token that begins at `offset`, a position that is 0 or behind a dot. */
struct fc_token fc_topic_token(const char *name, size_t length, size_t offset);

static inline bool fc_token_is(const struct fc_token *token, char wildcard)
{
    return token->length == 1 && token->text[0] == wildcard;
}

bool fc_topic_is_pattern(const char *name, size_t length);

/* Whether it can be subscribed to: neither empty nor too long, and with no ">" but as the last token. */
bool fc_topic_valid(const char *name, size_t length);

/* Whether the pattern, or plain name, takes in the name. */
bool fc_topic_matches(const char *pattern, size_t pattern_length, const char *name, size_t length);

#endif
