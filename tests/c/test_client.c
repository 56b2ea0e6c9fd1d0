/* The client table: slots that don't move, ids that outlive their clients, memory that goes back after a peak. */
#include "client.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t take(struct fc_clients *clients)
{
    uint32_t slot;
    struct fc_client *client = fc_clients_take(clients, &slot);

    CHECK(client);
    CHECK(client->generation != 0);
    CHECK(!client->queue && !client->room && !client->head && !client->ready && !client->refused);
    CHECK(!client->extended && !client->late && client->position == 0);
    client->state = FC_CLIENT_HEAD;
    CHECK(fc_clients_at(clients, slot) == client);
    uint64_t id = fc_client_id(7, client, slot);
    CHECK(fc_clients_find(clients, id) == client);
    CHECK_EQ(fc_client_id_shard(id), 7);
    CHECK_EQ(fc_client_id_slot(id), slot);
    CHECK(slot < fc_clients_end(clients));
    return id;
}

static void an_id_means_nobody_once_its_client_has_gone(void)
{
    struct fc_clients clients;

    CHECK_EQ(fc_clients_init(&clients, 10), 0);
    uint64_t first = take(&clients);
    fc_clients_give(&clients, fc_client_id_slot(first));
    CHECK(!fc_clients_find(&clients, first));
    uint64_t second = take(&clients);
    CHECK_EQ(fc_client_id_slot(second), fc_client_id_slot(first));
    CHECK(second != first);
    CHECK(!fc_clients_find(&clients, first));
    CHECK(fc_clients_find(&clients, second));
    CHECK(!fc_clients_find(&clients, 0));
    CHECK(!fc_clients_find(&clients, UINT64_MAX));
    fc_clients_destroy(&clients);
}

static void generations_go_round_without_zero(void)
{
    struct fc_clients clients;

    CHECK_EQ(fc_clients_init(&clients, 10), 0);
    clients.generation = FC_GENERATION_MASK - 1;
    uint64_t last = take(&clients);
    uint64_t wrapped = take(&clients);
    CHECK_EQ(fc_clients_find(&clients, last)->generation, FC_GENERATION_MASK);
    CHECK_EQ(fc_clients_find(&clients, wrapped)->generation, 1);
    fc_clients_destroy(&clients);
}

static void a_full_table_has_no_slot_until_one_is_given_back(void)
{
    struct fc_clients clients;
    uint64_t ids[2 * FC_CHUNK_SLOTS];
    uint32_t slot;

    CHECK_EQ(fc_clients_init(&clients, 2 * FC_CHUNK_SLOTS), 0);
    for (unsigned i = 0; i < 2 * FC_CHUNK_SLOTS; i++)
        ids[i] = take(&clients);
    CHECK(!fc_clients_take(&clients, &slot));
    CHECK_EQ(clients.count, 2 * FC_CHUNK_SLOTS);
    fc_clients_give(&clients, fc_client_id_slot(ids[5]));
    CHECK_EQ(fc_client_id_slot(take(&clients)), fc_client_id_slot(ids[5]));
    CHECK(!fc_clients_take(&clients, &slot));
    fc_clients_destroy(&clients);
}

/* What a slot had isn't left to whoever has it next. */
static void a_slot_is_clean_when_it_is_used_again(void)
{
    struct fc_clients clients;

    CHECK_EQ(fc_clients_init(&clients, 10), 0);
    uint64_t first = take(&clients);
    struct fc_client *client = fc_clients_find(&clients, first);
    client->extended = 1;
    client->late = 1;
    client->position = 17;
    fc_clients_give(&clients, fc_client_id_slot(first));
    CHECK_EQ(fc_client_id_slot(take(&clients)), fc_client_id_slot(first));
    fc_clients_destroy(&clients);
}

static void the_end_is_behind_the_last_chunk(void)
{
    struct fc_clients clients;
    uint64_t last = 0;

    CHECK_EQ(fc_clients_init(&clients, 3 * FC_CHUNK_SLOTS), 0);
    CHECK_EQ(fc_clients_end(&clients), 0);
    for (unsigned i = 0; i < FC_CHUNK_SLOTS; i++)
        last = take(&clients);
    CHECK_EQ(fc_clients_end(&clients), FC_CHUNK_SLOTS);
    last = take(&clients);
    CHECK_EQ(fc_clients_end(&clients), 2 * FC_CHUNK_SLOTS);
    fc_clients_give(&clients, fc_client_id_slot(last));
    CHECK_EQ(fc_clients_end(&clients), FC_CHUNK_SLOTS);
    CHECK(!fc_clients_at(&clients, FC_CHUNK_SLOTS));
    fc_clients_destroy(&clients);
}

