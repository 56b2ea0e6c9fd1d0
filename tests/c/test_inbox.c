/* The inbox for Python: events taken whole, the limit told once, references given back. */
#include "inbox.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static struct fc_account account;
static struct fc_channels channels;
static const struct fc_rule rule = {.channels = {">", 1}};

static struct fc_event event(uint64_t number)
{
    struct fc_message *message = fc_message_raw(&account, &number, sizeof number);
    struct fc_channel *channel = fc_channels_get(&channels, "/inbox", 6);

    CHECK(message && channel);
    return (struct fc_event){.client = number, .message = message, .origin = channel};
}

static void put(struct fc_inbox *inbox, uint64_t number, int expected)
{
    struct fc_event one = event(number);

    CHECK_EQ(fc_inbox_put(inbox, &one, 1), expected);
}

static void events_are_taken_in_order_and_give_their_references_back(void)
{
    struct fc_inbox inbox;
    struct fc_events *taken;
    uint64_t next = 0;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    fc_inbox_init(&inbox, SIZE_MAX);
    CHECK(!fc_inbox_take(&inbox, &drained));
    for (uint64_t i = 0; i < 999; i += 3) {
        struct fc_event three[] = {event(i), event(i + 1), event(i + 2)};
        CHECK_EQ(fc_inbox_put(&inbox, three, 3), 0);
    }
    while ((taken = fc_inbox_take(&inbox, &drained))) {
        CHECK(taken->count > 0 && taken->count <= FC_EVENTS);
        CHECK(!drained);
        for (size_t i = 0; i < taken->count; i++)
            CHECK_EQ(taken->events[i].client, next++);
        fc_events_free(&channels, taken);
    }
    CHECK_EQ(next, 999);
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(channels.count, 0);

    put(&inbox, 1, 0);
    fc_inbox_destroy(&inbox, &channels);
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(channels.count, 0);
    fc_channels_destroy(&channels);
}

/* Full beyond the limit, and no more at half of it; each told once. */
static void being_full_is_told_once_and_so_is_its_end(void)
{
    struct fc_inbox inbox;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    fc_inbox_init(&inbox, SIZE_MAX);
    put(&inbox, 0, 0);
    size_t weight = inbox.weight;
    CHECK(weight > sizeof(struct fc_event));
    inbox.limit = 3 * FC_EVENTS * weight;
    for (uint64_t i = 1; i < 4 * FC_EVENTS; i++)
        put(&inbox, i, i == 3 * FC_EVENTS);
    for (unsigned pieces = 4; pieces > 0; pieces--) {
        fc_events_free(&channels, fc_inbox_take(&inbox, &drained));
        CHECK_EQ(drained, pieces - 1 == 1);
    }
    CHECK(!fc_inbox_take(&inbox, &drained));
    CHECK(!drained);
    CHECK_EQ(inbox.weight, 0);
    fc_inbox_destroy(&inbox, &channels);
    fc_channels_destroy(&channels);
}

static void events_need_neither_a_message_nor_a_channel(void)
{
    static const struct fc_event bare = {.kind = FC_EVENT_FLUSHED, .client = 3, .number = 4};
    struct fc_inbox inbox;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    fc_inbox_init(&inbox, 2 * sizeof bare);
    struct fc_event said = event(5);
    fc_channel_unref(&channels, said.origin);
    said.origin = NULL;
    CHECK_EQ(fc_inbox_put(&inbox, (struct fc_event[]){bare, bare}, 2), 0);
    CHECK_EQ(inbox.weight, 2 * sizeof bare);
    CHECK_EQ(fc_inbox_put(&inbox, &said, 1), 1);
    struct fc_events *taken = fc_inbox_take(&inbox, &drained);
    CHECK(drained);
    CHECK_EQ(taken->count, 3);
    CHECK_EQ(taken->events[1].kind, FC_EVENT_FLUSHED);
    CHECK_EQ(taken->events[1].number, 4);
    CHECK_EQ(taken->events[2].client, 5);
    fc_events_free(&channels, taken);
    CHECK_EQ(fc_inbox_put(&inbox, &bare, 1), 0);
    fc_inbox_destroy(&inbox, &channels);
    fc_events_free(&channels, NULL);
    CHECK_EQ(account.messages, 0);
    fc_channels_destroy(&channels);
}

static void without_memory_nothing_is_added(void)
{
    struct fc_inbox inbox;
    bool drained;

    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    fc_inbox_init(&inbox, 0);
    struct fc_event one = event(1);
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_inbox_put(&inbox, &one, 1), -ENOMEM);
    CHECK_EQ(inbox.weight, 0);
    CHECK(!fc_inbox_take(&inbox, &drained));
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

    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    fc_inbox_init(&shared, 100000);
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_create(&writers[i], NULL, put_all, (void *)i), 0);
    while (seen < (uint64_t)WRITERS * EVENTS) {
        bool drained;
        struct fc_events *taken = fc_inbox_take(&shared, &drained);
        for (size_t i = 0; taken && i < taken->count; i++, seen++)
            CHECK_EQ(taken->events[i].client & UINT32_MAX, next[taken->events[i].client >> 32]++);
        drainings += drained;
        fc_events_free(&channels, taken);
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
    RUN(being_full_is_told_once_and_so_is_its_end);
    RUN(events_need_neither_a_message_nor_a_channel);
    RUN(without_memory_nothing_is_added);
    RUN(each_filling_is_followed_by_one_draining);
    return 0;
}
