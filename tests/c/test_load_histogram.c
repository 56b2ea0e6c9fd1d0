/*
 * test_load_histogram.c - buckets, quantiles and merging of the load client's histogram.
 *
 * Sources: fastcast/load/histogram.c
 */
#include "histogram.h"
#include "test_load_check.h"

#include <stdlib.h>

static struct fc_histogram *make(void)
{
    struct fc_histogram *histogram = calloc(1, sizeof *histogram);
    if (histogram == NULL)
        abort();
    return histogram;
}

static void buckets_follow_each_other_without_gaps(void)
{
    unsigned last = 0;
    for (uint64_t value = 1; value < (uint64_t)1 << 20; value++) {
        unsigned bucket = fc_histogram_bucket(value);
        CHECK(bucket == last || bucket == last + 1);
        last = bucket;
    }
    CHECK(fc_histogram_bucket(UINT64_MAX) == FC_HISTOGRAM_BUCKETS - 1);
    CHECK(fc_histogram_bucket(((uint64_t)1 << FC_HISTOGRAM_RANGE) - 1) == FC_HISTOGRAM_BUCKETS - 1);
}

static void quantiles_are_at_most_one_percent_high(void)
{
    for (uint64_t value = 1; value < (uint64_t)1 << 40; value = value * 3 / 2 + 1) {
        struct fc_histogram *histogram = make();
        fc_histogram_add(histogram, value);
        fc_histogram_add(histogram, (uint64_t)1 << 40);
        uint64_t median = fc_histogram_quantile(histogram, 0.5);
        CHECK(median >= value);
        CHECK((double)median <= (double)value * 1.01);
        free(histogram);
    }
}

static void quantiles_pick_the_rank(void)
{
    struct fc_histogram *histogram = make();
    CHECK(fc_histogram_quantile(histogram, 0.5) == 0);
    for (uint64_t value = 1; value <= 100; value++)
        fc_histogram_add(histogram, value);
    CHECK(fc_histogram_quantile(histogram, 0) == 1);
    CHECK(fc_histogram_quantile(histogram, 0.5) == 50);
    CHECK(fc_histogram_quantile(histogram, 0.9) == 90);
    CHECK(fc_histogram_quantile(histogram, 0.999) == 100);
    CHECK(fc_histogram_quantile(histogram, 1) == 100);
    free(histogram);
}

static void the_maximum_is_exact_beyond_the_last_bucket(void)
{
    struct fc_histogram *histogram = make();
    fc_histogram_add(histogram, (uint64_t)1 << 50);
    CHECK(histogram->max == (uint64_t)1 << 50);
    CHECK(fc_histogram_quantile(histogram, 0.5) == (uint64_t)1 << 50);
    free(histogram);
}

static void merging_equals_adding_to_one(void)
{
    struct fc_histogram *one = make();
    struct fc_histogram *other = make();
    struct fc_histogram *both = make();
    for (uint64_t i = 0; i < 1000; i++) {
        fc_histogram_add(i % 3 == 0 ? one : other, i * i * i);
        fc_histogram_add(both, i * i * i);
    }
    fc_histogram_merge(one, other);
    CHECK(one->count == both->count && one->sum == both->sum && one->max == both->max);
    for (double fraction = 0; fraction <= 1; fraction += 0.01)
        CHECK(fc_histogram_quantile(one, fraction) == fc_histogram_quantile(both, fraction));
    free(one);
    free(other);
    free(both);
}

/* The index as HdrHistogram defines it, for lowest value 1 and two significant digits: 256 sub-buckets, half
 * of which each power of two shares with the one below. */
static unsigned hdr_index(uint64_t value)
{
    unsigned bucket = 0;
    while (value >> bucket >= 256)
        bucket++;
    uint64_t sub_bucket = value >> bucket;
    return (bucket + 1) * 128 + (unsigned)sub_bucket - 128;
}

static void the_layout_is_that_of_hdr_histogram(void)
{
    for (uint64_t value = 0; value < 100000; value++)
        CHECK(fc_histogram_bucket(value) == hdr_index(value));
    for (unsigned bit = 1; bit < FC_HISTOGRAM_RANGE; bit++)
        for (uint64_t near = 0; near < 3; near++)
            CHECK(fc_histogram_bucket(((uint64_t)1 << bit) - 1 + near) ==
                  hdr_index(((uint64_t)1 << bit) - 1 + near));
}

static void walking_meets_each_bucket_that_is_not_empty(void)
{
    struct fc_histogram *histogram = make();
    struct fc_histogram *again = make();
    unsigned at = 0;
    uint64_t value;
    uint64_t count;
    CHECK(!fc_histogram_next(histogram, &at, &value, &count));
    for (uint64_t i = 0; i < 1000; i++)
        fc_histogram_add(histogram, i * i * i);
    for (at = 0; fc_histogram_next(histogram, &at, &value, &count);)
        for (uint64_t i = 0; i < count; i++)
            fc_histogram_add(again, value);
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++)
        CHECK(histogram->buckets[i] == again->buckets[i]);
    free(histogram);
    free(again);
}

static void gains_add_up_to_the_total(void)
{
    struct fc_histogram *total = make();
    struct fc_histogram *seen = make();
    struct fc_histogram *since = make();
    struct fc_histogram *sum = make();
    for (uint64_t i = 0; i < 1000; i++) {
        fc_histogram_add(total, i * i);
        if (i % 7 != 0)
            continue;
        fc_histogram_advance(since, seen, total);
        CHECK(since->count == (i == 0 ? 1 : 7));
        CHECK(since->max >= i * i && since->max <= total->max);
        fc_histogram_merge(sum, since);
    }
    fc_histogram_advance(since, seen, total);
    fc_histogram_merge(sum, since);
    fc_histogram_advance(since, seen, total);
    CHECK(since->count == 0 && since->sum == 0 && since->max == 0);
    CHECK(sum->count == total->count && sum->sum == total->sum);
    for (unsigned i = 0; i < FC_HISTOGRAM_BUCKETS; i++)
        CHECK(sum->buckets[i] == total->buckets[i] && seen->buckets[i] == total->buckets[i]);
    free(total);
    free(seen);
    free(since);
    free(sum);
}

int main(void)
{
    the_layout_is_that_of_hdr_histogram();
    walking_meets_each_bucket_that_is_not_empty();
    gains_add_up_to_the_total();
    buckets_follow_each_other_without_gaps();
    quantiles_are_at_most_one_percent_high();
    quantiles_pick_the_rank();
    the_maximum_is_exact_beyond_the_last_bucket();
    merging_equals_adding_to_one();
    return check_result();
}
