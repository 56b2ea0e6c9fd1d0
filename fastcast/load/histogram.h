/*
 * histogram.h - counts of durations in buckets whose width grows with the value.
 *
 * Values are nanoseconds.  Each power of two is cut into 128 equal buckets, so a reported value is at most
 * 0.8 % above the recorded one; values from about 36 minutes up share the last bucket (the maximum stays
 * exact). Not thread-safe: each thread fills its own, and one thread merges them.
 */
#ifndef FC_HISTOGRAM_H
#define FC_HISTOGRAM_H

#include <stdint.h>

#define FC_HISTOGRAM_BITS 7
#define FC_HISTOGRAM_RANGE 41
#define FC_HISTOGRAM_BUCKETS ((FC_HISTOGRAM_RANGE - FC_HISTOGRAM_BITS + 1) << FC_HISTOGRAM_BITS)

struct fc_histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[FC_HISTOGRAM_BUCKETS];
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
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[fc_histogram_bucket(value)]++;
}

void fc_histogram_merge(struct fc_histogram *into, const struct fc_histogram *from);

/* The value that a share of `fraction` (0 to 1) of the recorded ones does not exceed; 0 when empty. */
uint64_t fc_histogram_quantile(const struct fc_histogram *histogram, double fraction);

#endif
