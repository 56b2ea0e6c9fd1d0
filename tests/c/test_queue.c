/* The queue of a lagging client: order, partial writes, Pongs that overtake, what policies drop and replace, and how
 * many data frames are counted as delivered, dropped or gone, for each channel. */
#include "queue.h"

#include "check.h"
#include "queues.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void expect_ended(unsigned subject, uint64_t delivered, uint64_t dropped, uint64_t gone)
{
    CHECK_EQ(queues_ended[subject][FC_SENT], 0);
    CHECK_EQ(queues_ended[subject][FC_DELIVERED], delivered);
    CHECK_EQ(queues_ended[subject][FC_DROPPED], dropped);
    CHECK_EQ(queues_ended[subject][FC_GONE], gone);
}

static struct fc_message *text(const char *payload)
{
    return fc_message_frame(&queues_account, FC_OP_TEXT, payload, strlen(payload));
}

static struct fc_message *pong(const char *payload)
{
    return fc_message_frame(&queues_account, FC_OP_PONG, payload, strlen(payload));
}

/* Gives the reference away, here and below. To the client alone. */
static void push(struct fc_queue *queue, struct fc_message *message)
{
    CHECK_EQ(fc_queue_push(queue, message, NULL), 0);
    fc_message_unref(message);
}

static void push_for(struct fc_queue *queue, struct fc_message *message, unsigned subject)
{
    CHECK_EQ(fc_queue_push(queue, message, queues_subjects[subject]), 0);
    fc_message_unref(message);
}

static bool replace(struct fc_queue *queue, struct fc_message *message, unsigned subject)
{
    bool replaced = fc_queue_replace(queue, message, queues_subjects[subject]);

    fc_message_unref(message);
    return replaced;
}

static void push_pong(struct fc_queue *queue, struct fc_message *message)
{
    CHECK_EQ(fc_queue_push_pong(queue, message), 0);
    fc_message_unref(message);
}

static void expect_waiting(const struct fc_queue *queue, const void *expected, size_t n)
{
    uint8_t bytes[4096];
    struct iovec vectors[64];
    unsigned count = fc_queue_gather(queue, vectors, 64);
    size_t have = 0;

    CHECK_EQ(count, queue->count);
    for (unsigned i = 0; i < count; i++) {
        CHECK(have + vectors[i].iov_len <= sizeof bytes);
        memcpy(bytes + have, vectors[i].iov_base, vectors[i].iov_len);
        have += vectors[i].iov_len;
    }
    CHECK_BYTES(bytes, have, expected, n);
    CHECK_EQ(queue->bytes, n);
}

static void messages_leave_in_the_order_they_came(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, text("a"));
    push(&queue, text("b"));
    expect_waiting(&queue, "\x81\x01" "a\x81\x01" "b", 6);
    CHECK_EQ(queue.frames, 2);
    CHECK_EQ(fc_queue_wrote(&queue, 0), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 1), 1);
    expect_waiting(&queue, "\x81\x01" "b", 3);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    queues_close(&queue);
}

static void gathering_stops_at_the_number_of_vectors(void)
{
    struct fc_queue queue = queues_open();
    struct iovec vectors[2];

    for (unsigned i = 0; i < 3; i++)
        push(&queue, text("x"));
    CHECK_EQ(fc_queue_gather(&queue, vectors, 2), 2);
    CHECK_EQ(fc_queue_clear(&queue), 3);
    queues_close(&queue);
}

static void a_pong_overtakes_what_is_not_begun(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, text("ab"));
    push(&queue, text("c"));
    CHECK_EQ(fc_queue_wrote(&queue, 3), 0);
    push_pong(&queue, pong("1"));
    expect_waiting(&queue, "b\x8A\x01" "1\x81\x01" "c", 7);
    CHECK_EQ(fc_queue_wrote(&queue, 7), 2);
    CHECK(queue.count == 0 && queue.bytes == 0 && queues_account.messages == 0);

    push(&queue, text("ab"));
    push_pong(&queue, pong("2"));
    expect_waiting(&queue, "\x8A\x01" "2\x81\x02" "ab", 7);
    CHECK_EQ(fc_queue_wrote(&queue, 7), 1);
    queues_close(&queue);
}

static void the_latest_pong_stands_for_those_that_are_not_begun(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, text("ab"));
    CHECK_EQ(fc_queue_wrote(&queue, 1), 0);
    push_pong(&queue, pong("first"));
    push_pong(&queue, pong("2"));
    expect_waiting(&queue, "\x02" "ab\x8A\x01" "2", 6);
    CHECK_EQ(fc_queue_wrote(&queue, 4), 1); /* the Pong is begun: */
    push_pong(&queue, pong("3"));           /* it stays, and this one follows */
    expect_waiting(&queue, "\x01" "2\x8A\x01" "3", 5);
    push_pong(&queue, pong("4"));
    expect_waiting(&queue, "\x01" "2\x8A\x01" "4", 5);
    CHECK_EQ(queue.count, 2);
    CHECK_EQ(fc_queue_wrote(&queue, 5), 0);
    queues_close(&queue);
}

