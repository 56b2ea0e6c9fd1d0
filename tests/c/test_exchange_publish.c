/* The shared part of a hub: one message to several channels in one piece, commands with all that they hold, events of
 * every kind, rules; and threads that publish to overlapping channels. */
#include "publish.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { SHARDS = 3, CHANNELS = 3 };

static struct fc_exchange exchange;
static struct fc_channel *channels[CHANNELS];

static int open_with(const struct fc_rule *rules, unsigned rule_count)
{
    struct fc_options options = {.shards = SHARDS,
                                 .listeners_each = 1,
                                 .max_backlog = 1 << 22,
                                 .rules = rules,
                                 .rule_count = rule_count,
                                 .policy = FC_POLICY_DROP_NEWEST,
                                 .max_queue = 1234,
                                 .max_messages = 56};

    return fc_exchange_init(&exchange, &options);
}

/* members[k][shard] */
static void open_channels(const uint32_t members[CHANNELS][SHARDS])
{
    CHECK_EQ(open_with(NULL, 0), 0);
    for (unsigned k = 0; k < CHANNELS; k++) {
        channels[k] = fc_channels_get(&exchange.channels, &"abc"[k], 1);
        for (unsigned shard = 0; shard < SHARDS; shard++)
            channels[k]->seats[shard].members = members[k][shard];
    }
}

static void close_exchange(void)
{
    CHECK_EQ(exchange.channels.count, 0);
    CHECK_EQ(exchange.addresses.count, 0);
    CHECK_EQ(exchange.account.messages, 0);
    fc_exchange_destroy(&exchange);
}

static void close_channels(void)
{
    for (unsigned k = 0; k < CHANNELS; k++) {
        CHECK_EQ(channels[k]->references, 1);
        fc_channel_unref(&exchange.channels, channels[k]);
    }
    close_exchange();
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

static unsigned index_of(const struct fc_channel *channel)
{
    unsigned k = 0;

    while (k < CHANNELS && channels[k] != channel)
        k++;
    return k;
}

struct taken {
    struct fc_command *commands;
    uint32_t count;
};

static struct taken take(unsigned shard)
{
    struct taken taken = {0};
    uint32_t capacity = 0;

    taken.count = fc_mailbox_take(&exchange.mailboxes[shard], &taken.commands, &capacity);
    return taken;
}

static void drop(struct taken *taken)
{
    for (uint32_t i = 0; i < taken->count; i++)
        fc_exchange_drop_command(&exchange, &taken->commands[i]);
    free(taken->commands);
}

static void one_message_to_several_channels_lies_side_by_side(void)
{
    static const uint32_t members[CHANNELS][SHARDS] = {{1, 0, 10}, {2, 0, 20}, {0, 0, 30}};
    uint64_t reached = 7;

    open_channels(members);
    struct fc_channel *audience[CHANNELS] = {channels[2], channels[0], channels[1]};
    struct fc_message *two[] = {message(1), message(2)};
    size_t weight = fc_message_weight(two[0]);
    CHECK_EQ(fc_publish(&exchange, audience, CHANNELS, two, 2, &reached), 0);
    CHECK_EQ(reached, 2 * 63);
    for (unsigned k = 1; k < CHANNELS; k++)
        CHECK((uintptr_t)audience[k - 1] < (uintptr_t)audience[k]);
    static const unsigned there[SHARDS] = {2, 0, 3};
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        CHECK_EQ(exchange.mailboxes[shard].backlog, 2 * there[shard] * weight); /* settled for each room */
        struct taken taken = take(shard);
        CHECK_EQ(taken.count, 2 * there[shard]);
        for (uint32_t i = 0; i < taken.count; i++) {
            const struct fc_command *command = &taken.commands[i];
            CHECK_EQ(command->kind, FC_COMMAND_PUBLISH);
            CHECK_EQ(number_in(command->message), 1 + i / there[shard]);
            CHECK_EQ(command->more, (i + 1) % there[shard] != 0);
            CHECK(members[index_of(command->channel)][shard] > 0);
            if (i % there[shard] > 0)
                CHECK((uintptr_t)taken.commands[i - 1].channel < (uintptr_t)command->channel);
        }
        drop(&taken);
    }
    close_channels();
}

