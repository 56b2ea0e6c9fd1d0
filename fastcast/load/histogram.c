/*
 * histogram.c - merging and reading what histogram.h records.  Owned by whichever thread holds the histogram;
 * nothing is allocated here.
 */
#include "histogram.h"

void fc_histogram_clear(struct fc_histogram *histogram)
{
    atomic_store_explicit(&histogram->count, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->sum, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->max, 0, memory_order_relaxed);
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&histogram->buckets[i], 0, memory_order_relaxed);
}

void fc_histogram_merge(struct fc_histogram *into, const struct fc_histogram *from)
{
    fc_counter_add(&into->count, fc_counter_read(&from->count));
    fc_counter_add(&into->sum, fc_counter_read(&from->sum));
    uint64_t max = fc_counter_read(&from->max);
    if (max > fc_counter_read(&into->max))
        atomic_store_explicit(&into->max, max, memory_order_relaxed);
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = fc_counter_read(&from->buckets[i]);
        /* Most buckets are empty: leave their pages untouched. */
        if (count > 0)
            fc_counter_add(&into->buckets[i], count);
    }
}

/* The largest value that falls into a bucket. */
static uint64_t upper_edge(unsigned bucket)
{
    if (bucket < (2u << FC_HISTOGRAM_BITS))
        return bucket;
    unsigned shift = (bucket >> FC_HISTOGRAM_BITS) - 1;
    uint64_t mantissa = bucket - (shift << FC_HISTOGRAM_BITS);
    return ((mantissa + 1) << shift) - 1;
}

void fc_histogram_advance(struct fc_histogram *since, struct fc_histogram *seen,
                          const struct fc_histogram *total)
{
    uint64_t count = 0;
    uint64_t highest = 0;
    fc_histogram_clear(since);
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++) {
        uint64_t now = fc_counter_read(&total->buckets[i]);
        uint64_t gained = now - fc_counter_read(&seen->buckets[i]);
        if (gained == 0)
            continue;
        fc_counter_add(&since->buckets[i], gained);
        fc_counter_add(&seen->buckets[i], gained);
        count += gained;
        highest = upper_edge(i);
    }
    uint64_t sum = fc_counter_read(&total->sum);
    uint64_t max = fc_counter_read(&total->max);
    /* The count is that of the buckets, which may be an event ahead of the one that is kept beside them. */
    atomic_store_explicit(&since->count, count, memory_order_relaxed);
    atomic_store_explicit(&since->sum, sum - fc_counter_read(&seen->sum), memory_order_relaxed);
    atomic_store_explicit(&since->max, highest < max ? highest : max, memory_order_relaxed);
    fc_counter_add(&seen->count, count);
    atomic_store_explicit(&seen->sum, sum, memory_order_relaxed);
    atomic_store_explicit(&seen->max, max, memory_order_relaxed);
}

uint64_t fc_histogram_quantile(const struct fc_histogram *histogram, double fraction)
{
    uint64_t count = fc_counter_read(&histogram->count);
    uint64_t max = fc_counter_read(&histogram->max);
    if (count == 0)
        return 0;
    double exact = fraction * (double)count;
    uint64_t rank = (uint64_t)exact;
    if (rank == 0 || (double)rank < exact)
        rank++;
    uint64_t seen = 0;
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS - 1; i++) {
        seen += fc_counter_read(&histogram->buckets[i]);
        if (seen >= rank) {
            uint64_t edge = upper_edge(i);
            return edge < max ? edge : max;
        }
    }
    return max;
}

bool fc_histogram_next(const struct fc_histogram *histogram, unsigned *at, uint64_t *value, uint64_t *count)
{
    for (; *at < FC_HISTOGRAM_BUCKETS; ++*at) {
        *count = fc_counter_read(&histogram->buckets[*at]);
        if (*count > 0) {
            *value = upper_edge((*at)++);
            return true;
        }
    }
    return false;
}
