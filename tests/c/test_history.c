/* Histories without shards: what is kept, what is told of it, and what becomes of it without memory. */
#include "publish.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fc_exchange exchange;

static void open_with(uint64_t messages, uint64_t time, size_t limit)
{
    struct fc_options options = {.shards = 2,
                                 .listeners_each = 1,
                                 .max_backlog = 1 << 22,
                                 .max_queue = 1234,
                                 .keep_messages = messages,
                                 .keep_time = time,
                                 .max_history = limit};

    CHECK_EQ(fc_exchange_init(&exchange, &options), 0);
    CHECK(exchange.channels.keeps);
}

static void close_exchange(void)
{
    fc_histories_clear(&exchange.histories, &exchange.channels);
    CHECK_EQ(exchange.histories.count, 0);
    CHECK_EQ(exchange.histories.messages, 0);
    CHECK_EQ(exchange.histories.bytes, 0);
    CHECK_EQ(exchange.histories.account.messages, 0);
    CHECK_EQ(exchange.account.messages, 0);
    CHECK_EQ(exchange.channels.count, 0);
    fc_exchange_destroy(&exchange);
}

static int say(const char *channel, const char *text, uint64_t offset)
{
    struct fc_audience audience;
    int error = fc_channels_address(&exchange.channels, channel, strlen(channel), &audience);
    struct fc_message *message = error ? NULL : fc_message_frame(&exchange.account, FC_OP_TEXT, text, strlen(text));

    if (message && offset > 0)
        fc_publish_record(&exchange, audience.channels, audience.count, message, offset, NULL);
    else if (message)
        fc_publish(&exchange, audience.channels, audience.count, &message, 1, NULL);
    if (!error)
        fc_channels_release(&exchange.channels, &audience);
    return message ? 0 : -ENOMEM;
}

static void say_numbers(const char *channel, unsigned from, unsigned to)
{
    char text[16];

    for (unsigned i = from; i <= to; i++) {
        snprintf(text, sizeof text, "%u", i);
        CHECK_EQ(say(channel, text, 0), 0);
    }
}

static struct fc_channel *record_of(const char *channel)
{
    struct fc_channel *record = fc_channels_get_record(&exchange.channels, channel, strlen(channel));

    CHECK(record && record->history);
    return record;
}

