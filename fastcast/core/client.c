/* The client table.
 *
 * Invariants: a slot's address is stable while the slot is in use; the lowest chunk with room is filled
 * first, so that chunks at the end run empty and go back to the system after a peak; one generation
 * counter for the table, so that a freed chunk need not remember anything.
 * Owned by its shard's thread.
 */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

_Static_assert(sizeof(struct fc_client) <= 40, "what an idle client costs");

static const size_t chunk_bytes = FC_CHUNK_SLOTS * sizeof(struct fc_client);

int fc_clients_init(struct fc_clients *clients, uint32_t max)
{
    *clients = (struct fc_clients){0};
    if (max > FC_SLOT_MAX)
        max = FC_SLOT_MAX;
    uint32_t count = (max + FC_CHUNK_SLOTS - 1) / FC_CHUNK_SLOTS;
    clients->chunks = calloc(count, sizeof *clients->chunks);
    if (!clients->chunks)
        return -ENOMEM;
    clients->chunk_count = count;
    return 0;
}

void fc_clients_destroy(struct fc_clients *clients)
{
    for (uint32_t i = 0; i < clients->chunk_count; i++) {
        if (clients->chunks[i].slots)
            munmap(clients->chunks[i].slots, chunk_bytes);
    }
    free(clients->chunks);
    *clients = (struct fc_clients){0};
}

/* mmap, not malloc: untouched slots cost nothing, and munmap gives the memory back for certain. */
static int map_chunk(struct fc_chunk *chunk)
{
    void *slots = mmap(NULL, chunk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (slots == MAP_FAILED)
        return -ENOMEM;
    chunk->slots = slots;
    chunk->used = 0;
    chunk->free = FC_NO_SLOT;
    return 0;
}

struct fc_client *fc_clients_take(struct fc_clients *clients, uint32_t *slot)
{
    uint32_t i = clients->first_with_room;

    while (i < clients->chunk_count && clients->chunks[i].slots && clients->chunks[i].used == FC_CHUNK_SLOTS)
        i++;
    clients->first_with_room = i;
    if (i == clients->chunk_count)
        return NULL;

    struct fc_chunk *chunk = &clients->chunks[i];
    if (!chunk->slots && map_chunk(chunk))
        return NULL;

    /* A chunk that has never been full has no holes, or has them on its free list: either way `used`
     * tells where its untouched part begins only while the list is empty. */
    uint32_t within = chunk->free;
    if (within != FC_NO_SLOT)
        chunk->free = chunk->slots[within].next_free;
    else
        within = chunk->used;
    chunk->used++;
    clients->count++;

    clients->generation = (clients->generation + 1) & FC_GENERATION_MASK;
    if (clients->generation == 0)
        clients->generation = 1;
    struct fc_client *client = &chunk->slots[within];
    *client = (struct fc_client){.generation = clients->generation};
    *slot = i * FC_CHUNK_SLOTS + within;
    return client;
}

void fc_clients_give(struct fc_clients *clients, uint32_t slot)
{
    uint32_t i = slot / FC_CHUNK_SLOTS;
    uint32_t within = slot % FC_CHUNK_SLOTS;
    struct fc_chunk *chunk = &clients->chunks[i];

    clients->count--;
    if (i < clients->first_with_room)
        clients->first_with_room = i;
    if (--chunk->used == 0 && i > 0) {
        munmap(chunk->slots, chunk_bytes);
        *chunk = (struct fc_chunk){0};
        return;
    }
    chunk->slots[within].state = FC_CLIENT_FREE;
    chunk->slots[within].next_free = chunk->free;
    chunk->free = within;
}
