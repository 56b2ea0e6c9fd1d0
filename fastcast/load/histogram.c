/*
 * histogram.c - merging and reading what histogram.h records.  Owned by whichever thread holds the histogram;
 * nothing is allocated here.
 */
#include "histogram.h"

void fc_histogram_merge(struct fc_histogram *into, const struct fc_histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
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

uint64_t fc_histogram_quantile(const struct fc_histogram *histogram, double fraction)
{
    if (histogram->count == 0)
        return 0;
    double exact = fraction * (double)histogram->count;
    uint64_t rank = (uint64_t)exact;
    if (rank == 0 || (double)rank < exact)
        rank++;
    uint64_t seen = 0;
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS - 1; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t edge = upper_edge(i);
            return edge < histogram->max ? edge : histogram->max;
        }
    }
    return histogram->max;
}