static int replay(const char *channel, const struct fc_since *since, uint64_t now, struct fc_replay *found)
{
    struct fc_channel *record = record_of(channel);

    pthread_mutex_lock(&record->lock);
    int error = fc_history_replay(&exchange.histories, record->history, since, now, found);
    pthread_mutex_unlock(&record->lock);
    fc_channel_unref(&exchange.channels, record);
    return error;
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* The texts of a replay in a row, and behind it where it begins. */
static const char *told(const char *channel, const struct fc_since *since)
{
    static char out[4096];
    struct fc_replay found;
    char *at = out;

    CHECK_EQ(replay(channel, since, now(), &found), 0);
    at += sprintf(at, "%s %llu:", found.gap ? "gap" : "at", (unsigned long long)found.offset);
    for (uint32_t i = 0; i < found.count; i++) {
        const char *wire = (const char *)fc_message_wire(found.messages[i]);
        const char *text = memchr(wire, '\n', found.messages[i]->size);
        CHECK(text);
        size_t length = (size_t)(wire + found.messages[i]->size - text - 1);
        at += sprintf(at, " %.*s", (int)length, text + 1);
        fc_message_unref(found.messages[i]);
    }
    free(found.messages);
    return out;
}

#define CHECK_TOLD(channel, since, expected)                                                                    \
    do {                                                                                                        \
        const char *what = told(channel, since);                                                                \
        CHECK_BYTES(what, strlen(what), expected, strlen(expected));                                            \
    } while (0)

static const struct fc_since everything = {.from = FC_RESUME_ALL};
static const struct fc_since nothing = {.from = FC_RESUME_NEW};

static struct fc_position position(const char *channel, uint64_t offset)
{
    struct fc_channel *record = record_of(channel);
    struct fc_position place = {.offset = offset};

    memcpy(place.epoch, record->history->epoch, FC_EPOCH_SIZE);
    fc_channel_unref(&exchange.channels, record);
    return place;
}

static struct fc_since since(const struct fc_position *positions, size_t count)
{
    return (struct fc_since){.from = FC_RESUME_SINCE, .positions = positions, .count = count};
}

/* ---- tests ---- */

static void it_keeps_the_last_messages(void)
{
    open_with(3, 0, 1 << 20);
    CHECK_TOLD("a", &everything, "at 0:");
    say_numbers("a", 1, 5);
    CHECK_TOLD("a", &everything, "at 2: 3 4 5");
    CHECK_TOLD("a", &nothing, "at 5:");
    CHECK_EQ(exchange.histories.messages, 3);
    say_numbers("b", 1, 2);
    CHECK_TOLD("b", &everything, "at 0: 1 2");
    close_exchange();
}

static void it_goes_on_from_a_position(void)
{
    open_with(3, 0, 1 << 20);
    say_numbers("a", 1, 5);
    struct fc_position places[3] = {{"000000000000", 4}, position("a", 4), position("a", 2)};
    struct fc_since from = since(places, 2);
    CHECK_TOLD("a", &from, "at 4: 5");
    from = since(places + 2, 1);
    CHECK_TOLD("a", &from, "at 2: 3 4 5");
    from = since(places, 1);
    CHECK_TOLD("a", &from, "gap 2: 3 4 5");
    from = since(NULL, 0);
    CHECK_TOLD("a", &from, "gap 2: 3 4 5");
    places[0] = position("a", 1);
    from = since(places, 1);
    CHECK_TOLD("a", &from, "gap 2: 3 4 5");
    places[0] = position("a", 5);
    CHECK_TOLD("a", &from, "at 5:");
    places[0] = position("a", 6);
    CHECK_TOLD("a", &from, "gap 2: 3 4 5");
    from = since(&(struct fc_position){"abcdefabcdef", 99}, 1);
    from.from = FC_RESUME_HERE; /* is believed */
    CHECK_TOLD("a", &from, "at 99:");
    close_exchange();
}

static void time_ends_messages_and_then_records(void)
{
    struct fc_replay found;

    open_with(0, 1000, 1 << 20);
    say_numbers("a", 1, 3);
    CHECK_EQ(replay("a", &everything, now() + 500, &found), 0);
    CHECK_EQ(found.count, 3);
    for (unsigned i = 0; i < 3; i++)
        fc_message_unref(found.messages[i]);
    free(found.messages);
    struct fc_position before = position("a", 3);
    CHECK_EQ(replay("a", &everything, now() + 1100, &found), 0);
    CHECK_EQ(found.count, 0);
    CHECK_EQ(found.offset, 3);
    struct fc_since from = since(&before, 1);
    CHECK_TOLD("a", &from, "at 3:"); /* it's empty, and has missed nothing */
    fc_histories_expire(&exchange.histories, &exchange.channels, now());
    CHECK_EQ(exchange.histories.count, 1);
    fc_histories_expire(&exchange.histories, &exchange.channels, now() + 3000);
    CHECK_EQ(exchange.histories.count, 0);
    CHECK_EQ(exchange.channels.count, 0);
    CHECK_TOLD("a", &from, "gap 0:");
    close_exchange();
}

static void many_records_end_in_time(void)
{
    open_with(0, 1000, 8 << 20);
    for (unsigned i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%u", i);
        say_numbers(name, 1, 2);
    }
    CHECK_EQ(exchange.histories.count, 200);
    fc_histories_expire(&exchange.histories, &exchange.channels, now() + 1100);
    CHECK_EQ(exchange.histories.count, 0);
    CHECK_EQ(exchange.histories.messages, 0);
    close_exchange();
}

static void the_quietest_make_room(void)
{
    char name[16];
    char text[1000];

    open_with(1000, 0, 64 << 10);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "c%u", i);
        CHECK_EQ(say(name, text, 0), 0);
        CHECK(exchange.histories.bytes + exchange.histories.weight <= 64 << 10);
    }
    CHECK(exchange.histories.messages >= 30);
    struct fc_channel *newest = fc_channels_find_record(&exchange.channels, "c99", 3);
    struct fc_channel *oldest = fc_channels_find_record(&exchange.channels, "c0", 2);
    CHECK(newest && !oldest);
    fc_channel_unref(&exchange.channels, newest);
    for (unsigned i = 0; i < 300; i++) /* one alone has to do with less as well */
        CHECK_EQ(say("c99", text, 0), 0);
    CHECK(exchange.histories.bytes <= 64 << 10);
    struct fc_position first = position("c99", 1);
    struct fc_since from = since(&first, 1);
    const char *what = told("c99", &nothing);
    CHECK_BYTES(what, strlen(what), "at 301:", 7);
    struct fc_replay found;
    CHECK_EQ(replay("c99", &from, now(), &found), 0);
    CHECK(found.gap && found.count > 10 && found.offset + found.count == 301);
    for (uint32_t i = 0; i < found.count; i++)
        fc_message_unref(found.messages[i]);
    free(found.messages);
    close_exchange();
}