static void dropping_keeps_the_message_that_is_begun(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, text("ab"));
    push(&queue, text("c"));
    push(&queue, text("d"));
    CHECK_EQ(fc_queue_wrote(&queue, 1), 0);
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 2);
    expect_waiting(&queue, "\x02" "ab", 3);
    CHECK_EQ(queue.frames, 1);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    CHECK(queue.count == 0 && queue.bytes == 0 && queues_account.messages == 0);

    push(&queue, text("ab"));
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 1);
    queues_close(&queue);
}

static void the_response_to_the_handshake_stays_first(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, fc_message_raw(&queues_account, "HTTP", 4));
    push(&queue, text("a"));
    push_pong(&queue, pong("1"));
    push_pong(&queue, pong("2"));
    expect_waiting(&queue, "HTTP\x8A\x01" "2\x81\x01" "a", 10);
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 1);
    expect_waiting(&queue, "HTTP", 4);
    CHECK_EQ(fc_queue_wrote(&queue, 4), 0);
    queues_close(&queue);
}

static void frames_of_a_joined_message_are_counted_one_by_one(void)
{
    struct fc_message *parts[] = {text("a"), text("b"), text("c")};
    struct fc_queue queue = queues_open();

    push(&queue, fc_message_join(&queues_account, parts, 3));
    for (unsigned i = 0; i < 3; i++)
        fc_message_unref(parts[i]);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    CHECK_EQ(queue.frames, 2);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 1);
    CHECK_EQ(fc_queue_clear(&queue), 1);
    queues_close(&queue);
}

static bool push_and_pong(void)
{
    struct fc_queue queue = {.host = &queues_host};
    struct fc_channel *subject = queues_subjects[0];
    struct fc_message *message = text("payload");
    int error = message ? 0 : -ENOMEM;
    unsigned pushed = 0;

    for (; pushed < 10 && !error; pushed += !error)
        error = pushed == 4 ? fc_queue_push_pong(&queue, message) : fc_queue_push(&queue, message, subject);
    CHECK(error == 0 || error == -ENOMEM);
    CHECK_EQ(queue.count, pushed);
    CHECK_EQ(subject->references, 1 + pushed - (pushed > 4));
    fc_queue_clear(&queue);
    CHECK_EQ(subject->references, 1);
    fc_message_unref(message);
    CHECK_EQ(queues_account.messages, 0);
    return !error;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    struct fc_queue queue = queues_open();

    CHECK_EQ(check_each_allocation(push_and_pong), 4);
    queues_close(&queue);
}

/* ---- what policies do ---- */

static struct fc_message *under(uint8_t number_of_rule, struct fc_message *message)
{
    message->rule = number_of_rule;
    return message;
}

static struct fc_message *keyed(const char *payload, const char *key)
{
    return fc_message_set_key(text(payload), (struct fc_span){"name", 4}, (struct fc_span){key, strlen(key)});
}

static void the_newest_of_a_key_takes_the_place_of_the_one_before(void)
{
    struct fc_queue queue = queues_open();

    push_for(&queue, keyed("1", "k"), 0);
    push_for(&queue, text("x"), 0);
    push_for(&queue, keyed("2", "l"), 1);
    CHECK(replace(&queue, keyed("three", "k"), 2));
    expect_waiting(&queue, "\x81\x05three\x81\x01x\x81\x01" "2", 13);
    CHECK_EQ(queue.frames, 3);
    expect_ended(0, 0, 1, 0); /* the one that is gone was the first subject's */
    CHECK(replace(&queue, keyed("", "l"), 1));
    expect_waiting(&queue, "\x81\x05three\x81\x01x\x81\x00", 12);
    expect_ended(1, 0, 1, 0);
    CHECK(!replace(&queue, keyed("4", "m"), 1));
    CHECK(!replace(&queue, text("x"), 1)); /* without a key it's like no other */
    CHECK_EQ(queue.count, 3);
    CHECK_EQ(fc_queue_wrote(&queue, 12), 3);
    expect_ended(0, 1, 1, 0);
    expect_ended(1, 1, 1, 0);
    expect_ended(2, 1, 0, 0);
    CHECK(!replace(&queue, keyed("5", "k"), 0)); /* in an empty queue */
    queues_close(&queue);
}

static void what_is_begun_is_not_replaced(void)
{
    struct fc_queue queue = queues_open();

    push_for(&queue, keyed("1", "k"), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 1), 0);
    CHECK(!replace(&queue, keyed("2", "k"), 0));
    expect_waiting(&queue, "\x01" "1", 2);
    push_for(&queue, keyed("2", "k"), 0);
    CHECK(replace(&queue, keyed("3", "k"), 0)); /* the one behind it is */
    expect_waiting(&queue, "\x01" "1\x81\x01" "3", 5);
    CHECK_EQ(fc_queue_wrote(&queue, 5), 2);
    expect_ended(0, 2, 1, 0);
    queues_close(&queue);
}

