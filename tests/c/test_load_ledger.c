/*
 * test_load_ledger.c - the order that all receivers must share, strays from it, and messages in flight.
 *
 * Sources: fastcast/load/ledger.c
 */
#include "ledger.h"
#include "test_load_check.h"

static void one_sender_needs_no_log(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 1, 10, 0, 1, 1) == 0);
    CHECK(fc_ledger_follows(&ledger, 0, 0, 0));
    CHECK(fc_ledger_follows(&ledger, 9, 0, 9));
    CHECK(!fc_ledger_follows(&ledger, 3, 0, 4));
    fc_ledger_free(&ledger);
}

static void the_first_receiver_sets_the_order_for_all(void)
{
    struct fc_ledger ledger;
    uint64_t place;
    CHECK(fc_ledger_init(&ledger, 2, 2, 0, 2, 1) == 0);
    CHECK(fc_ledger_follows(&ledger, 0, 1, 0));
    CHECK(!fc_ledger_place(&ledger, 0, 0, &place));
    CHECK(fc_ledger_follows(&ledger, 1, 0, 0));
    CHECK(fc_ledger_place(&ledger, 0, 0, &place) && place == 1);
    /* Another receiver: the same is right, anything else is not. */
    CHECK(!fc_ledger_follows(&ledger, 0, 0, 0));
    CHECK(fc_ledger_follows(&ledger, 0, 1, 0));
    CHECK(fc_ledger_follows(&ledger, 1, 0, 0));
    fc_ledger_free(&ledger);
}

static void who_missed_a_message_does_not_set_the_order(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 2, 3, 0, 2, 1) == 0);
    CHECK(!fc_ledger_follows(&ledger, 0, 0, 1));
    CHECK(fc_ledger_follows(&ledger, 0, 0, 0));
    CHECK(!fc_ledger_follows(&ledger, 1, 0, 0));
    CHECK(fc_ledger_follows(&ledger, 1, 0, 1));
    fc_ledger_free(&ledger);
}

static void a_stray_tells_new_from_late_from_again(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 2, 4, 0, 2, 1) == 0);
    CHECK(fc_ledger_follows(&ledger, 0, 0, 0));
    CHECK(fc_ledger_follows(&ledger, 1, 1, 0));
    CHECK(fc_ledger_follows(&ledger, 2, 0, 1));
    /* It had the first message, then lost the second. */
    struct fc_stray *stray = fc_stray_new(&ledger, 1);
    CHECK(stray != NULL);
    CHECK(fc_stray_take(&ledger, stray, 0, 0) == FC_STRAY_AGAIN);
    CHECK(fc_stray_take(&ledger, stray, 0, 1) == FC_STRAY_NEW);
    CHECK(fc_stray_take(&ledger, stray, 1, 0) == FC_STRAY_LATE);
    CHECK(fc_stray_take(&ledger, stray, 1, 0) == FC_STRAY_AGAIN);
    /* Not in the log yet: only the sender's own sequence can tell. */
    CHECK(fc_stray_take(&ledger, stray, 1, 2) == FC_STRAY_NEW);
    CHECK(fc_stray_take(&ledger, stray, 1, 1) == FC_STRAY_LATE);
    CHECK(stray->count == 5);
    fc_stray_free(&ledger, stray);
    CHECK(atomic_load(&ledger.stray_bytes) == 0);
    fc_ledger_free(&ledger);
}

static void strays_together_are_bounded(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 1, 10, 0, 1, 1) == 0);
    atomic_store(&ledger.stray_bytes, UINT64_C(1) << 30);
    CHECK(fc_stray_new(&ledger, 0) == NULL);
    CHECK(atomic_load(&ledger.stray_bytes) == UINT64_C(1) << 30);
    fc_ledger_free(&ledger);
}

static void a_flight_ends_when_every_thread_has_arrived(void)
{
    struct fc_ledger ledger;
    uint64_t first = 0;
    CHECK(fc_ledger_init(&ledger, 3, 100, 0, 3, 4) == 0);
    ledger.threads = 2;
    uint32_t slot = fc_ledger_slot(&ledger, 2, 6);
    CHECK(slot == fc_ledger_slot(&ledger, 2, 2));
    CHECK(slot != fc_ledger_slot(&ledger, 2, 5) && slot != fc_ledger_slot(&ledger, 1, 6));
    CHECK(fc_ledger_free_slot(&ledger, slot));
    fc_ledger_depart(&ledger, slot);
    CHECK(!fc_ledger_free_slot(&ledger, slot));
    fc_ledger_sighted(&ledger, slot, 50);
    fc_ledger_sighted(&ledger, slot, 40);
    CHECK(!fc_ledger_arrived(&ledger, slot, &first));
    CHECK(!fc_ledger_free_slot(&ledger, slot));
    CHECK(fc_ledger_arrived(&ledger, slot, &first) && first == 40);
    CHECK(fc_ledger_free_slot(&ledger, slot));
    fc_ledger_free(&ledger);
}

/* Two senders here, three elsewhere: numbers 2 and 3 of five. */
static void only_own_senders_have_flights(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 5, 10, 2, 2, 3) == 0);
    CHECK(!fc_ledger_owns(&ledger, 1) && fc_ledger_owns(&ledger, 2) && fc_ledger_owns(&ledger, 3) &&
          !fc_ledger_owns(&ledger, 4));
    CHECK(fc_ledger_slot(&ledger, 2, 0) == 0 && fc_ledger_slot(&ledger, 3, 5) == 5);
    CHECK(fc_ledger_follows(&ledger, 0, 4, 0));
    CHECK(fc_ledger_follows(&ledger, 1, 0, 0));
    fc_ledger_free(&ledger);
}

static void digests_are_equal_exactly_for_equal_orders(void)
{
    static const uint32_t orders[][4][2] = {
        {{0, 0}, {0, 1}, {1, 0}, {1, 1}},
        {{0, 0}, {1, 0}, {0, 1}, {1, 1}},
        {{1, 0}, {0, 0}, {0, 1}, {1, 1}},
    };
    uint64_t digests[4];
    for (unsigned i = 0; i < 4; i++) {
        struct fc_ledger ledger;
        /* The last has the order of the first, in a process with other senders of its own. */
        CHECK(fc_ledger_init(&ledger, 2, 2, i == 3, 1, 1) == 0);
        for (uint32_t place = 0; place < 4; place++)
            CHECK(fc_ledger_follows(&ledger, place, orders[i % 3][place][0], orders[i % 3][place][1]));
        digests[i] = fc_ledger_digest(&ledger);
        fc_ledger_free(&ledger);
    }
    CHECK(digests[0] == digests[3]);
    CHECK(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
}

static void a_digest_knows_how_far_the_order_came(void)
{
    struct fc_ledger ledger;
    CHECK(fc_ledger_init(&ledger, 2, 2, 0, 2, 1) == 0);
    uint64_t empty = fc_ledger_digest(&ledger);
    CHECK(fc_ledger_follows(&ledger, 0, 0, 0));
    CHECK(fc_ledger_digest(&ledger) != empty);
    fc_ledger_free(&ledger);
}

int main(void)
{
    only_own_senders_have_flights();
    digests_are_equal_exactly_for_equal_orders();
    a_digest_knows_how_far_the_order_came();
    one_sender_needs_no_log();
    the_first_receiver_sets_the_order_for_all();
    who_missed_a_message_does_not_set_the_order();
    a_stray_tells_new_from_late_from_again();
    strays_together_are_bounded();
    a_flight_ends_when_every_thread_has_arrived();
    return check_result();
}
