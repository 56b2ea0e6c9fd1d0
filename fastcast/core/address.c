/* A table of counts by address. An address is in it exactly while somebody counts for it.
 *
 * Addresses come from the network, so that their hash is keyed. Shared by the threads that answer requests and the
 * shards, under a lock that's taken alone.
 */
#include "address.h"

#include "hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fc_addresses_init(struct fc_addresses *addresses, uint64_t key)
{
    *addresses = (struct fc_addresses){.bucket_count = 16, .key = key};
    addresses->buckets = calloc(addresses->bucket_count, sizeof(struct fc_address *));
    if (!addresses->buckets)
        return -ENOMEM;
    pthread_mutex_init(&addresses->lock, NULL);
    return 0;
}

void fc_addresses_destroy(struct fc_addresses *addresses)
{
    if (!addresses->buckets)
        return;
    free(addresses->buckets);
    pthread_mutex_destroy(&addresses->lock);
    addresses->buckets = NULL;
}

/* Where the address is, or would be. */
static struct fc_address **find(struct fc_addresses *addresses, uint32_t hash, struct fc_span text)
{
    struct fc_address **place = &addresses->buckets[hash & (addresses->bucket_count - 1)];

    while (*place && !((*place)->hash == hash && (*place)->length == text.length &&
                       !memcmp((*place)->text, text.bytes, text.length)))
        place = &(*place)->next;
    return place;
}

/* Longer chains are the only harm when memory for more buckets is missing. */
static void grow(struct fc_addresses *addresses)
{
    size_t count = 2 * addresses->bucket_count;
    struct fc_address **wider = calloc(count, sizeof(struct fc_address *));

    if (!wider)
        return;
    for (size_t i = 0; i < addresses->bucket_count; i++) {
        for (struct fc_address *address = addresses->buckets[i], *next; address; address = next) {
            struct fc_address **place = &wider[address->hash & (count - 1)];
            next = address->next;
            address->next = *place;
            *place = address;
        }
    }
    free(addresses->buckets);
    addresses->buckets = wider;
    addresses->bucket_count = count;
}

static struct fc_address *make(struct fc_addresses *addresses, uint32_t hash, struct fc_span text)
{
    struct fc_address *address = malloc(sizeof *address + text.length);

    if (!address)
        return NULL;
    *address = (struct fc_address){.hash = hash, .length = text.length};
    memcpy(address->text, text.bytes, text.length);
    if (addresses->count >= addresses->bucket_count)
        grow(addresses);
    struct fc_address **place = &addresses->buckets[hash & (addresses->bucket_count - 1)];
    address->next = *place;
    *place = address;
    addresses->count++;
    return address;
}

int fc_addresses_take(struct fc_addresses *addresses, struct fc_span text, uint32_t most, struct fc_address **taken)
{
    uint32_t hash = fc_hash(addresses->key, text.bytes, text.length);
    int error = 0;

    pthread_mutex_lock(&addresses->lock);
    struct fc_address *address = *find(addresses, hash, text);
    if (!address)
        address = make(addresses, hash, text);
    if (!address)
        error = -ENOMEM;
    else if (address->count >= most)
        error = -EBUSY;
    else
        address->count++;
    pthread_mutex_unlock(&addresses->lock);
    if (!error)
        *taken = address;
    return error;
}

void fc_addresses_give(struct fc_addresses *addresses, struct fc_address *address)
{
    if (!address)
        return;
    pthread_mutex_lock(&addresses->lock);
    bool last = --address->count == 0;
    if (last) {
        *find(addresses, address->hash, (struct fc_span){address->text, address->length}) = address->next;
        addresses->count--;
    }
    pthread_mutex_unlock(&addresses->lock);
    if (last)
        free(address);
}

uint32_t fc_addresses_count(struct fc_addresses *addresses, struct fc_span text)
{
    uint32_t hash = fc_hash(addresses->key, text.bytes, text.length);

    pthread_mutex_lock(&addresses->lock);
    const struct fc_address *address = *find(addresses, hash, text);
    uint32_t count = address ? address->count : 0;
    pthread_mutex_unlock(&addresses->lock);
    return count;
}
