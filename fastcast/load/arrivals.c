/*
 * arrivals.c - the schedule of connecting.
 *
 * Invariant: over_ns of a batch is written once, by the last thread to pass it.
 */
#include "arrivals.h"

#include <errno.h>
#include <stdlib.h>

int fc_arrivals_init(struct fc_arrivals *arrivals, const struct fc_load_options *options, uint32_t threads)
{
    struct fc_load_arrival whole = {options->connections, options->connect_rate};
    const struct fc_load_arrival *given = options->arrivals_used > 0 ? options->arrivals : &whole;
    uint32_t number = 0;
    arrivals->used = options->arrivals_used > 0 ? options->arrivals_used : 1;
    arrivals->start_ns = 0;
    arrivals->batches = calloc(arrivals->used, sizeof *arrivals->batches);
    if (arrivals->batches == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < arrivals->used; i++) {
        struct fc_arrivals_batch *batch = &arrivals->batches[i];
        batch->first = number;
        batch->end = number += given[i].count;
        batch->rate = given[i].rate;
        atomic_init(&batch->threads, threads);
        atomic_init(&batch->over_ns, 0);
    }
    return 0;
}

void fc_arrivals_free(struct fc_arrivals *arrivals)
{
    free(arrivals->batches);
    arrivals->batches = NULL;
}

static uint64_t after(const struct fc_arrivals_batch *batch, uint32_t number, uint64_t start_ns)
{
    return start_ns + (uint64_t)((number - batch->first) * 1e9 / batch->rate);
}

/* UINT64_MAX: not known yet. */
static uint64_t start_of(const struct fc_arrivals *arrivals, uint32_t index)
{
    /* The rated batches just before this one stand on the last that has no rate. */
    uint32_t base = index;
    while (base > 0 && arrivals->batches[base - 1].rate > 0)
        base--;
    uint64_t start = arrivals->start_ns;
    if (base > 0) {
        /* Relaxed: the time is all that is communicated. */
        start = atomic_load_explicit(&arrivals->batches[base - 1].over_ns, memory_order_relaxed);
        if (start == 0)
            return UINT64_MAX;
    }
    for (; base < index; base++)
        start = after(&arrivals->batches[base], arrivals->batches[base].end, start);
    return start;
}

uint64_t fc_arrivals_due(const struct fc_arrivals *arrivals, uint32_t batch, uint32_t number)
{
    const struct fc_arrivals_batch *own = &arrivals->batches[batch];
    /* Without a rate, the first batch need not look at any clock. */
    if (own->rate <= 0 && batch == 0)
        return 0;
    uint64_t start = start_of(arrivals, batch);
    return start == UINT64_MAX || own->rate <= 0 ? start : after(own, number, start);
}

bool fc_arrivals_pass(struct fc_arrivals *arrivals, uint32_t *batch, uint32_t number, uint64_t now)
{
    bool ended = false;
    for (; *batch < arrivals->used && number >= arrivals->batches[*batch].end; ++*batch) {
        struct fc_arrivals_batch *passed = &arrivals->batches[*batch];
        /* Relaxed: nothing but the count and the time is shared. */
        if (passed->rate <= 0 && atomic_fetch_sub_explicit(&passed->threads, 1, memory_order_relaxed) == 1) {
            atomic_store_explicit(&passed->over_ns, now, memory_order_relaxed);
            ended = true;
        }
    }
    return ended;
}
