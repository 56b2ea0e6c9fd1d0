/* The queue of a lagging client, against a model that is a plain list: order, partial writes, Pongs that overtake, and
 * how many data frames are counted as written or dropped. */
#include "queue.h"

#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct fc_account account;

static struct fc_message *text(const char *payload)
{
    return fc_message_frame(&account, FC_OP_TEXT, payload, strlen(payload));
}

static struct fc_message *pong(const char *payload)
{
    return fc_message_frame(&account, FC_OP_PONG, payload, strlen(payload));
}

/* Gives the reference away. */
static void push(struct fc_queue *queue, struct fc_message *message)
{
    CHECK_EQ(fc_queue_push(queue, message), 0);
    fc_message_unref(message);
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

static void expect_empty(struct fc_queue *queue)
{
    CHECK_EQ(queue->count, 0);
    CHECK_EQ(queue->bytes, 0);
    CHECK_EQ(queue->frames, 0);
    CHECK_EQ(fc_queue_clear(queue), 0);
    CHECK_EQ(account.messages, 0);
}

static void messages_leave_in_the_order_they_came(void)
{
    struct fc_queue queue = {0};

    push(&queue, text("a"));
    push(&queue, text("b"));
    expect_waiting(&queue, "\x81\x01" "a\x81\x01" "b", 6);
    CHECK_EQ(queue.frames, 2);
    CHECK_EQ(fc_queue_wrote(&queue, 0), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 1), 1);
    expect_waiting(&queue, "\x81\x01" "b", 3);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    expect_empty(&queue);
}

static void gathering_stops_at_the_number_of_vectors(void)
{
    struct fc_queue queue = {0};
    struct iovec vectors[2];

    for (unsigned i = 0; i < 3; i++)
        push(&queue, text("x"));
    CHECK_EQ(fc_queue_gather(&queue, vectors, 2), 2);
    CHECK_EQ(fc_queue_clear(&queue), 3);
    expect_empty(&queue);
}

static void a_pong_overtakes_what_is_not_begun(void)
{
    struct fc_queue queue = {0};

    push(&queue, text("ab"));
    push(&queue, text("c"));
    CHECK_EQ(fc_queue_wrote(&queue, 3), 0);
    push_pong(&queue, pong("1"));
    expect_waiting(&queue, "b\x8A\x01" "1\x81\x01" "c", 7);
    CHECK_EQ(fc_queue_wrote(&queue, 7), 2);
    expect_empty(&queue);

    push(&queue, text("ab"));
    push_pong(&queue, pong("2"));
    expect_waiting(&queue, "\x8A\x01" "2\x81\x02" "ab", 7);
    CHECK_EQ(fc_queue_wrote(&queue, 7), 1);
    expect_empty(&queue);
}

static void the_latest_pong_stands_for_those_that_are_not_begun(void)
{
    struct fc_queue queue = {0};

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
    expect_empty(&queue);
}

static void dropping_keeps_the_message_that_is_begun(void)
{
    struct fc_queue queue = {0};

    push(&queue, text("ab"));
    push(&queue, text("c"));
    push(&queue, text("d"));
    CHECK_EQ(fc_queue_wrote(&queue, 1), 0);
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 2);
    expect_waiting(&queue, "\x02" "ab", 3);
    CHECK_EQ(queue.frames, 1);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    expect_empty(&queue);

    push(&queue, text("ab"));
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 1);
    expect_empty(&queue);
}

static void the_response_to_the_handshake_stays_first(void)
{
    struct fc_queue queue = {0};

    push(&queue, fc_message_raw(&account, "HTTP", 4));
    push(&queue, text("a"));
    push_pong(&queue, pong("1"));
    push_pong(&queue, pong("2"));
    expect_waiting(&queue, "HTTP\x8A\x01" "2\x81\x01" "a", 10);
    CHECK_EQ(fc_queue_drop_unstarted(&queue), 1);
    expect_waiting(&queue, "HTTP", 4);
    CHECK_EQ(fc_queue_wrote(&queue, 4), 0);
    expect_empty(&queue);
}

static void frames_of_a_joined_message_are_counted_one_by_one(void)
{
    struct fc_message *parts[] = {text("a"), text("b"), text("c")};
    struct fc_queue queue = {0};

    push(&queue, fc_message_join(&account, parts, 3));
    for (unsigned i = 0; i < 3; i++)
        fc_message_unref(parts[i]);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 0);
    CHECK_EQ(fc_queue_wrote(&queue, 3), 1);
    CHECK_EQ(queue.frames, 2);
    CHECK_EQ(fc_queue_wrote(&queue, 2), 1);
    CHECK_EQ(fc_queue_clear(&queue), 1);
    expect_empty(&queue);
}

static bool push_and_pong(void)
{
    struct fc_queue queue = {0};
    struct fc_message *message = text("payload");
    int error = message ? 0 : -ENOMEM;
    unsigned pushed = 0;

    for (; pushed < 10 && !error; pushed += !error)
        error = pushed == 4 ? fc_queue_push_pong(&queue, message) : fc_queue_push(&queue, message);
    CHECK(error == 0 || error == -ENOMEM);
    CHECK_EQ(queue.count, pushed);
    fc_queue_clear(&queue);
    fc_message_unref(message);
    CHECK_EQ(account.messages, 0);
    return !error;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(push_and_pong), 4);
}

