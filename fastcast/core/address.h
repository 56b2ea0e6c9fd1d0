/* How many clients each address has, where that is limited. */
#ifndef FC_ADDRESS_H
#define FC_ADDRESS_H

#include "fastcast.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct fc_address {
    struct fc_address *next; /* in the bucket */
    uint32_t hash;
    uint32_t count;
    size_t length;
    char text[];
};

struct fc_addresses {
    pthread_mutex_t lock;
    struct fc_address **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    uint64_t key;
};

int fc_addresses_init(struct fc_addresses *addresses, uint64_t key);

/* All must have been given back. */
void fc_addresses_destroy(struct fc_addresses *addresses);

/* Counts one more for the address, if it has fewer than `most`. 0 with *address, -EBUSY or -ENOMEM. */
int fc_addresses_take(struct fc_addresses *addresses, struct fc_span text, uint32_t most, struct fc_address **address);

/* One less; NULL is allowed. */
void fc_addresses_give(struct fc_addresses *addresses, struct fc_address *address);

uint32_t fc_addresses_count(struct fc_addresses *addresses, struct fc_span text);

#endif
