/*
 * timers.h - what is to happen when: numbers, each with a time, the earliest first.
 *
 * A binary heap whose room is fixed when it is made; its pages are only touched as far as it is ever filled.
 * Not thread-safe; whoever made it frees it.
 */
#ifndef FC_TIMERS_H
#define FC_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct fc_timer {
    uint64_t due_ns;
    uint32_t what;
};

struct fc_timers {
    struct fc_timer *heap;
    uint32_t used;
    uint32_t room;
};

/* Returns 0 or -ENOMEM. */
int fc_timers_init(struct fc_timers *timers, uint32_t room);

void fc_timers_free(struct fc_timers *timers);

/* There must be room for it. */
void fc_timers_add(struct fc_timers *timers, uint64_t due_ns, uint32_t what);

/* Takes out the earliest one that is due at `now`; false when none is. */
bool fc_timers_take(struct fc_timers *timers, uint64_t now, uint32_t *what);

/* When the earliest is due; UINT64_MAX: there is none. */
static inline uint64_t fc_timers_due(const struct fc_timers *timers)
{
    return timers->used > 0 ? timers->heap[0].due_ns : UINT64_MAX;
}

#endif
