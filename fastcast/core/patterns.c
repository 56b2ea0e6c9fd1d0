/* A trie of tokens. Its edges are in one hash table for all nodes, keyed by parent and token: a node with 100,000
 * children costs no more to pass than one with two.
 *
 * Invariant: each node but the root has a child or ends a pattern. Finding the patterns for a name follows, at each
 * token, the edge of that token and that of "*", and takes what ends at ">": the work grows with the patterns that match,
 * at least in part, not with all that there are. Belongs to the table of channels, whose lock is held in every call.
 */
#include "patterns.h"

#include "hash.h"
#include "topic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fc_patterns_init(struct fc_patterns *patterns, uint64_t key)
{
    *patterns = (struct fc_patterns){.key = key};
}

void fc_patterns_destroy(struct fc_patterns *patterns)
{
    free(patterns->buckets);
    *patterns = (struct fc_patterns){0};
}

static uint32_t hash_edge(const struct fc_patterns *patterns, const struct fc_node *parent, const char *token, size_t length)
{
    return fc_hash(fc_hash_fold((uint64_t)(uintptr_t)parent, patterns->key), token, length);
}

static struct fc_node **bucket(const struct fc_patterns *patterns, uint32_t hash)
{
    return &patterns->buckets[hash & (patterns->bucket_count - 1)];
}

/* The root's children have no parent. */
static struct fc_node *child(const struct fc_patterns *patterns, const struct fc_node *parent, const char *token, size_t length)
{
    if (patterns->bucket_count == 0)
        return NULL;
    uint32_t hash = hash_edge(patterns, parent, token, length);
    struct fc_node *node = *bucket(patterns, hash);
    while (node && !(node->hash == hash && node->parent == parent && node->length == length &&
                     !memcmp(node->token, token, length)))
        node = node->next;
    return node;
}

static int grow(struct fc_patterns *patterns)
{
    size_t count = patterns->bucket_count ? 2 * patterns->bucket_count : 16;
    struct fc_node **wider = calloc(count, sizeof(struct fc_node *));

    if (!wider)
        return patterns->bucket_count ? 0 : -ENOMEM; /* longer chains are the only harm */
    struct fc_node **old = patterns->buckets;
    size_t old_count = patterns->bucket_count;
    patterns->buckets = wider;
    patterns->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct fc_node *node = old[i], *next; node; node = next) {
            struct fc_node **place = bucket(patterns, node->hash);
            next = node->next;
            node->next = *place;
            *place = node;
        }
    }
    free(old);
    return 0;
}

static struct fc_node *make(struct fc_patterns *patterns, struct fc_node *parent, const struct fc_token *token)
{
    if (patterns->nodes >= patterns->bucket_count && grow(patterns))
        return NULL;
    struct fc_node *node = malloc(sizeof *node + token->length);
    if (!node)
        return NULL;
    *node = (struct fc_node){.parent = parent, .length = token->length};
    node->hash = hash_edge(patterns, parent, token->text, token->length);
    memcpy(node->token, token->text, token->length);
    struct fc_node **place = bucket(patterns, node->hash);
    node->next = *place;
    *place = node;
    patterns->nodes++;
    if (parent)
        parent->children++;
    return node;
}

/* Frees a node that has become useless, and those above it. */
static void prune(struct fc_patterns *patterns, struct fc_node *node)
{
    while (node && node->children == 0 && !node->channel) {
        struct fc_node *parent = node->parent;
        struct fc_node **place = bucket(patterns, node->hash);
        while (*place != node)
            place = &(*place)->next;
        *place = node->next;
        patterns->nodes--;
        if (parent)
            parent->children--;
        free(node);
        node = parent;
    }
}

int fc_patterns_add(struct fc_patterns *patterns, const char *name, size_t length, struct fc_channel *channel)
{
    struct fc_node *node = NULL;
    struct fc_token token;
    size_t offset = 0;

    do {
        token = fc_topic_token(name, length, offset);
        struct fc_node *next = child(patterns, node, token.text, token.length);
        if (!next)
            next = make(patterns, node, &token);
        if (!next) {
            prune(patterns, node);
            return -ENOMEM;
        }
        node = next;
        offset += token.length + 1;
    } while (!token.last);
    node->channel = channel;
    patterns->count++;
    return 0;
}

void fc_patterns_remove(struct fc_patterns *patterns, const char *name, size_t length)
{
    struct fc_node *node = NULL;
    struct fc_token token;
    size_t offset = 0;

    do {
        token = fc_topic_token(name, length, offset);
        node = child(patterns, node, token.text, token.length);
        offset += token.length + 1;
    } while (!token.last);
    node->channel = NULL;
    patterns->count--;
    prune(patterns, node);
}

struct search {
    const struct fc_patterns *patterns;
    const char *name;
    size_t length;
    int (*found)(void *context, struct fc_channel *channel);
    void *context;
};

/* As deep as the name has tokens, of which FC_TOPIC_MAX allows some hundred. */
static int search_from(const struct search *search, const struct fc_node *node, size_t offset)
{
    const struct fc_patterns *patterns = search->patterns;
    struct fc_token token = fc_topic_token(search->name, search->length, offset);
    const struct fc_node *rest = child(patterns, node, ">", 1);
    const struct fc_node *ways[2] = {child(patterns, node, token.text, token.length), child(patterns, node, "*", 1)};
    int result = rest && rest->channel ? search->found(search->context, rest->channel) : 0;

    for (unsigned i = 0; i < 2 && result == 0; i++) {
        if (!ways[i] || (i == 1 && ways[1] == ways[0]))
            continue;
        if (!token.last)
            result = search_from(search, ways[i], offset + token.length + 1);
        else if (ways[i]->channel && ways[i] != rest)
            result = search->found(search->context, ways[i]->channel);
    }
    return result;
}

int fc_patterns_match(const struct fc_patterns *patterns, const char *name, size_t length,
                      int (*found)(void *context, struct fc_channel *channel), void *context)
{
    const struct search search = {patterns, name, length, found, context};

    return patterns->count > 0 ? search_from(&search, NULL, 0) : 0;
}