static void check_head(const char *name, const char *head, const void *payload, size_t n, uint8_t opcode)
{
    struct fc_message *plain = fc_message_frame(&exchange.account, opcode, payload, n);
    struct fc_channel *record = record_of(name);
    struct fc_message *made;
    char expected[4096];

    pthread_mutex_lock(&record->lock);
    CHECK_EQ(fc_history_append(&exchange.histories, record->history, &plain, 1, 0, now(), &made), 0);
    pthread_mutex_unlock(&record->lock);
    size_t length = (size_t)sprintf(expected, "\x1emsg %.12s:1 %s\n", record->history->epoch, head);
    memcpy(expected + length, payload, n);
    CHECK_EQ(made->frames, 1);
    CHECK_EQ(fc_message_wire(made)[0] & 0x0F, opcode);
    CHECK_BYTES(fc_message_payload(made), made->start + made->size - FC_FRAME_HEADER_MAX, expected, length + n);
    fc_message_unref(made);
    fc_message_unref(plain);
    fc_channel_unref(&exchange.channels, record);
}

static void heads_say_where_and_what(void)
{
    open_with(3, 0, 1 << 20);
    check_head("/a b", "/a b", "text", 4, FC_OP_TEXT);
    check_head("a\nb%\x7f", "a%0Ab%25%7F", "\x00\xFF\n", 3, FC_OP_BINARY);
    check_head("\xC3\xA9", "\xC3\xA9", "", 0, FC_OP_TEXT);
    CHECK_EQ(say("gap", "1", 0), 0);
    struct fc_channel *record = record_of("gap");
    struct fc_replay gap = {.gap = true, .offset = 17};
    memcpy(gap.epoch, record->history->epoch, FC_EPOCH_SIZE);
    struct fc_message *notice = fc_history_notice(&exchange.histories, record, &gap);
    char expected[64];
    size_t length = (size_t)sprintf(expected, "\x1egap %.12s:17 gap\n", gap.epoch);
    CHECK_EQ(notice->frames, 0);
    CHECK_BYTES(fc_message_payload(notice), notice->start + notice->size - FC_FRAME_HEADER_MAX, expected, length);
    fc_message_unref(notice);
    fc_channel_unref(&exchange.channels, record);
    close_exchange();
}

