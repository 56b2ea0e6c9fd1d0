/* The table of members that are ahead, against a plain array; its memory, and what it does without. */
#include "late.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <string.h>

enum { SLOTS = 300 };

static struct fc_late late;
static uint64_t model[SLOTS];

static void compare(void)
{
    uint32_t count = 0;

    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        CHECK_EQ(fc_late_find(&late, slot), model[slot]);
        count += model[slot] > 0;
    }
    CHECK_EQ(late.count, count);
}

static void prune(uint64_t next)
{
    fc_late_prune(&late, next);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (model[slot] <= next)
            model[slot] = 0;
    }
}

static void it_is_what_an_array_is(void)
{
    uint64_t random = 7;
    uint64_t given = 1;

    for (unsigned i = 0; i < 40000; i++) {
        uint32_t slot = (uint32_t)(check_random(&random) % SLOTS);
        uint64_t what = check_random(&random) % 100;
        if (what < 60) {
            if (check_random(&random) % 8 == 0)
                fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
            int error = fc_late_put(&late, slot, given);
            CHECK_EQ(error, fault_injected(FAULT_ALLOCATION) > 0 ? -ENOMEM : 0);
            fault_clear();
            model[slot] = error ? model[slot] : given;
        } else if (what < 98) {
            fc_late_remove(&late, slot);
            model[slot] = 0;
        } else {
            prune(given - check_random(&random) % 20);
        }
        given += check_random(&random) % 3 == 0;
        if (i % 16 == 0)
            compare();
    }
    prune(given);
    compare();
    fc_late_free(&late);
}

static void what_was_large_becomes_small_again(void)
{
    memset(model, 0, sizeof model);
    for (uint32_t slot = 0; slot < 100000; slot++)
        CHECK_EQ(fc_late_put(&late, slot, slot < 5 ? 2 : 1), 0);
    CHECK(late.capacity >= 200000);
    for (uint32_t slot = 0; slot < 5; slot++)
        model[slot] = 2;
    for (unsigned i = 0; i < 5; i++) { /* those who stay don't keep all of it */
        fault_arm(FAULT_ALLOCATION, 0, i == 0, ENOMEM);
        fc_late_prune(&late, 1);
        fault_clear();
        compare();
    }
    CHECK(late.capacity < 2000);
    fc_late_prune(&late, 2);
    CHECK_EQ(late.count, 0);
    CHECK_EQ(late.capacity, 0);
    CHECK_EQ(fc_late_find(&late, 1), 0);
    fc_late_remove(&late, 1);
}

int main(void)
{
    RUN(it_is_what_an_array_is);
    RUN(what_was_large_becomes_small_again);
    return 0;
}