static void nobody_hears_what_has_no_channel_or_no_members(void)
{
    static const uint32_t members[CHANNELS][SHARDS] = {{0}};
    uint64_t reached = 7;

    open_channels(members);
    struct fc_message *one = message(1);
    CHECK_EQ(fc_publish(&exchange, NULL, 0, &one, 1, &reached), 0);
    CHECK_EQ(reached, 0);
    one = message(2);
    reached = 7;
    CHECK_EQ(fc_publish(&exchange, channels, 2, &one, 1, &reached), 0);
    CHECK_EQ(reached, 0);
    one = message(3);
    CHECK_EQ(fc_publish(&exchange, channels, 1, &one, 1, NULL), 0);
    CHECK_EQ(exchange.account.messages, 0);
    for (unsigned shard = 0; shard < SHARDS; shard++)
        CHECK_EQ(exchange.mailboxes[shard].count, 0);
    close_channels();
}

/* FC_PUBLISH_MAX messages to three channels are more commands than usual. */
static unsigned long publish_many(unsigned long skip, uint64_t *lost, uint64_t *reached)
{
    struct fc_message *many[FC_PUBLISH_MAX];
    struct fc_channel *audience[CHANNELS];

    memcpy(audience, channels, sizeof audience);
    for (uint32_t i = 0; i < FC_PUBLISH_MAX; i++)
        many[i] = message(i);
    fault_clear();
    fault_arm(FAULT_ALLOCATION, skip, 1, ENOMEM);
    *lost = fc_publish(&exchange, audience, CHANNELS, many, FC_PUBLISH_MAX, reached);
    unsigned long injected = fault_injected(FAULT_ALLOCATION);
    fault_clear();
    return injected;
}

static void a_shard_that_cannot_be_told_loses_its_members_share(void)
{
    static const uint32_t members[CHANNELS][SHARDS] = {{1, 100, 10000}, {2, 200, 20000}, {4, 400, 40000}};
    static const uint64_t share[SHARDS] = {7, 700, 70000};
    uint64_t lost;
    uint64_t reached;
    unsigned failures[SHARDS] = {0};

    for (unsigned long skip = 0;; skip++) {
        open_channels(members);
        unsigned long injected = publish_many(skip, &lost, &reached);
        CHECK_EQ(lost + reached, (uint64_t)FC_PUBLISH_MAX * 70707);
        for (unsigned shard = 0; shard < SHARDS; shard++) {
            struct taken taken = take(shard);
            if (taken.count == 0) {
                CHECK_EQ(lost, FC_PUBLISH_MAX * share[shard]);
                CHECK_EQ(exchange.mailboxes[shard].backlog, 0);
                failures[shard]++;
            }
            CHECK(taken.count == 0 || taken.count == CHANNELS * FC_PUBLISH_MAX);
            for (uint32_t i = 0; i < taken.count; i++) {
                CHECK_EQ(number_in(taken.commands[i].message), i / CHANNELS);
                CHECK_EQ(taken.commands[i].more, i % CHANNELS < CHANNELS - 1);
            }
            drop(&taken);
        }
        close_channels();
        if (injected == 0) {
            CHECK_EQ(lost, 0);
            break;
        }
        CHECK(lost > 0);
    }
    for (unsigned shard = 0; shard < SHARDS; shard++)
        CHECK_EQ(failures[shard], 2); /* the commands, the mailbox */
}

/* ---- commands ---- */

static struct fc_admission *admission_to(unsigned count)
{
    struct fc_admission *admission = calloc(1, sizeof *admission + count * sizeof(struct fc_channel *));

    CHECK_EQ(fc_addresses_take(&exchange.addresses, (struct fc_span){"::1", 3}, 5, &admission->address), 0);
    admission->count = count;
    for (unsigned i = 0; i < count; i++)
        admission->channels[i] = fc_channels_get(&exchange.channels, &"abc"[i], 1);
    return admission;
}

static void a_command_that_is_not_obeyed_gives_everything_back(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    for (unsigned count = 0; count <= CHANNELS; count++) {
        struct fc_command answer = {
            .kind = FC_COMMAND_ANSWER, .message = message(1), .admission = admission_to(count)};
        CHECK_EQ(exchange.channels.count, count);
        fc_exchange_drop_command(&exchange, &answer);
        CHECK_EQ(exchange.channels.count, 0);
        CHECK_EQ(exchange.addresses.count, 0);
        CHECK_EQ(exchange.account.messages, 0);
    }
    struct fc_command by_token = {.kind = FC_COMMAND_FLUSH, .token = 12345}; /* in the place of an admission */
    fc_exchange_drop_command(&exchange, &by_token);
    struct fc_command subscribe = {.kind = FC_COMMAND_SUBSCRIBE,
                                   .channel = fc_channels_get(&exchange.channels, "a", 1)};
    fc_exchange_drop_command(&exchange, &subscribe);
    close_exchange();
}

