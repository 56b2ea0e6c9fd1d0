/* Counts of clients by address: the limit, entries that go with their last client, growth, missing memory; and threads
 * that take and give back the same addresses. */
#include "address.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

static struct fc_address *take(struct fc_addresses *addresses, const char *text, uint32_t most)
{
    struct fc_address *address = NULL;

    CHECK_EQ(fc_addresses_take(addresses, span(text), most, &address), 0);
    CHECK_BYTES(address->text, address->length, text, strlen(text));
    return address;
}

static void close_addresses(struct fc_addresses *addresses)
{
    CHECK_EQ(addresses->count, 0);
    fc_addresses_destroy(addresses);
    fc_addresses_destroy(addresses); /* as after an exchange that failed to open */
}

static void an_address_has_no_more_clients_than_it_may(void)
{
    struct fc_addresses addresses;
    struct fc_address *first;
    struct fc_address *none = NULL;

    CHECK_EQ(fc_addresses_init(&addresses, 1), 0);
    first = take(&addresses, "192.0.2.1", 2);
    CHECK(take(&addresses, "192.0.2.1", 2) == first);
    CHECK_EQ(fc_addresses_take(&addresses, span("192.0.2.1"), 2, &none), -EBUSY);
    CHECK(!none);
    CHECK_EQ(fc_addresses_count(&addresses, span("192.0.2.1")), 2);
    fc_addresses_give(&addresses, first);
    CHECK(take(&addresses, "192.0.2.1", 2) == first);
    CHECK_EQ(fc_addresses_take(&addresses, span("192.0.2.1"), 1, &none), -EBUSY);
    CHECK(take(&addresses, "192.0.2.1", UINT32_MAX) == first);
    for (unsigned i = 0; i < 3; i++)
        fc_addresses_give(&addresses, first);
    fc_addresses_give(&addresses, NULL);
    close_addresses(&addresses);
}

static void an_address_is_there_while_it_has_clients(void)
{
    struct fc_addresses addresses;

    CHECK_EQ(fc_addresses_init(&addresses, 2), 0);
    CHECK_EQ(fc_addresses_count(&addresses, span("::1")), 0);
    CHECK_EQ(addresses.count, 0);
    for (unsigned i = 0; i < 3; i++) {
        struct fc_address *address = take(&addresses, "::1", 1);
        CHECK_EQ(addresses.count, 1);
        CHECK_EQ(fc_addresses_count(&addresses, span("::1")), 1);
        fc_addresses_give(&addresses, address);
        CHECK_EQ(addresses.count, 0);
        CHECK_EQ(fc_addresses_count(&addresses, span("::1")), 0);
    }
    close_addresses(&addresses);
}

static void addresses_are_bytes_with_a_length(void)
{
    static const struct fc_span texts[] = {{"1", 1}, {"1.1", 3}, {"1.11", 4}, {"a\0b", 3}, {"a\0c", 3}, {"", 0}};
    struct fc_address *taken[6];
    struct fc_addresses addresses;

    CHECK_EQ(fc_addresses_init(&addresses, 3), 0);
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(fc_addresses_take(&addresses, texts[i], 1, &taken[i]), 0);
    CHECK_EQ(addresses.count, 6);
    for (unsigned i = 0; i < 6; i++) {
        CHECK_EQ(fc_addresses_count(&addresses, texts[i]), 1);
        fc_addresses_give(&addresses, taken[i]);
        CHECK_EQ(fc_addresses_count(&addresses, texts[i]), 0);
    }
    close_addresses(&addresses);
}

static void the_table_grows_and_no_count_is_lost(void)
{
    enum { MANY = 3000 };
    static struct fc_address *taken[MANY];
    struct fc_addresses addresses;
    char text[32];

    CHECK_EQ(fc_addresses_init(&addresses, 4), 0);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "10.0.%u.%u", i / 256, i % 256);
        if (i == 128) /* longer chains are the only harm */
            fault_arm(FAULT_ALLOCATION, 1, 1, ENOMEM);
        taken[i] = take(&addresses, text, 2);
        for (unsigned k = 0; k < i % 2; k++)
            CHECK(take(&addresses, text, 2) == taken[i]);
    }
    CHECK_EQ(fault_injected(FAULT_ALLOCATION), 1);
    CHECK(addresses.bucket_count >= MANY / 2);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "10.0.%u.%u", i / 256, i % 256);
        CHECK_EQ(fc_addresses_count(&addresses, span(text)), 1 + i % 2);
        for (unsigned k = 0; k <= i % 2; k++)
            fc_addresses_give(&addresses, taken[i]);
    }
    close_addresses(&addresses);
}

static bool take_some(void)
{
    struct fc_addresses addresses;
    struct fc_address *taken[30];
    unsigned n = 0;
    char text[16];

    if (fc_addresses_init(&addresses, 5)) {
        fc_addresses_destroy(&addresses); /* as the exchange does */
        return false;
    }
    for (unsigned i = 0; i < 30; i++) {
        snprintf(text, sizeof text, "%u", i / 2);
        struct fc_address *address = NULL;
        int error = fc_addresses_take(&addresses, span(text), 2, &address);
        CHECK(error == (address ? 0 : -ENOMEM));
        taken[n] = address;
        n += address != NULL;
    }
    for (unsigned i = 0; i < n; i++)
        fc_addresses_give(&addresses, taken[i]);
    close_addresses(&addresses);
    return n == 30;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(take_some), 1 + 15);
}

/* ---- threads ---- */

enum { THREADS = 4, ADDRESSES = 3, MOST = 2, ROUNDS = 100000 };

static struct fc_addresses shared;
static atomic_uint holders[ADDRESSES];

static void *come_and_go(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument;
    uintptr_t let_in = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned which = (unsigned)(check_random(&seed) % ADDRESSES);
        char text = (char)('a' + which);
        struct fc_address *address = NULL;
        int error = fc_addresses_take(&shared, (struct fc_span){&text, 1}, MOST, &address);
        if (error) {
            CHECK_EQ(error, -EBUSY);
            continue;
        }
        /* Relaxed: the counts order nothing, so that TSan sees what the table's lock doesn't order. */
        CHECK(atomic_fetch_add_explicit(&holders[which], 1, memory_order_relaxed) < MOST);
        CHECK_EQ(address->text[0], text);
        uint32_t count = fc_addresses_count(&shared, (struct fc_span){&text, 1});
        CHECK(count >= 1 && count <= MOST);
        atomic_fetch_sub_explicit(&holders[which], 1, memory_order_relaxed);
        fc_addresses_give(&shared, address);
        let_in++;
    }
    return (void *)let_in;
}

static void threads_never_let_in_more_than_the_limit_and_the_last_frees(void)
{
    pthread_t threads[THREADS];
    uintptr_t let_in = 0;

    CHECK_EQ(fc_addresses_init(&shared, 6), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *mine;
        pthread_join(threads[i], &mine);
        let_in += (uintptr_t)mine;
    }
    CHECK(let_in > ROUNDS);
    close_addresses(&shared);
}

int main(void)
{
    RUN(an_address_has_no_more_clients_than_it_may);
    RUN(an_address_is_there_while_it_has_clients);
    RUN(addresses_are_bytes_with_a_length);
    RUN(the_table_grows_and_no_count_is_lost);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    RUN(threads_never_let_in_more_than_the_limit_and_the_last_frees);
    return 0;
}
