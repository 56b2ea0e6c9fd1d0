/* The keyed hash of names: all bytes count, names spread, and without the key nobody can choose names that collide. */
#include "hash.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t keys[] = {
    0, UINT64_MAX, UINT64_C(0x0123456789ABCDEF), UINT64_C(0xDEADBEEFCAFEF00D), UINT64_C(0x5555AAAA12349876),
};

enum { KEYS = sizeof keys / sizeof *keys };

static void every_byte_and_the_length_count(void)
{
    char name[40];

    memset(name, 'n', sizeof name);
    for (unsigned k = 0; k < KEYS; k++) {
        for (size_t n = 0; n < sizeof name; n++) {
            uint32_t hash = fc_hash(keys[k], name, n);
            CHECK(hash != fc_hash(keys[k], name, n + 1));
            for (size_t i = 0; i < n; i++) {
                name[i] ^= 1;
                CHECK(hash != fc_hash(keys[k], name, n));
                name[i] ^= 1;
            }
        }
        CHECK(fc_hash(keys[k], "a", 1) != fc_hash(keys[k], "a\0", 2));
        CHECK(fc_hash(keys[k], "", 0) != fc_hash(keys[k], "\0", 1));
    }
}

enum { BUCKETS = 1 << 17, NAMES = 100000 };

static unsigned buckets[BUCKETS];

static unsigned longest_chain(unsigned n)
{
    unsigned longest = 0;

    for (unsigned i = 0; i < n; i++)
        longest = buckets[i] > longest ? buckets[i] : longest;
    return longest;
}

static void numbered_names_spread(void)
{
    static const char *const before[] = {"", "/", "/room/", "prices.", "10.0.0."};
    char name[32];

    for (unsigned k = 0; k < KEYS; k++) {
        for (unsigned format = 0; format < sizeof before / sizeof *before; format++) {
            memset(buckets, 0, sizeof buckets);
            for (unsigned i = 0; i < NAMES; i++) {
                int n = snprintf(name, sizeof name, "%s%u", before[format], i);
                buckets[fc_hash(keys[k], name, (size_t)n) % BUCKETS]++;
            }
            CHECK(longest_chain(BUCKETS) <= 16);
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;

    return left < right ? -1 : left > right;
}

/* Else names that collide could be told without it. */
static void the_hash_of_any_name_is_another_under_each_key(void)
{
    enum { TRIED = 10000 };
    static const char *const names[] = {"", "*", "a", "/a", "/ab", "chat", "/room/1", "prices.a", "prices.eur"};
    static uint32_t hashes[TRIED];
    uint64_t seed = 14;

    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        unsigned distinct = 1;
        for (unsigned k = 0; k < TRIED; k++)
            hashes[k] = fc_hash(check_random(&seed), names[i], strlen(names[i]));
        qsort(hashes, TRIED, sizeof *hashes, compare);
        for (unsigned k = 1; k < TRIED; k++)
            distinct += hashes[k] != hashes[k - 1];
        CHECK(distinct > TRIED - TRIED / 100);
    }
}

/* As in the table of patterns, where the key is that of an edge's parent: its address, folded. */
static void one_token_below_many_parents_spreads(void)
{
    for (unsigned k = 0; k < KEYS; k++) {
        memset(buckets, 0, sizeof buckets);
        for (uint64_t i = 0; i < NAMES; i++)
            buckets[fc_hash(fc_hash_fold(UINT64_C(0x602000001230) + 48 * i, keys[k]), "*", 1) % BUCKETS]++;
        CHECK(longest_chain(BUCKETS) <= 16);
    }
}

/* Who can't know the key can still choose names that collide under another one. */
static void names_that_collide_under_one_key_do_not_under_others(void)
{
    enum { CHAINS = 1 << 14, TRIED = 1 << 20, MOST = 200 };
    static char chosen[MOST][16];
    static size_t lengths[MOST];

    for (unsigned k = 0; k < KEYS; k++) {
        unsigned count = 0;
        for (unsigned i = 0; i < TRIED && count < MOST; i++) {
            int n = snprintf(chosen[count], sizeof chosen[count], "/%x", i);
            lengths[count] = (size_t)n;
            count += fc_hash(keys[k], chosen[count], (size_t)n) % CHAINS == 0;
        }
        CHECK(count > 20);
        for (unsigned other = 0; other < KEYS; other++) {
            memset(buckets, 0, sizeof buckets);
            for (unsigned i = 0; i < count; i++)
                buckets[fc_hash(keys[other], chosen[i], lengths[i]) % CHAINS]++;
            CHECK(other == k || longest_chain(CHAINS) <= 6);
        }
    }
}

int main(void)
{
    RUN(every_byte_and_the_length_count);
    RUN(numbered_names_spread);
    RUN(names_that_collide_under_one_key_do_not_under_others);
    RUN(the_hash_of_any_name_is_another_under_each_key);
    RUN(one_token_below_many_parents_spreads);
    return 0;
}