static void a_command_without_memory_gives_everything_back_too(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    struct fc_command two[] = {
        {.kind = FC_COMMAND_ANSWER, .message = message(1), .admission = admission_to(2)},
        {.kind = FC_COMMAND_SEND, .message = message(2)},
    };
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_exchange_command(&exchange, 1, two, 2, 100), -ENOMEM);
    CHECK_EQ(exchange.mailboxes[1].backlog, 0);
    close_exchange();
}

static void commands_count_for_the_backlog_with_their_weight(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    size_t limit = exchange.mailboxes[1].limit;
    struct fc_command send = {.kind = FC_COMMAND_SEND, .message = message(1)};
    CHECK_EQ(fc_exchange_command(&exchange, 1, &send, 1, limit + 1), 0);
    CHECK_EQ(exchange.mailboxes[1].backlog, limit + 1);
    CHECK(fc_exchange_congested(&exchange));
    struct taken taken = take(1);
    CHECK_EQ(taken.count, 1);
    drop(&taken);
    fc_exchange_settle(&exchange, 1, limit + 1);
    CHECK(!fc_exchange_congested(&exchange));
    close_exchange();
}

static void commands_and_events_that_nobody_takes_are_freed_at_the_end(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    struct fc_command answer = {.kind = FC_COMMAND_ANSWER, .message = message(1), .admission = admission_to(3)};
    CHECK_EQ(fc_exchange_command(&exchange, 2, &answer, 1, 0), 0);
    struct fc_event joined = {.kind = FC_EVENT_JOINED, .origin = fc_channels_get(&exchange.channels, "a", 1)};
    CHECK_EQ(fc_exchange_tell(&exchange, &joined), 0);
    struct fc_channel *everyone = fc_channel_ref(exchange.everyone);
    struct fc_command to_all = {.kind = FC_COMMAND_PUBLISH, .channel = everyone, .message = message(2)};
    CHECK_EQ(fc_exchange_command(&exchange, 0, &to_all, 1, 0), 0);
    fc_exchange_destroy(&exchange); /* the leak checks are the test */
}

/* ---- events ---- */

static void requests_are_copied_with_where_they_are_from(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    char head[] = "GET / HTTP/1.1\r\n\r\n";
    char remote[] = "192.0.2.1";
    struct fc_event request = {.client = 9,
                               .port = 4711,
                               .bytes = {head, sizeof head - 1},
                               .remote = {remote, sizeof remote - 1}};
    CHECK_EQ(fc_exchange_ask(&exchange, &request), 0);
    request.remote = (struct fc_span){0};
    CHECK_EQ(fc_exchange_ask(&exchange, &request), 0);
    memset(head, 'x', sizeof head);
    memset(remote, 'x', sizeof remote);
    struct fc_events *taken = fc_exchange_requests(&exchange);
    CHECK_EQ(taken->count, 2);
    for (unsigned i = 0; i < 2; i++) {
        const struct fc_event *event = &taken->events[i];
        CHECK_EQ(event->kind, FC_EVENT_REQUEST);
        CHECK_EQ(event->client, 9);
        CHECK_EQ(event->port, 4711);
        CHECK_BYTES(event->bytes.bytes, event->bytes.length, "GET / HTTP/1.1\r\n\r\n", 18);
        CHECK_BYTES(event->remote.bytes, event->remote.length, "192.0.2.1", i == 0 ? 9 : 0);
    }
    fc_events_free(&exchange.channels, taken);
    CHECK(!fc_exchange_events(&exchange));
    close_exchange();
}

static void a_message_is_handed_over_without_its_key_and_with_its_home_if_any(void)
{
    static char long_text[300];

    CHECK_EQ(open_with(NULL, 0), 0);
    struct fc_channel *home = fc_channels_get(&exchange.channels, "home", 4);
    memset(long_text, 'l', sizeof long_text);
    struct fc_message *two[] = {fc_message_frame(&exchange.account, FC_OP_TEXT, "hi", 2),
                                fc_message_frame(&exchange.account, FC_OP_BINARY, long_text, sizeof long_text)};
    two[0] = fc_message_set_key(two[0], (struct fc_span){"home", 4}, (struct fc_span){0});
    CHECK_EQ(fc_exchange_hand_over(&exchange, 5, home, two, 2), 0);
    struct fc_message *one = message(1);
    CHECK_EQ(fc_exchange_hand_over(&exchange, 6, NULL, &one, 1), 0);
    CHECK_EQ(fc_exchange_hand_over(&exchange, 6, NULL, NULL, 0), 0);
    struct fc_events *taken = fc_exchange_events(&exchange);
    CHECK_EQ(taken->count, 3);
    const struct fc_event *events = taken->events;
    CHECK_BYTES(events[0].bytes.bytes, events[0].bytes.length, "hi", 2);
    CHECK_BYTES(events[0].channel.bytes, events[0].channel.length, "home", 4);
    CHECK(events[0].text && !events[1].text && events[0].client == 5);
    CHECK_BYTES(events[1].bytes.bytes, events[1].bytes.length, long_text, sizeof long_text);
    CHECK(events[2].client == 6 && events[2].channel.length == 0 && !events[2].origin);
    fc_channel_unref(&exchange.channels, home);
    CHECK_EQ(exchange.channels.count, 1); /* the events have references */
    fc_events_free(&exchange.channels, taken);
    close_exchange();
}

