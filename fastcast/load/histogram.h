/*
 * histogram.h - counts of durations in buckets whose width grows with the value.
 *
 * Values are nanoseconds.  The buckets are those of HdrHistogram with two significant digits: 256 of width 1,
 * then 128 for each power of two, so a reported value is at most 0.8 % above the recorded one, and counts can
 * be handed to that library without loss.  Values from about 36 minutes up share the last bucket (the maximum
 * stays exact).
 *
 * One thread adds; any other may read at the same time.  Reads and writes are relaxed: each number has a
 * single writer and nothing else is concluded from it, so all that a reader can see is a count that lags by
 * the events of the moment, and a difference of two readings has every event exactly once.
 */
#ifndef FC_HISTOGRAM_H
#define FC_HISTOGRAM_H

#include "counters.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FC_HISTOGRAM_BITS 7
#define FC_HISTOGRAM_RANGE 41
#define FC_HISTOGRAM_BUCKETS ((FC_HISTOGRAM_RANGE - FC_HISTOGRAM_BITS + 1) << FC_HISTOGRAM_BITS)

struct fc_histogram {
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
    _Atomic uint64_t max;
    _Atomic uint64_t buckets[FC_HISTOGRAM_BUCKETS];
};

static inline unsigned fc_histogram_bucket(uint64_t value)
{
    if (value < (1u << FC_HISTOGRAM_BITS))
        return (unsigned)value;
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    if (top >= FC_HISTOGRAM_RANGE)
        return FC_HISTOGRAM_BUCKETS - 1;
    unsigned shift = top - FC_HISTOGRAM_BITS;
    return (shift << FC_HISTOGRAM_BITS) + (unsigned)(value >> shift);
}

static inline void fc_histogram_add(struct fc_histogram *histogram, uint64_t value)
{
    fc_counter_add(&histogram->count, 1);
    fc_counter_add(&histogram->sum, value);
    if (value > fc_counter_read(&histogram->max))
        atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
    fc_counter_add(&histogram->buckets[fc_histogram_bucket(value)], 1);
}

void fc_histogram_clear(struct fc_histogram *histogram);

void fc_histogram_merge(struct fc_histogram *into, const struct fc_histogram *from);

/* Replaces what `since` holds by what `total` has gained since `seen`, and brings `seen` up to date.  The
 * caller owns `since` and `seen`; `total` is an earlier sum of histograms of which each only grows.  The
 * maximum of the difference is the upper edge of its highest bucket, or `total`'s own where that is lower. */
void fc_histogram_advance(struct fc_histogram *since, struct fc_histogram *seen,
                          const struct fc_histogram *total);

/* The value that a share of `fraction` (0 to 1) of the recorded ones does not exceed; 0 when empty. */
uint64_t fc_histogram_quantile(const struct fc_histogram *histogram, double fraction);

/* Walks through the buckets that are not empty: start with *at = 0, and call until it returns false.  *value
 * is the largest that falls into the bucket. */
bool fc_histogram_next(const struct fc_histogram *histogram, unsigned *at, uint64_t *value, uint64_t *count);

#endif
