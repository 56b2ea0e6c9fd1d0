/* The inbox for Python: events taken whole, the limit told once, references given back. */
#include "inbox.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static struct fc_account account;
static struct fc_channels channels;

static struct fc_event event(uint64_t number)
{
    struct fc_message *message = fc_message_raw(&account, &number, sizeof number);
    struct fc_channel *channel = fc_channels_get(&channels, "/inbox", 6);

    CHECK(message && channel);
    return (struct fc_event){.client = number, .message = message, .origin = channel};
}

static void events_are_taken_in_order_and_give_their_references_back(void)
{
    struct fc_inbox inbox;
    struct fc_event *taken;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    fc_inbox_init(&inbox, SIZE_MAX);
    CHECK_EQ(fc_inbox_take(&inbox, &taken, &drained), 0);
    CHECK(!taken && !drained);
    for (uint64_t i = 0; i < 200; i += 2) {
        struct fc_event two[] = {event(i), event(i + 1)};
        CHECK_EQ(fc_inbox_put(&inbox, two, 2), 0);
    }
    CHECK_EQ(fc_inbox_take(&inbox, &taken, &drained), 200);
    for (uint64_t i = 0; i < 200; i++)
        CHECK_EQ(taken[i].client, i);
    fc_events_free(&channels, taken, 200);
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(channels.count, 0);

    struct fc_event left = event(1);
    CHECK_EQ(fc_inbox_put(&inbox, &left, 1), 0);
    fc_inbox_destroy(&inbox, &channels);
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

static void being_full_is_told_once_and_taking_ends_it(void)
{
    struct fc_inbox inbox;
    struct fc_event *taken;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    struct fc_event first = event(0);
    fc_inbox_init(&inbox, 2 * fc_message_weight(first.message));
    CHECK_EQ(fc_inbox_put(&inbox, &first, 1), 0);
    for (uint64_t i = 1; i < 6; i++) {
        struct fc_event more = event(i);
        CHECK_EQ(fc_inbox_put(&inbox, &more, 1), i == 2);
    }
    CHECK_EQ(fc_inbox_take(&inbox, &taken, &drained), 6);
    CHECK(drained);
    fc_events_free(&channels, taken, 6);
    CHECK_EQ(fc_inbox_take(&inbox, &taken, &drained), 0);
    CHECK(!drained);
    struct fc_event three[] = {event(0), event(1), event(2)};
    CHECK_EQ(fc_inbox_put(&inbox, three, 3), 1);
    fc_inbox_destroy(&inbox, &channels);
    fc_channels_destroy(&channels);
}

static void without_memory_nothing_is_added(void)
{
    struct fc_inbox inbox;
    struct fc_event *taken;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    fc_inbox_init(&inbox, 0);
    struct fc_event one = event(1);
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_inbox_put(&inbox, &one, 1), -ENOMEM);
    CHECK_EQ(fc_inbox_take(&inbox, &taken, &drained), 0);
    CHECK(!drained);
    CHECK_EQ(fc_inbox_put(&inbox, &one, 1), 1);
    fc_inbox_destroy(&inbox, &channels);
    fc_channels_destroy(&channels);
}

/* ---- threads ---- */

enum { WRITERS = 3, EVENTS = 30000 };

static struct fc_inbox shared;

static void *put_all(void *argument)
{
    uint64_t writer = (uint64_t)(uintptr_t)argument;
    uintptr_t filled = 0;

    for (uint64_t i = 0; i < EVENTS; i++) {
        struct fc_event one = event(writer << 32 | i);
        int result = fc_inbox_put(&shared, &one, 1);
        CHECK(result >= 0);
        filled += (uintptr_t)result;
    }
    return (void *)filled;
}

static void each_filling_is_followed_by_one_draining(void)
{
    pthread_t writers[WRITERS];
    uint64_t next[WRITERS] = {0};
    uint64_t seen = 0;
    uintptr_t fillings = 0;
    uintptr_t drainings = 0;

    CHECK_EQ(fc_channels_init(&channels, 1), 0);
    fc_inbox_init(&shared, 500);
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_create(&writers[i], NULL, put_all, (void *)i), 0);
    while (seen < (uint64_t)WRITERS * EVENTS) {
        struct fc_event *taken;
        bool drained;
        size_t n = fc_inbox_take(&shared, &taken, &drained);
        for (size_t i = 0; i < n; i++)
            CHECK_EQ(taken[i].client & UINT32_MAX, next[taken[i].client >> 32]++);
        drainings += drained;
        seen += n;
        fc_events_free(&channels, taken, n);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        void *filled;
        pthread_join(writers[i], &filled);
        fillings += (uintptr_t)filled;
    }
    CHECK_EQ(drainings, fillings);
    fc_inbox_destroy(&shared, &channels);
    CHECK_EQ(channels.count, 0);
    CHECK_EQ(account.messages, 0);
    fc_channels_destroy(&channels);
}

int main(void)
{
    RUN(events_are_taken_in_order_and_give_their_references_back);
    RUN(being_full_is_told_once_and_taking_ends_it);
    RUN(without_memory_nothing_is_added);
    RUN(each_filling_is_followed_by_one_draining);
    return 0;
}