static void what_cannot_be_told_gives_its_references_back(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    struct fc_event joined = {.kind = FC_EVENT_JOINED,
                              .message = message(1),
                              .origin = fc_channels_get(&exchange.channels, "a", 1)};
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_exchange_tell(&exchange, &joined), -ENOMEM);
    CHECK(!fc_exchange_events(&exchange));
    close_exchange();
}

static void events_of_every_kind_keep_their_order(void)
{
    CHECK_EQ(open_with(NULL, 0), 0);
    struct fc_channel *channel = fc_channels_get(&exchange.channels, "a", 1);
    for (uint64_t i = 0; i < 1000; i++) {
        struct fc_message *one = message((uint32_t)i);
        struct fc_event told = {.kind = FC_EVENT_LEFT, .client = i, .origin = fc_channel_ref(channel)};
        if (i % 3 == 0) {
            CHECK_EQ(fc_exchange_hand_over(&exchange, i, channel, &one, 1), 0);
            fc_channel_unref(&exchange.channels, told.origin);
        } else {
            told.message = one;
            CHECK_EQ(fc_exchange_tell(&exchange, &told), 0);
        }
    }
    uint64_t next = 0;
    for (struct fc_events *taken; (taken = fc_exchange_events(&exchange));) {
        for (size_t i = 0; i < taken->count; i++, next++) {
            CHECK_EQ(taken->events[i].client, next);
            CHECK_EQ(taken->events[i].kind, next % 3 == 0 ? FC_EVENT_MESSAGE : FC_EVENT_LEFT);
        }
        fc_events_free(&exchange.channels, taken);
    }
    CHECK_EQ(next, 1000);
    fc_channel_unref(&exchange.channels, channel);
    close_exchange();
}

/* ---- rules ---- */

static void behind_the_rules_is_one_for_all_other_channels(void)
{
    struct fc_rule rules[] = {{.channels = {"chat", 4}, .policy = FC_POLICY_CLOSE, .max_queue = 1},
                              {.channels = {"prices.>", 8}, .policy = FC_POLICY_LATEST, .max_messages = 2}};

    CHECK_EQ(open_with(rules, 2), 0);
    memset(rules, 0, sizeof rules); /* they are copied */
    CHECK_EQ(exchange.rule_count, 3);
    CHECK_EQ(exchange.rules[0].max_queue, 1);
    CHECK_EQ(exchange.rules[1].policy, FC_POLICY_LATEST);
    CHECK_EQ(exchange.rules[2].policy, FC_POLICY_DROP_NEWEST);
    CHECK_EQ(exchange.rules[2].max_queue, 1234);
    CHECK_EQ(exchange.rules[2].max_messages, 56);
    static const char *const names[] = {"chat", "prices.a.b", "elsewhere"};
    for (unsigned i = 0; i < 3; i++) {
        struct fc_channel *channel = fc_channels_get(&exchange.channels, names[i], strlen(names[i]));
        CHECK_EQ(channel->rule, i);
        fc_channel_unref(&exchange.channels, channel);
    }
    CHECK_EQ(exchange.everyone->rule, 2);
    close_exchange();
}

/* ---- threads ---- */

enum { PUBLISHERS = 3, MESSAGES = 10000 };

/* The sequence of messages of each channel, as a shard hears it. */
static uint32_t heard[SHARDS][CHANNELS][PUBLISHERS * MESSAGES];
static uint32_t heard_count[SHARDS][CHANNELS];
static atomic_uint publishing;

