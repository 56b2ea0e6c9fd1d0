/* The ring of clients to read from: first in, first out, whatever it grows to. */
#include "ready.h"

#include "check.h"
#include "faults.h"

#include <errno.h>

static void ids_come_out_in_the_order_they_went_in(void)
{
    struct fc_ready ready = {0};
    uint64_t seed = 8;
    uint64_t pushed = 0;
    uint64_t popped = 0;
    uint64_t id;

    CHECK(!fc_ready_pop(&ready, &id));
    for (unsigned round = 0; round < 200000; round++) {
        bool grow = round / 20000 % 2 == 0 ? check_random(&seed) % 3 > 0 : check_random(&seed) % 3 == 0;
        if (grow) {
            CHECK_EQ(fc_ready_push(&ready, pushed++), 0);
        } else if (fc_ready_pop(&ready, &id)) {
            CHECK_EQ(id, popped++);
        }
        CHECK_EQ(ready.count, pushed - popped);
    }
    while (fc_ready_pop(&ready, &id))
        CHECK_EQ(id, popped++);
    CHECK_EQ(popped, pushed);
    fc_ready_free(&ready);
}

static void a_storm_leaves_no_memory_behind(void)
{
    struct fc_ready ready = {0};
    uint64_t id;

    for (uint64_t i = 0; i < 10000; i++)
        CHECK_EQ(fc_ready_push(&ready, i), 0);
    CHECK(ready.capacity >= 10000);
    while (fc_ready_pop(&ready, &id))
        continue;
    CHECK_EQ(ready.capacity, 0);
}

static void without_memory_nothing_is_lost(void)
{
    struct fc_ready ready = {0};
    uint64_t id;

    for (uint64_t i = 0; i < 64; i++)
        CHECK_EQ(fc_ready_push(&ready, i), 0);
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_ready_push(&ready, 64), -ENOMEM);
    CHECK_EQ(ready.count, 64);
    for (uint64_t i = 0; i < 64; i++) {
        CHECK(fc_ready_pop(&ready, &id));
        CHECK_EQ(id, i);
    }
    fc_ready_free(&ready);
}

int main(void)
{
    RUN(ids_come_out_in_the_order_they_went_in);
    RUN(a_storm_leaves_no_memory_behind);
    RUN(without_memory_nothing_is_lost);
    return 0;
}
