/*
 * counters.h - the numbers of one worker that the coordinating thread reads while the worker runs.
 *
 * The worker alone writes them.  Relaxed suffices: each is a statistic of its own, no other memory is read in
 * the belief that a counter vouches for it, and what must be exact is read after the thread has been joined.
 */
#ifndef FC_COUNTERS_H
#define FC_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

struct fc_counters {
    _Atomic uint64_t made;   /* connections that have been open at least once */
    _Atomic uint64_t failed; /* that never were, and are given up */
    _Atomic uint64_t open;
    _Atomic uint64_t handshakes; /* in progress */
    _Atomic uint64_t waiting;    /* to try again */
    _Atomic uint64_t lost;       /* closed before their time */
    _Atomic uint64_t sent;
    _Atomic uint64_t received;
    _Atomic uint64_t duplicated;
    _Atomic uint64_t reordered;
    _Atomic uint64_t damaged;
    _Atomic uint64_t unexpected;
};

static inline uint64_t fc_counter_read(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A load and a store, not a locked addition: there is no other writer. */
static inline void fc_counter_add(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, fc_counter_read(counter) + by, memory_order_relaxed);
}

/* For those that go down as well. */
static inline void fc_counter_drop(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, fc_counter_read(counter) - 1, memory_order_relaxed);
}

#endif