static void others_may_lead(void)
{
    const struct fc_position begin = {"abcdefabcdef", 10};
    struct fc_since from = since(&begin, 1);

    open_with(3, 0, 1 << 20);
    CHECK_EQ(say("a", "before", 0), 0);
    struct fc_channel *record = record_of("a");
    pthread_mutex_lock(&record->lock);
    fc_history_lead(&exchange.histories, record->history, &begin);
    pthread_mutex_unlock(&record->lock);
    CHECK_TOLD("a", &from, "at 10:");
    CHECK_EQ(say("a", "12", 12), 0);
    CHECK_EQ(say("a", "alone", 0), 0); /* has no offset, and isn't kept */
    CHECK_EQ(say("a", "17", 17), 0);
    CHECK_EQ(say("a", "late", 16), 0);
    CHECK_TOLD("a", &from, "at 10: 12 17");
    from = (struct fc_since){.from = FC_RESUME_NEW};
    CHECK_TOLD("a", &from, "at 17:");
    say("a", "18", 18);
    say("a", "19", 19);
    CHECK_TOLD("a", &everything, "at 12: 17 18 19");
    fc_channel_unref(&exchange.channels, record);
    fc_histories_trim(&exchange.histories, &exchange.channels);
    CHECK_EQ(exchange.histories.count, 1);
    record = record_of("a");
    CHECK_EQ(fc_publish_gap(&exchange, record, 30), 0);
    CHECK_TOLD("a", &everything, "at 30:");
    fc_history_release(&exchange.histories, &exchange.channels, record->history);
    CHECK_EQ(fc_publish_gap(&exchange, record, 31), -EINVAL);
    fc_channel_unref(&exchange.channels, record);
    CHECK_EQ(exchange.channels.count, 0);
    from = since(&begin, 1);
    CHECK_TOLD("a", &from, "gap 0:");
    close_exchange();
}

static void led_ones_that_are_empty_do_not_hold_up_the_limit(void)
{
    open_with(3, 0, 100);
    for (unsigned i = 0; i < 5; i++) {
        struct fc_channel *record = record_of(&"a\0b\0c\0d\0e"[2 * i]);
        pthread_mutex_lock(&record->lock);
        fc_history_lead(&exchange.histories, record->history, &(struct fc_position){"abcdefabcdef", 1});
        pthread_mutex_unlock(&record->lock);
        fc_channel_unref(&exchange.channels, record);
    }
    say_numbers("z", 1, 3); /* nothing can be kept of it, and nobody waits for that */
    CHECK_EQ(exchange.histories.messages, 0);
    CHECK_EQ(exchange.histories.count, 5);
    close_exchange();
}

static void a_clock_that_was_read_earlier_ends_nothing(void)
{
    struct fc_replay found;

    open_with(0, 1000, 1 << 20);
    say_numbers("a", 1, 3);
    CHECK_EQ(replay("a", &everything, now() - 500, &found), 0);
    CHECK_EQ(found.count, 3);
    for (uint32_t i = 0; i < found.count; i++)
        fc_message_unref(found.messages[i]);
    free(found.messages);
    fc_histories_expire(&exchange.histories, &exchange.channels, now() - 500);
    CHECK_TOLD("a", &everything, "at 0: 1 2 3");
    close_exchange();
}

static void what_is_kept_is_all_the_memory_that_there_is(void)
{
    char name[200];

    open_with(1000, 0, 64 << 10);
    memset(name, '%', sizeof name - 1); /* each is written as three */
    name[sizeof name - 1] = 0;
    for (unsigned i = 0; i < 1000; i++) {
        CHECK_EQ(say(name, "20 bytes of a text..", 0), 0);
        CHECK_EQ(fc_exchange_alive(&exchange), 0);
        CHECK_EQ(exchange.histories.bytes, exchange.histories.account.bytes);
    }
    CHECK(exchange.histories.account.bytes <= 64 << 10);
    CHECK(exchange.histories.messages > 40);
    close_exchange();
}