static void chunks_go_back_to_the_system_after_a_peak(void)
{
    enum { CHUNKS = 4 };
    struct fc_clients clients;
    static uint64_t ids[CHUNKS * FC_CHUNK_SLOTS];

    CHECK_EQ(fc_clients_init(&clients, CHUNKS * FC_CHUNK_SLOTS), 0);
    for (unsigned i = 0; i < CHUNKS * FC_CHUNK_SLOTS; i++)
        ids[i] = take(&clients);
    for (unsigned i = 1; i < CHUNKS * FC_CHUNK_SLOTS; i++)
        fc_clients_give(&clients, fc_client_id_slot(ids[i]));
    CHECK(clients.chunks[0].slots);
    for (unsigned i = 1; i < CHUNKS; i++)
        CHECK(!clients.chunks[i].slots);
    for (unsigned i = 1; i < CHUNKS * FC_CHUNK_SLOTS; i++)
        CHECK(!fc_clients_find(&clients, ids[i]));
    CHECK(fc_clients_find(&clients, ids[0]));
    /* New ones fill the lowest chunk first. */
    for (unsigned i = 1; i < FC_CHUNK_SLOTS; i++)
        CHECK(fc_client_id_slot(take(&clients)) < FC_CHUNK_SLOTS);
    fc_clients_destroy(&clients);
}

static void random_coming_and_going_keeps_every_client_findable(void)
{
    enum { MOST = 3000 };
    static uint64_t present[MOST];
    static struct fc_client *places[MOST];
    struct fc_clients clients;
    uint64_t seed = 7;
    unsigned count = 0;

    CHECK_EQ(fc_clients_init(&clients, MOST), 0);
    for (unsigned round = 0; round < 100000; round++) {
        bool grow = round / 10000 % 2 == 0 ? check_random(&seed) % 3 > 0 : check_random(&seed) % 3 == 0;
        if (grow && count < MOST) {
            present[count] = take(&clients);
            places[count] = fc_clients_find(&clients, present[count]);
            count++;
        } else if (count > 0) {
            unsigned who = (unsigned)(check_random(&seed) % count);
            uint64_t gone = present[who];
            CHECK(fc_clients_find(&clients, gone) == places[who]);
            fc_clients_give(&clients, fc_client_id_slot(gone));
            CHECK(!fc_clients_find(&clients, gone));
            present[who] = present[--count];
            places[who] = places[count];
        }
        CHECK_EQ(clients.count, count);
    }
    for (unsigned i = 0; i < count; i++)
        CHECK(fc_clients_find(&clients, present[i]) == places[i]);
    fc_clients_destroy(&clients);
}

static void without_memory_there_is_no_table_and_no_chunk(void)
{
    struct fc_clients clients;
    uint32_t slot;

    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_clients_init(&clients, 5000), -ENOMEM);
    fc_clients_destroy(&clients); /* as a shard does that fails to start */

    CHECK_EQ(fc_clients_init(&clients, 5000), 0);
    fault_arm(FAULT_MMAP, 0, 1, ENOMEM);
    CHECK(!fc_clients_take(&clients, &slot));
    CHECK_EQ(clients.count, 0);
    take(&clients);
    fc_clients_destroy(&clients);
}

int main(void)
{
    RUN(an_id_means_nobody_once_its_client_has_gone);
    RUN(generations_go_round_without_zero);
    RUN(a_full_table_has_no_slot_until_one_is_given_back);
    RUN(a_slot_is_clean_when_it_is_used_again);
    RUN(the_end_is_behind_the_last_chunk);
    RUN(chunks_go_back_to_the_system_after_a_peak);
    RUN(random_coming_and_going_keeps_every_client_findable);
    RUN(without_memory_there_is_no_table_and_no_chunk);
    return 0;
}
