/* Keyed hashes of names that clients may choose: nobody can make them collide on purpose. */
#ifndef FC_HASH_H
#define FC_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t fc_hash_fold(uint64_t word, uint64_t key)
{
    unsigned __int128 product = (unsigned __int128)(word ^ key) * UINT64_C(0x9E3779B97F4A7C15);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Eight bytes at a time: multiplied into 128 bits, whose halves are folded; the key enters before each. */
static inline uint32_t fc_hash(uint64_t key, const void *bytes, size_t length)
{
    const char *from = bytes;
    uint64_t hash = fc_hash_fold(length, key); /* not just key ^ length: the next fold would take the key out again */

    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, from + i, length - i < 8 ? length - i : 8);
        hash = fc_hash_fold(hash + word, key + i);
    }
    return (uint32_t)(hash ^ hash >> 32);
}

#endif
