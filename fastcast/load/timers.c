/*
 * timers.c - the heap.  Invariant: no entry is due before the one at half its index.
 */
#include "timers.h"

#include <errno.h>
#include <stdlib.h>

int fc_timers_init(struct fc_timers *timers, uint32_t room)
{
    *timers = (struct fc_timers){.heap = malloc(((size_t)room + 1) * sizeof *timers->heap), .room = room};
    return timers->heap != NULL ? 0 : -ENOMEM;
}

void fc_timers_free(struct fc_timers *timers)
{
    free(timers->heap);
    timers->heap = NULL;
}

void fc_timers_add(struct fc_timers *timers, uint64_t due_ns, uint32_t what)
{
    uint32_t at = timers->used++;
    while (at > 0) {
        uint32_t above = (at - 1) / 2;
        if (timers->heap[above].due_ns <= due_ns)
            break;
        timers->heap[at] = timers->heap[above];
        at = above;
    }
    timers->heap[at] = (struct fc_timer){due_ns, what};
}

bool fc_timers_take(struct fc_timers *timers, uint64_t now, uint32_t *what)
{
    if (fc_timers_due(timers) > now)
        return false;
    *what = timers->heap[0].what;
    struct fc_timer last = timers->heap[--timers->used];
    uint32_t at = 0;
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below >= timers->used)
            break;
        if (below + 1 < timers->used && timers->heap[below + 1].due_ns < timers->heap[below].due_ns)
            below++;
        if (timers->heap[below].due_ns >= last.due_ns)
            break;
        timers->heap[at] = timers->heap[below];
        at = below;
    }
    timers->heap[at] = last;
    return true;
}
