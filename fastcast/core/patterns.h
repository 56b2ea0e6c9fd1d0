/* The patterns that somebody subscribes to: finds those that take in a name. */
#ifndef FC_PATTERNS_H
#define FC_PATTERNS_H

#include <stddef.h>
#include <stdint.h>

struct fc_channel;

/* A prefix of patterns that ends behind one of their tokens. */
struct fc_node {
    struct fc_node *parent;
    struct fc_node *next; /* in the bucket */
    struct fc_channel *channel; /* of the pattern that ends here; NULL if none does */
    uint32_t children;
    uint32_t hash;
    size_t length;
    char token[];
};

struct fc_patterns {
    struct fc_node **buckets;
    size_t bucket_count; /* a power of two, or 0 */
    size_t nodes;
    size_t count; /* of patterns */
    uint64_t key;
};

void fc_patterns_init(struct fc_patterns *patterns, uint64_t key);

/* All patterns must have been removed. */
void fc_patterns_destroy(struct fc_patterns *patterns);

/* Adds the pattern that the name is, which isn't there yet. 0 or -ENOMEM. */
int fc_patterns_add(struct fc_patterns *patterns, const char *name, size_t length, struct fc_channel *channel);

void fc_patterns_remove(struct fc_patterns *patterns, const char *name, size_t length);

/* Calls found() for each pattern that takes in the name, once; ends at, and returns, the first result that isn't 0. */
int fc_patterns_match(const struct fc_patterns *patterns, const char *name, size_t length,
                      int (*found)(void *context, struct fc_channel *channel), void *context);

#endif
