/* Mailboxes: commands taken in order, wake-ups asked for when they are needed, the backlog's two borders; and many
 * writers against one reader that sleeps. */
#include "mailbox.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

static void open_mailbox(struct fc_mailbox *mailbox, size_t limit)
{
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    CHECK(wake >= 0);
    fc_mailbox_init(mailbox, wake, limit);
}

static struct fc_command command(uint64_t number)
{
    return (struct fc_command){.kind = FC_COMMAND_CLOSE, .client = number, .token = ~number};
}

static void commands_are_taken_all_at_once_and_in_order(void)
{
    struct fc_mailbox mailbox;
    struct fc_command *taken = NULL;
    uint32_t capacity = 0;

    open_mailbox(&mailbox, 1000);
    CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 300; i += 3) {
            struct fc_command three[] = {command(i), command(i + 1), command(i + 2)};
            CHECK_EQ(fc_mailbox_put(&mailbox, three, 3, 0), 0);
        }
        CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 300);
        CHECK(capacity >= 300);
        for (uint64_t i = 0; i < 300; i++)
            CHECK(taken[i].client == i && taken[i].token == ~i);
    }
    free(taken);
    fc_mailbox_destroy(&mailbox);
}

static void only_a_sleeper_is_to_be_woken_and_once(void)
{
    struct fc_mailbox mailbox;
    struct fc_command one = command(1);
    struct fc_command *taken = NULL;
    uint32_t capacity = 0;

    open_mailbox(&mailbox, 1000);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 0), 0);
    CHECK(!fc_mailbox_sleep(&mailbox)); /* there is something to do */
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 0), 0);
    CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 2);
    CHECK(fc_mailbox_sleep(&mailbox));
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 0), FC_MAILBOX_WAKE);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 0), 0);
    CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 2);
    CHECK_EQ(fc_mailbox_rouse(&mailbox), 0);
    CHECK(fc_mailbox_sleep(&mailbox));
    CHECK_EQ(fc_mailbox_rouse(&mailbox), FC_MAILBOX_WAKE);
    CHECK_EQ(fc_mailbox_rouse(&mailbox), 0);
    CHECK(fc_mailbox_sleep(&mailbox));
    CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 0);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 0), 0); /* who takes is awake */
    free(taken);
    fc_mailbox_destroy(&mailbox);
}

static void a_signal_makes_the_eventfd_readable(void)
{
    struct fc_mailbox mailbox;

    open_mailbox(&mailbox, 1000);
    struct pollfd wake = {.fd = mailbox.wake, .events = POLLIN};
    CHECK_EQ(poll(&wake, 1, 0), 0);
    fc_mailbox_signal(&mailbox);
    fc_mailbox_signal(&mailbox);
    CHECK_EQ(poll(&wake, 1, 0), 1);
    fc_mailbox_destroy(&mailbox);
}

static void the_backlog_fills_at_its_limit_and_drains_at_half_of_it(void)
{
    struct fc_mailbox mailbox;
    struct fc_command one = command(1);

    open_mailbox(&mailbox, 100);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 100), 0);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 1), FC_MAILBOX_FILLED);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 50), 0);
    CHECK_EQ(fc_mailbox_settle(&mailbox, 100), 0);
    CHECK_EQ(fc_mailbox_settle(&mailbox, 1), FC_MAILBOX_DRAINED);
    CHECK_EQ(fc_mailbox_settle(&mailbox, 25), 0);
    CHECK_EQ(fc_mailbox_put(&mailbox, &one, 1, 76), FC_MAILBOX_FILLED);
    CHECK_EQ(fc_mailbox_settle(&mailbox, 101), FC_MAILBOX_DRAINED);
    CHECK_EQ(mailbox.backlog, 0);
    fc_mailbox_destroy(&mailbox);
}

static void without_memory_nothing_is_added(void)
{
    struct fc_mailbox mailbox;
    struct fc_command many[100];
    struct fc_command *taken = NULL;
    uint32_t capacity = 0;

    for (unsigned i = 0; i < 100; i++)
        many[i] = command(i);
    open_mailbox(&mailbox, 10);
    CHECK_EQ(fc_mailbox_put(&mailbox, many, 3, 3), 0);
    CHECK_EQ(fc_mailbox_take(&mailbox, &taken, &capacity), 3);
    CHECK(fc_mailbox_sleep(&mailbox));
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_mailbox_put(&mailbox, many, 100, 100), -ENOMEM);
    CHECK_EQ(mailbox.backlog, 3);
    CHECK_EQ(mailbox.count, 0);
    CHECK_EQ(fc_mailbox_put(&mailbox, many, 100, 0), FC_MAILBOX_WAKE);
    free(taken);
    fc_mailbox_destroy(&mailbox);
}

/* ---- threads ---- */

enum { WRITERS = 3, COMMANDS = 100000 };

static struct fc_mailbox shared;

static void *write_all(void *argument)
{
    uint64_t writer = (uint64_t)(uintptr_t)argument;

    for (uint64_t i = 0; i < COMMANDS; i += 2) {
        struct fc_command two[] = {command(writer << 32 | i), command(writer << 32 | (i + 1))};
        two[0].more = true;
        int flags = fc_mailbox_put(&shared, two, 2, 2);
        CHECK(flags >= 0);
        if (flags & FC_MAILBOX_WAKE)
            fc_mailbox_signal(&shared);
    }
    return NULL;
}

static void a_reader_that_sleeps_misses_nothing_and_pieces_stay_whole(void)
{
    pthread_t writers[WRITERS];
    uint64_t next[WRITERS] = {0};
    uint64_t seen = 0;
    uint64_t drained = 0;
    struct fc_command *taken = NULL;
    uint32_t capacity = 0;

    open_mailbox(&shared, 50);
    struct pollfd wake = {.fd = shared.wake, .events = POLLIN};
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_create(&writers[i], NULL, write_all, (void *)i), 0);
    while (seen < (uint64_t)WRITERS * COMMANDS) {
        eventfd_t ignored;
        if (fc_mailbox_sleep(&shared)) {
            CHECK_EQ(poll(&wake, 1, CHECK_PATIENCE_S * 1000), 1); /* a missed wake-up ends here */
            eventfd_read(shared.wake, &ignored);
        }
        uint32_t n = fc_mailbox_take(&shared, &taken, &capacity);
        for (uint32_t i = 0; i < n; i++) {
            uint64_t writer = taken[i].client >> 32;
            CHECK_EQ(taken[i].client & UINT32_MAX, next[writer]++);
            CHECK(!taken[i].more || (i + 1 < n && taken[i + 1].client == taken[i].client + 1)); /* in one piece */
        }
        drained += fc_mailbox_settle(&shared, n) == FC_MAILBOX_DRAINED;
        seen += n;
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    CHECK_EQ(shared.backlog, 0);
    CHECK(!shared.full);
    CHECK(drained <= seen / 25);
    free(taken);
    fc_mailbox_destroy(&shared);
}

int main(void)
{
    RUN(commands_are_taken_all_at_once_and_in_order);
    RUN(only_a_sleeper_is_to_be_woken_and_once);
    RUN(a_signal_makes_the_eventfd_readable);
    RUN(the_backlog_fills_at_its_limit_and_drains_at_half_of_it);
    RUN(without_memory_nothing_is_added);
    RUN(a_reader_that_sleeps_misses_nothing_and_pieces_stay_whole);
    return 0;
}
