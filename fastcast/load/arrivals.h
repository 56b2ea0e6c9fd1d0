/*
 * arrivals.h - when each connection of a run is to begin.
 *
 * A list of batches, one after the other.  A batch with a rate has its times fixed once it begins.  A batch
 * without one is over when every thread has begun its share of it; only then does the next one begin.
 *
 * Created and freed by the coordinating thread, shared by all workers.
 */
#ifndef FC_ARRIVALS_H
#define FC_ARRIVALS_H

#include "load.h"

#include <stdatomic.h>

struct fc_arrivals_batch {
    uint32_t first; /* number of its first connection, and of the next batch's */
    uint32_t end;
    double rate;
    _Atomic uint32_t threads; /* that have not begun all of their share yet; for a batch without a rate */
    _Atomic uint64_t over_ns; /* when a batch without a rate was over; 0: it is not */
};

struct fc_arrivals {
    struct fc_arrivals_batch *batches;
    uint32_t used;
    uint64_t start_ns; /* set before the workers are told to connect */
};

/* Returns 0 or -ENOMEM. */
int fc_arrivals_init(struct fc_arrivals *arrivals, const struct fc_load_options *options, uint32_t threads);

void fc_arrivals_free(struct fc_arrivals *arrivals);

/* When connection `number` is due: a time, 0 for as soon as there is room, or UINT64_MAX while that is not
 * known.  `batch` is the index of its batch, found by fc_arrivals_pass(). */
uint64_t fc_arrivals_due(const struct fc_arrivals *arrivals, uint32_t batch, uint32_t number);

/* Brings a thread's *batch from 0 up to the one that `number` belongs to, and notes that the thread has begun
 * all that it had in those before; UINT32_MAX: in all.  Numbers must not go down.  True when that ended a
 * batch, so that other threads may be waiting for a time to be known. */
bool fc_arrivals_pass(struct fc_arrivals *arrivals, uint32_t *batch, uint32_t number, uint64_t now);

#endif
