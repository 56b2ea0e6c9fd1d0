/* The shared part of a hub without its shards: publishing to those who listen, congestion, what goes to Python;
 * one order for all shards, whoever publishes. */
#include "publish.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { SHARDS = 3 };

static struct fc_exchange exchange;

static int open_exchange(size_t max_backlog)
{
    struct fc_options options = {.shards = SHARDS, .listeners_each = 1, .max_backlog = max_backlog};

    return fc_exchange_init(&exchange, &options);
}

static void close_exchange(void)
{
    CHECK_EQ(exchange.channels.count, 0);
    CHECK_EQ(exchange.account.messages, 0);
    CHECK_EQ(exchange.account.bytes, 0);
    fc_exchange_destroy(&exchange);
}

static struct fc_channel *channel_with(uint32_t first, uint32_t second, uint32_t third)
{
    struct fc_channel *channel = fc_channels_get(&exchange.channels, "/x", 2);
    uint32_t members[] = {first, second, third};

    CHECK(channel);
    for (unsigned i = 0; i < SHARDS; i++)
        channel->seats[i].members = members[i];
    return channel;
}

static uint64_t publish(struct fc_channel *channel, struct fc_message *const *messages, unsigned n)
{
    return fc_publish(&exchange, &channel, 1, messages, n, NULL);
}

static int ask(uint64_t client, const void *head, size_t n)
{
    const struct fc_event request = {.client = client, .bytes = {head, n}};

    return fc_exchange_ask(&exchange, &request);
}

static struct fc_message *message(uint32_t number)
{
    return fc_message_frame(&exchange.account, FC_OP_BINARY, &number, sizeof number);
}

static uint32_t number_in(const struct fc_message *sent)
{
    uint32_t number;

    memcpy(&number, fc_message_wire(sent) + 2, sizeof number);
    return number;
}

/* Takes a shard's commands as its thread does, and drops them. */
static uint32_t take(unsigned shard, uint32_t *numbers, uint32_t most, size_t *weight)
{
    struct fc_command *commands = NULL;
    uint32_t capacity = 0;
    uint32_t n = fc_mailbox_take(&exchange.mailboxes[shard], &commands, &capacity);

    CHECK(n <= most);
    for (uint32_t i = 0; i < n; i++) {
        if (commands[i].message) {
            numbers[i] = number_in(commands[i].message);
            *weight += fc_message_weight(commands[i].message);
        }
        fc_message_unref(commands[i].message);
        fc_channel_unref(&exchange.channels, commands[i].channel);
    }
    free(commands);
    return n;
}