static void *publish_to_some(void *argument)
{
    uint32_t publisher = (uint32_t)(uintptr_t)argument;
    uint64_t seed = publisher;

    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct fc_channel *audience[CHANNELS];
        unsigned count = 0;
        unsigned from = (unsigned)(check_random(&seed) % CHANNELS);
        unsigned some = (unsigned)(check_random(&seed) % (1 << CHANNELS));
        for (unsigned k = 0; k < CHANNELS; k++) {
            if (some >> k & 1)
                audience[count++] = channels[(from + k) % CHANNELS];
        }
        struct fc_message *one = message(publisher * MESSAGES + i);
        uint64_t reached;
        CHECK_EQ(fc_publish(&exchange, audience, count, &one, 1, &reached), 0);
        CHECK_EQ(reached, count * SHARDS);
    }
    atomic_fetch_sub(&publishing, 1);
    for (unsigned shard = 0; shard < SHARDS; shard++) /* whoever waits looks again */
        fc_mailbox_signal(&exchange.mailboxes[shard]);
    return NULL;
}

static void *listen_to_all(void *argument)
{
    unsigned shard = (unsigned)(uintptr_t)argument;
    struct fc_mailbox *mailbox = &exchange.mailboxes[shard];
    struct pollfd wake = {.fd = mailbox->wake, .events = POLLIN};
    bool last_look = false;

    while (!last_look) {
        eventfd_t ignored;
        last_look = atomic_load(&publishing) == 0;
        if (!last_look && fc_mailbox_sleep(mailbox)) {
            CHECK_EQ(poll(&wake, 1, CHECK_PATIENCE_S * 1000), 1);
            eventfd_read(mailbox->wake, &ignored);
        }
        struct taken taken = take(shard);
        size_t weight = 0;
        for (uint32_t i = 0; i < taken.count; i++) {
            const struct fc_command *command = &taken.commands[i];
            unsigned k = index_of(command->channel);
            heard[shard][k][heard_count[shard][k]++] = number_in(command->message);
            weight += fc_message_weight(command->message);
            CHECK(!command->more || taken.commands[i + 1].message == command->message);
        }
        drop(&taken);
        fc_exchange_settle(&exchange, shard, weight);
    }
    return NULL;
}

static void each_channel_has_one_order_however_audiences_overlap(void)
{
    static const uint32_t members[CHANNELS][SHARDS] = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}};
    pthread_t publishers[PUBLISHERS];
    pthread_t listeners[SHARDS];

    open_channels(members);
    memset(heard_count, 0, sizeof heard_count);
    atomic_store(&publishing, PUBLISHERS);
    for (uintptr_t i = 0; i < SHARDS; i++)
        CHECK_EQ(pthread_create(&listeners[i], NULL, listen_to_all, (void *)i), 0);
    for (uintptr_t i = 0; i < PUBLISHERS; i++)
        CHECK_EQ(pthread_create(&publishers[i], NULL, publish_to_some, (void *)i), 0);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        pthread_join(publishers[i], NULL);
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_join(listeners[i], NULL);
    for (unsigned k = 0; k < CHANNELS; k++) {
        uint32_t count = heard_count[0][k];
        int64_t last[PUBLISHERS] = {-1, -1, -1};
        CHECK(count > MESSAGES);
        for (unsigned shard = 1; shard < SHARDS; shard++)
            CHECK_BYTES(heard[shard][k], heard_count[shard][k] * sizeof(uint32_t), heard[0][k],
                        count * sizeof(uint32_t));
        for (uint32_t i = 0; i < count; i++) {
            uint32_t number = heard[0][k][i];
            CHECK((int64_t)number > last[number / MESSAGES]); /* each publisher's own order, and nothing twice */
            last[number / MESSAGES] = number;
        }
    }
    CHECK_EQ(exchange.congested, 0);
    close_channels();
}

int main(void)
{
    RUN(one_message_to_several_channels_lies_side_by_side);
    RUN(nobody_hears_what_has_no_channel_or_no_members);
    RUN(a_shard_that_cannot_be_told_loses_its_members_share);
    RUN(a_command_that_is_not_obeyed_gives_everything_back);
    RUN(a_command_without_memory_gives_everything_back_too);
    RUN(commands_count_for_the_backlog_with_their_weight);
    RUN(commands_and_events_that_nobody_takes_are_freed_at_the_end);
    RUN(requests_are_copied_with_where_they_are_from);
    RUN(a_message_is_handed_over_without_its_key_and_with_its_home_if_any);
    RUN(what_cannot_be_told_gives_its_references_back);
    RUN(events_of_every_kind_keep_their_order);
    RUN(behind_the_rules_is_one_for_all_other_channels);
    RUN(each_channel_has_one_order_however_audiences_overlap);
    return 0;
}