static void who_only_comes_and_goes_leaves_little(void)
{
    char name[16];

    open_with(1000, 0, 64 << 10);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "c%u", i);
        CHECK_TOLD(name, &everything, "at 0:");
    }
    CHECK_EQ(exchange.histories.count, 1000);
    fc_histories_expire(&exchange.histories, &exchange.channels, now() + 5000); /* none is kept for a time */
    CHECK_EQ(exchange.histories.count, 1000);
    fc_histories_trim(&exchange.histories, &exchange.channels);
    CHECK(exchange.histories.weight <= 64 << 10);
    CHECK(exchange.histories.count > 50);
    CHECK(exchange.histories.count < 1000);
    close_exchange();
}

static void all_are_forgotten_those_without_messages_too(void)
{
    open_with(0, 1000, 1 << 20);
    say_numbers("a", 1, 3);
    say_numbers("b", 1, 3);
    struct fc_channel *record = record_of("b"); /* as its members have */
    struct fc_position of_a = position("a", 3);
    struct fc_position of_b = position("b", 3);
    struct fc_since from_a = since(&of_a, 1);
    struct fc_since from_b = since(&of_b, 1);
    CHECK_TOLD("a", &from_a, "at 3:");
    fc_histories_expire(&exchange.histories, &exchange.channels, now() + 3000);
    CHECK_EQ(exchange.histories.count, 0);
    CHECK_TOLD("b", &from_b, "at 3:");
    fc_histories_expire(&exchange.histories, &exchange.channels, now() + 3000);
    say_numbers("a", 4, 4);
    of_a = position("a", 1);
    CHECK_TOLD("a", &from_a, "at 1:");
    CHECK_EQ(fc_histories_release(&exchange.histories, &exchange.channels), 0);
    CHECK_TOLD("a", &from_a, "gap 0:");
    CHECK_TOLD("b", &from_b, "gap 0:");
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_histories_release(&exchange.histories, &exchange.channels), -ENOMEM);
    fault_clear();
    fc_channel_unref(&exchange.channels, record);
    close_exchange();
}

static bool say_some_without_memory(void)
{
    char out[64];

    for (unsigned i = 1; i <= 3; i++) {
        sprintf(out, "%u", i);
        if (say("a", out, 0))
            return false;
    }
    return true;
}

static void without_memory_the_floor_rises(void)
{
    open_with(100, 0, 1 << 20);
    say_numbers("a", 1, 8); /* the ring is full: the next one takes memory */
    struct fc_position place = position("a", 7);
    struct fc_since from = since(&place, 1);
    for (size_t fail = 0; fail < 12; fail++) {
        fault_arm(FAULT_ALLOCATION, fail, 1, ENOMEM);
        say_some_without_memory();
        fault_clear();
        struct fc_replay found;
        CHECK_EQ(replay("a", &from, now(), &found), 0);
        /* Whatever is there is all of it, from where the replay begins. */
        struct fc_channel *record = record_of("a");
        CHECK_EQ(found.offset + found.count, record->history->last);
        CHECK_EQ(found.gap, found.offset != 7);
        fc_channel_unref(&exchange.channels, record);
        for (uint32_t i = 0; i < found.count; i++)
            fc_message_unref(found.messages[i]);
        free(found.messages);
    }
    CHECK_EQ(say("a", "x", 0), 0);
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    struct fc_replay found;
    CHECK_EQ(replay("a", &everything, now(), &found), -ENOMEM);
    fault_clear();
    close_exchange();
}

int main(void)
{
    RUN(it_keeps_the_last_messages);
    RUN(it_goes_on_from_a_position);
    RUN(time_ends_messages_and_then_records);
    RUN(many_records_end_in_time);
    RUN(the_quietest_make_room);
    RUN(heads_say_where_and_what);
    RUN(others_may_lead);
    RUN(led_ones_that_are_empty_do_not_hold_up_the_limit);
    RUN(a_clock_that_was_read_earlier_ends_nothing);
    RUN(what_is_kept_is_all_the_memory_that_there_is);
    RUN(who_only_comes_and_goes_leaves_little);
    RUN(all_are_forgotten_those_without_messages_too);
    RUN(without_memory_the_floor_rises);
    return 0;
}