static void the_oldest_under_the_rule_is_dropped(void)
{
    struct fc_queue queue = queues_open();

    push_for(&queue, under(1, text("a")), 0);
    push_for(&queue, under(2, text("bc")), 1);
    push_for(&queue, under(1, text("def")), 0);
    push_for(&queue, under(2, text("g")), 2);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 2), 1);
    expect_waiting(&queue, "\x81\x01" "a\x81\x03" "def\x81\x01g", 11);
    CHECK_EQ(queue.frames, 3);
    expect_ended(1, 0, 1, 0);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 2), 1);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 2), 0);
    expect_waiting(&queue, "\x81\x01" "a\x81\x03" "def", 8);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 1), 1);
    expect_waiting(&queue, "\x81\x03" "def", 5);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 1), 1);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 1), 0);
    expect_ended(0, 0, 2, 0);
    expect_ended(2, 0, 1, 0);
    queues_close(&queue);
}

static void what_is_begun_is_not_dropped(void)
{
    struct fc_queue queue = queues_open();

    push_for(&queue, text("ab"), 0);
    push_for(&queue, text("c"), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 0);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 0), 1);
    expect_waiting(&queue, "b", 1);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 0), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 1), 1);
    expect_ended(0, 1, 1, 0);
    queues_close(&queue);
}

static void pongs_and_responses_are_kept_when_messages_are_dropped(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, fc_message_raw(&queues_account, "HTTP", 4));
    push_for(&queue, text("a"), 0);
    push_pong(&queue, pong("1"));
    push_for(&queue, text("b"), 0);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 0), 1);
    expect_waiting(&queue, "HTTP\x8A\x01" "1\x81\x01" "b", 10);
    push_pong(&queue, pong("23"));
    expect_waiting(&queue, "HTTP\x8A\x02" "23\x81\x01" "b", 11);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 0), 1);
    CHECK_EQ(fc_queue_drop_oldest(&queue, 0), 0);
    push_pong(&queue, pong("4"));
    expect_waiting(&queue, "HTTP\x8A\x01" "4", 7);
    CHECK_EQ(fc_queue_wrote(&queue, 7), 0);
    expect_ended(0, 0, 2, 0);
    queues_close(&queue);
}

static void a_pong_is_none_of_the_messages_of_a_replay(void)
{
    struct fc_queue queue = queues_open();

    push(&queue, pong("at"));
    push_for(&queue, text("old"), 0);
    push_for(&queue, text("older"), 0);
    queue.waived = 2;
    queue.replayed = 5 + 7;
    fc_queue_wrote(&queue, 4);
    CHECK_EQ(queue.waived, 2);
    CHECK_EQ(queue.replayed, 5 + 7);
    fc_queue_wrote(&queue, 5 + 3);
    CHECK_EQ(queue.waived, 1);
    CHECK_EQ(queue.replayed, 4);
    fc_queue_wrote(&queue, 4);
    CHECK_EQ(queue.waived, 0);
    CHECK_EQ(queue.replayed, 0);
    queues_close(&queue);
}

static void a_joined_message_is_dropped_as_a_whole_and_counted_by_frames(void)
{
    struct fc_message *parts[] = {under(3, text("a")), under(3, text("b"))};
    struct fc_queue queue = queues_open();

    push_for(&queue, fc_message_join(&queues_account, parts, 2), 1);
    push_for(&queue, fc_message_join(&queues_account, parts, 2), 1);
    fc_message_unref(parts[0]);
    fc_message_unref(parts[1]);
    CHECK_EQ(fc_queue_wrote(&queue, 4), 1);
    expect_ended(1, 1, 0, 0); /* told as soon as it's through */
    CHECK_EQ(fc_queue_drop_oldest(&queue, 3), 2);
    CHECK_EQ(queue.frames, 1);
    CHECK_EQ(fc_queue_clear(&queue), 1);
    expect_ended(1, 1, 2, 1);
    queues_close(&queue);
}

int main(void)
{
    RUN(messages_leave_in_the_order_they_came);
    RUN(gathering_stops_at_the_number_of_vectors);
    RUN(a_pong_overtakes_what_is_not_begun);
    RUN(the_latest_pong_stands_for_those_that_are_not_begun);
    RUN(dropping_keeps_the_message_that_is_begun);
    RUN(the_response_to_the_handshake_stays_first);
    RUN(frames_of_a_joined_message_are_counted_one_by_one);
    RUN(the_newest_of_a_key_takes_the_place_of_the_one_before);
    RUN(what_is_begun_is_not_replaced);
    RUN(the_oldest_under_the_rule_is_dropped);
    RUN(what_is_begun_is_not_dropped);
    RUN(pongs_and_responses_are_kept_when_messages_are_dropped);
    RUN(a_pong_is_none_of_the_messages_of_a_replay);
    RUN(a_joined_message_is_dropped_as_a_whole_and_counted_by_frames);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    return 0;
}