static void messages_go_to_shards_with_members_only(void)
{
    uint32_t numbers[10];
    size_t weight = 0;

    CHECK_EQ(open_exchange(1 << 20), 0);
    struct fc_channel *channel = channel_with(2, 0, 1);
    struct fc_message *three[] = {message(1), message(2), message(3)};
    CHECK_EQ(publish(channel, three, 3), 0);
    CHECK_EQ(take(0, numbers, 10, &weight), 3);
    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(numbers[i], i + 1);
    CHECK_EQ(take(1, numbers, 10, &weight), 0);
    CHECK_EQ(take(2, numbers, 10, &weight), 3);
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

static void what_nobody_takes_is_freed_at_the_end(void)
{
    CHECK_EQ(open_exchange(1 << 20), 0);
    struct fc_channel *channel = channel_with(1, 1, 1);
    struct fc_message *one = message(1);
    CHECK_EQ(publish(channel, &one, 1), 0);
    struct fc_command answer = {.kind = FC_COMMAND_ANSWER, .message = message(2), .channel = channel};
    CHECK_EQ(fc_exchange_command(&exchange, 1, &answer, 1, 0), 0);
    CHECK_EQ(ask(7, "GET", 3), 0);
    struct fc_message *two[] = {message(3), message(4)};
    CHECK_EQ(fc_exchange_hand_over(&exchange, 7, channel, two, 2), 0);
    fc_exchange_destroy(&exchange); /* the leak checks are the test */
}

static void congestion_lasts_until_every_mailbox_has_drained(void)
{
    uint32_t numbers[100];
    size_t first = 0;
    size_t third = 0;

    CHECK_EQ(open_exchange(4000), 0);
    struct fc_channel *channel = channel_with(1, 0, 1);
    while (!fc_exchange_congested(&exchange)) {
        struct fc_message *one = message(1);
        CHECK_EQ(publish(channel, &one, 1), 0);
    }
    CHECK(fc_mailbox_sleep(&exchange.mailboxes[1])); /* waits for the end of the congestion */
    uint32_t n = take(0, numbers, 100, &first);
    CHECK_EQ(take(2, numbers, 100, &third), n);
    CHECK(first > exchange.mailboxes[0].limit && first == third);
    fc_exchange_settle(&exchange, 0, first);
    CHECK(fc_exchange_congested(&exchange));
    struct pollfd wake = {.fd = exchange.mailboxes[1].wake, .events = POLLIN};
    CHECK_EQ(poll(&wake, 1, 0), 0);
    fc_exchange_settle(&exchange, 2, third / 4);
    CHECK(fc_exchange_congested(&exchange));
    fc_exchange_settle(&exchange, 2, third - third / 4);
    CHECK(!fc_exchange_congested(&exchange));
    CHECK_EQ(poll(&wake, 1, 0), 1);
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

static void what_python_does_not_take_is_congestion_too(void)
{
    struct fc_events *taken;
    uint32_t next = 0;

    CHECK_EQ(open_exchange(400000), 0);
    struct fc_channel *channel = channel_with(1, 0, 0);
    uint32_t n = 0;
    for (; !fc_exchange_congested(&exchange); n++) {
        struct fc_message *one = message(n);
        CHECK_EQ(fc_exchange_hand_over(&exchange, 5, channel, &one, 1), 0);
    }
    CHECK(n > FC_EVENTS);
    CHECK(fc_mailbox_sleep(&exchange.mailboxes[2]));
    struct pollfd wake = {.fd = exchange.mailboxes[2].wake, .events = POLLIN};
    while ((taken = fc_exchange_events(&exchange))) {
        CHECK(next > 0 || fc_exchange_congested(&exchange)); /* one piece isn't half of it */
        for (size_t i = 0; i < taken->count; i++, next++) {
            const struct fc_event *event = &taken->events[i];
            CHECK_BYTES(event->bytes.bytes, event->bytes.length, &next, sizeof next);
            CHECK_BYTES(event->channel.bytes, event->channel.length, "/x", 2);
            CHECK_EQ(event->client, 5);
            CHECK(!event->text);
        }
        fc_events_free(&exchange.channels, taken);
    }
    CHECK_EQ(next, n);
    CHECK(!fc_exchange_congested(&exchange));
    CHECK_EQ(poll(&wake, 1, 0), 1);
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

static void nothing_is_handed_over_once_python_has_stopped_listening(void)
{
    CHECK_EQ(open_exchange(1 << 20), 0);
    struct fc_channel *channel = channel_with(1, 0, 0);
    struct fc_message *one = message(1);
    atomic_store(&exchange.stopping, true);
    CHECK_EQ(fc_exchange_hand_over(&exchange, 5, channel, &one, 1), 0);
    CHECK(!fc_exchange_events(&exchange));
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

static void requests_make_the_event_fd_readable_and_are_taken_once(void)
{
    struct fc_events *taken;

    CHECK_EQ(open_exchange(1 << 20), 0);
    struct pollfd news = {.fd = exchange.event_fd, .events = POLLIN};
    for (uint64_t i = 0; i < 100; i++)
        CHECK_EQ(ask(i, "GET / HTTP/1.1", i % 15), 0);
    CHECK_EQ(poll(&news, 1, 0), 0);
    fc_exchange_notify(&exchange);
    fc_exchange_notify(&exchange);
    CHECK_EQ(poll(&news, 1, 0), 1);
    fc_exchange_reset(&exchange);
    CHECK_EQ(poll(&news, 1, 0), 0);
    taken = fc_exchange_requests(&exchange);
    CHECK_EQ(taken->count, 100);
    for (uint64_t i = 0; i < 100; i++) {
        const struct fc_event *event = &taken->events[i];
        CHECK_EQ(event->client, i);
        CHECK_BYTES(event->bytes.bytes, event->bytes.length, "GET / HTTP/1.1", i % 15);
    }
    fc_events_free(&exchange.channels, taken);
    CHECK(!fc_exchange_requests(&exchange));
    close_exchange();
}

/* Requests whose clients may have given up long ago: while too many of them wait, shards ask no more. */
static void requests_that_python_leaves_hold_the_shards(void)
{
    static const uint8_t head[1000] = "GET";
    struct fc_events *taken;
    uint64_t asked = 0;
    uint64_t next = 0;

    CHECK_EQ(open_exchange(1 << 20), 0);
    for (; !fc_exchange_held(&exchange); asked++)
        CHECK_EQ(ask(asked, head, sizeof head), 0);
    CHECK(asked > FC_ASKED_MAX);
    CHECK(!fc_exchange_congested(&exchange)); /* what is no request goes on */
    CHECK(fc_mailbox_sleep(&exchange.mailboxes[1]));
    struct pollfd wake = {.fd = exchange.mailboxes[1].wake, .events = POLLIN};
    while ((taken = fc_exchange_requests(&exchange))) {
        CHECK(next > 0 || fc_exchange_held(&exchange));
        for (size_t i = 0; i < taken->count; i++)
            CHECK_EQ(taken->events[i].client, next++);
        fc_events_free(&exchange.channels, taken);
    }
    CHECK_EQ(next, asked);
    CHECK(!fc_exchange_held(&exchange));
    CHECK_EQ(poll(&wake, 1, 0), 1);
    close_exchange();
}

static void places_are_promised_once_and_first_where_there_are_most(void)
{
    CHECK_EQ(open_exchange(1 << 20), 0);
    CHECK_EQ(fc_exchange_reserve_any(&exchange), -1);
    CHECK(!fc_exchange_reserve(&exchange, 1));
    atomic_store(&exchange.vacant[0], 1);
    atomic_store(&exchange.vacant[1], 2);
    CHECK_EQ(fc_exchange_reserve_any(&exchange), 1);
    CHECK(fc_exchange_reserve(&exchange, 1));
    CHECK(!fc_exchange_reserve(&exchange, 1));
    CHECK_EQ(fc_exchange_reserve_any(&exchange), 0);
    CHECK_EQ(fc_exchange_reserve_any(&exchange), -1);
    fc_exchange_vacate(&exchange, 2);
    CHECK_EQ(fc_exchange_reserve_any(&exchange), 2);
    CHECK(!fc_exchange_reserve(&exchange, 2));
    close_exchange();
}

/* ---- missing memory and fds ---- */

static bool publish_and_hand_over(void)
{
    bool succeeded = true;
    uint32_t numbers[10];
    size_t weight[SHARDS] = {0};

    if (open_exchange(1 << 20))
        return false;
    struct fc_channel *channel = fc_channels_get(&exchange.channels, "/x", 2);
    struct fc_message *published = message(1);
    struct fc_message *handed = message(2);
    struct fc_command answer = {.kind = FC_COMMAND_ANSWER, .message = message(3)};
    if (channel && published && handed && answer.message) {
        channel->seats[0].members = 4;
        channel->seats[2].members = 5;
        uint64_t lost = publish(channel, &published, 1);
        CHECK(lost == 0 || lost == 4 || lost == 5);
        int error = fc_exchange_hand_over(&exchange, 1, channel, &handed, 1);
        CHECK(error == 0 || error == -ENOMEM);
        int second = fc_exchange_command(&exchange, 1, &answer, 1, 0);
        CHECK(second == 0 || second == -ENOMEM);
        int third = ask(1, "GET", 3);
        CHECK(third == 0 || third == -ENOMEM);
        succeeded = !lost && !error && !second && !third;
    } else {
        fc_message_unref(published);
        fc_message_unref(handed);
        fc_message_unref(answer.message);
        succeeded = false;
    }
    fc_channel_unref(&exchange.channels, channel);
    for (unsigned i = 0; i < SHARDS; i++)
        take(i, numbers, 10, &weight[i]);
    fc_events_free(&exchange.channels, fc_exchange_events(&exchange));
    fc_events_free(&exchange.channels, fc_exchange_requests(&exchange));
    close_exchange();
    return succeeded;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    CHECK(check_each_allocation(publish_and_hand_over) >= 13);
}

static void missing_fds_are_an_error_and_nothing_leaks(void)
{
    for (unsigned long n = 0; n <= SHARDS; n++) {
        fault_clear();
        fault_arm(FAULT_EVENTFD, n, 1, EMFILE);
        CHECK_EQ(open_exchange(1 << 20), -EMFILE);
    }
    fault_clear();
    CHECK_EQ(open_exchange(1 << 20), 0);
    CHECK_EQ(fault_calls(FAULT_EVENTFD), SHARDS + 1);
    close_exchange();
}

/* ---- threads ---- */

enum { PLACES = 1000 };

static void *reserve_all(void *argument)
{
    uintptr_t mine = 0;

    (void)argument;
    while (fc_exchange_reserve_any(&exchange) >= 0)
        mine++;
    return (void *)mine;
}

static void no_place_is_promised_to_two(void)
{
    pthread_t threads[3];
    uintptr_t sum = 0;

    CHECK_EQ(open_exchange(1 << 20), 0);
    for (unsigned i = 0; i < SHARDS; i++)
        atomic_store(&exchange.vacant[i], PLACES);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, reserve_all, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        void *reserved;
        pthread_join(threads[i], &reserved);
        sum += (uintptr_t)reserved;
    }
    CHECK_EQ(sum, SHARDS * PLACES);
    close_exchange();
}

enum { PUBLISHERS = 3, MESSAGES = 20000 };

static uint32_t heard[SHARDS][PUBLISHERS * MESSAGES];

static void *publish_all(void *argument)
{
    uint32_t publisher = (uint32_t)(uintptr_t)argument;
    struct fc_channel *channel = fc_channels_get(&exchange.channels, "/x", 2);

    for (uint32_t i = 0; i < MESSAGES; i += 2) {
        struct fc_message *two[] = {message(publisher * MESSAGES + i), message(publisher * MESSAGES + i + 1)};
        CHECK_EQ(publish(channel, two, 2), 0);
    }
    fc_channel_unref(&exchange.channels, channel);
    return NULL;
}

/* Does what a shard's loop does with its mailbox. */
static void *listen_to_all(void *argument)
{
    unsigned shard = (unsigned)(uintptr_t)argument;
    struct fc_mailbox *mailbox = &exchange.mailboxes[shard];
    struct pollfd wake = {.fd = mailbox->wake, .events = POLLIN};
    uint32_t n = 0;

    while (n < PUBLISHERS * MESSAGES) {
        eventfd_t ignored;
        size_t weight = 0;
        if (fc_mailbox_sleep(mailbox)) {
            CHECK_EQ(poll(&wake, 1, CHECK_PATIENCE_S * 1000), 1);
            eventfd_read(mailbox->wake, &ignored);
        }
        n += take(shard, heard[shard] + n, PUBLISHERS * MESSAGES - n, &weight);
        fc_exchange_settle(&exchange, shard, weight);
    }
    return NULL;
}

static void all_shards_hear_all_publishers_in_one_order(void)
{
    pthread_t publishers[PUBLISHERS];
    pthread_t listeners[SHARDS];
    uint32_t next[PUBLISHERS] = {0};

    CHECK_EQ(open_exchange(1 << 16), 0);
    struct fc_channel *channel = channel_with(1, 1, 1);
    for (uintptr_t i = 0; i < SHARDS; i++)
        CHECK_EQ(pthread_create(&listeners[i], NULL, listen_to_all, (void *)i), 0);
    for (uintptr_t i = 0; i < PUBLISHERS; i++)
        CHECK_EQ(pthread_create(&publishers[i], NULL, publish_all, (void *)i), 0);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        pthread_join(publishers[i], NULL);
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_join(listeners[i], NULL);
    CHECK_BYTES(heard[1], sizeof heard[1], heard[0], sizeof heard[0]);
    CHECK_BYTES(heard[2], sizeof heard[2], heard[0], sizeof heard[0]);
    for (uint32_t i = 0; i < PUBLISHERS * MESSAGES; i++) {
        uint32_t publisher = heard[0][i] / MESSAGES;
        CHECK_EQ(heard[0][i] % MESSAGES, next[publisher]++);
    }
    CHECK(!fc_exchange_congested(&exchange));
    CHECK_EQ(exchange.congested, 0);
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

int main(void)
{
    RUN(messages_go_to_shards_with_members_only);
    RUN(what_nobody_takes_is_freed_at_the_end);
    RUN(congestion_lasts_until_every_mailbox_has_drained);
    RUN(what_python_does_not_take_is_congestion_too);
    RUN(nothing_is_handed_over_once_python_has_stopped_listening);
    RUN(requests_make_the_event_fd_readable_and_are_taken_once);
    RUN(requests_that_python_leaves_hold_the_shards);
    RUN(places_are_promised_once_and_first_where_there_are_most);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    RUN(missing_fds_are_an_error_and_nothing_leaks);
    RUN(no_place_is_promised_to_two);
    RUN(all_shards_hear_all_publishers_in_one_order);
    return 0;
}