/* ---- the model ---- */

struct model {
    struct fc_message *entries[64];
    bool is_pong[64];
    unsigned count;
    size_t offset;
};

static void insert(struct model *model, unsigned place, struct fc_message *message, bool is_pong)
{
    memmove(model->entries + place + 1, model->entries + place, (model->count - place) * sizeof *model->entries);
    memmove(model->is_pong + place + 1, model->is_pong + place, model->count - place);
    model->entries[place] = message;
    model->is_pong[place] = is_pong;
    model->count++;
}

static void take_out(struct model *model, unsigned place)
{
    fc_message_unref(model->entries[place]);
    model->count--;
    memmove(model->entries + place, model->entries + place + 1, (model->count - place) * sizeof *model->entries);
    memmove(model->is_pong + place, model->is_pong + place + 1, model->count - place);
}

/* What comes later waits behind it: it is begun, or may be the response to the handshake. */
static unsigned staying(const struct model *model)
{
    return model->count > 0 && (model->offset > 0 || model->entries[0]->frames == 0) ? 1 : 0;
}

static void model_pong(struct model *model, struct fc_message *message)
{
    for (unsigned place = 0; place < 2 && place < model->count; place++) {
        if (model->is_pong[place] && !(place == 0 && model->offset > 0)) {
            take_out(model, place);
            insert(model, place, message, true);
            return;
        }
    }
    insert(model, staying(model), message, true);
}

static uint64_t model_wrote(struct model *model, size_t n)
{
    uint64_t completed = 0;

    for (; n > 0; n--) {
        const struct fc_message *message = model->entries[0];
        unsigned before = message->frames ? fc_frame_count(fc_message_wire(message), model->offset) : 0;
        model->offset++;
        completed += (message->frames ? fc_frame_count(fc_message_wire(message), model->offset) : 0) - before;
        if (model->offset == message->size) {
            take_out(model, 0);
            model->offset = 0;
        }
    }
    return completed;
}

static struct fc_message *random_message(uint64_t *seed)
{
    uint8_t payload[40];
    struct fc_message *parts[4];
    unsigned n = 1 + (unsigned)(check_random(seed) % 4);

    for (unsigned i = 0; i < n; i++) {
        memset(payload, (int)(check_random(seed) % 256), sizeof payload);
        parts[i] = fc_message_frame(&account, FC_OP_BINARY, payload, check_random(seed) % sizeof payload);
    }
    struct fc_message *joined = fc_message_join(&account, parts, n);
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(parts[i]);
    return joined;
}

static void expect_like(const struct fc_queue *queue, const struct model *model)
{
    uint8_t bytes[64 * 200];
    size_t n = 0;
    struct iovec vectors[64];
    unsigned count = fc_queue_gather(queue, vectors, 64);

    CHECK_EQ(count, model->count);
    for (unsigned i = 0; i < model->count; i++) {
        size_t skip = i == 0 ? model->offset : 0;
        const struct fc_message *message = model->entries[i];
        CHECK_BYTES(vectors[i].iov_base, vectors[i].iov_len, fc_message_wire(message) + skip, message->size - skip);
        memcpy(bytes + n, vectors[i].iov_base, vectors[i].iov_len);
        n += vectors[i].iov_len;
    }
    CHECK_EQ(queue->bytes, n);
}

static void random_traffic_goes_like_the_model(void)
{
    uint64_t seed = 6;
    struct fc_queue queue = {0};
    struct model model = {0};
    uint64_t expected_frames = 0;

    for (unsigned round = 0; round < 60000; round++) {
        unsigned what = (unsigned)(check_random(&seed) % 8);
        struct fc_message *message = what < 3 ? random_message(&seed) : what == 3 ? pong("pong") : NULL;

        if (message && model.count >= 60) {
            fc_message_unref(message);
        } else if (what < 3) {
            expected_frames += message->frames;
            CHECK_EQ(fc_queue_push(&queue, message), 0);
            insert(&model, model.count, message, false);
        } else if (what == 3) {
            CHECK_EQ(fc_queue_push_pong(&queue, message), 0);
            model_pong(&model, message);
        } else if (queue.bytes > 0 && (what < 7 || round % 50)) {
            size_t n = check_random(&seed) % (queue.bytes < 150 ? queue.bytes + 1 : 150);
            uint64_t completed = fc_queue_wrote(&queue, n);
            CHECK_EQ(completed, model_wrote(&model, n));
            expected_frames -= completed;
        } else if (what == 7) {
            uint64_t dropped = 0;
            for (; model.count > staying(&model); take_out(&model, model.count - 1))
                dropped += model.entries[model.count - 1]->frames;
            CHECK_EQ(fc_queue_drop_unstarted(&queue), dropped);
            expected_frames -= dropped;
        }
        CHECK_EQ(queue.frames, expected_frames);
        expect_like(&queue, &model);
    }
    CHECK_EQ(fc_queue_clear(&queue), expected_frames);
    while (model.count > 0)
        take_out(&model, 0);
    CHECK_EQ(account.messages, 0);
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
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    RUN(random_traffic_goes_like_the_model);
    return 0;
}
