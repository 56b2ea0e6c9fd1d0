/* A queue of client ids, each in it at most once: who is to be read from, in fair turns. */
#ifndef FC_READY_H
#define FC_READY_H

#include <stdbool.h>
#include <stdint.h>

struct fc_ready {
    uint64_t *ids; /* a ring */
    uint32_t first;
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
};

/* 0 or -ENOMEM. */
int fc_ready_push(struct fc_ready *ready, uint64_t id);

/* False when it's empty. */
bool fc_ready_pop(struct fc_ready *ready, uint64_t *id);

void fc_ready_free(struct fc_ready *ready);

#endif
