/* Messages: wire images, growing, joining, the account; references dropped by many threads at once. */
#include "message.h"

#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct fc_account account;

static void expect_nothing_alive(void)
{
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(account.bytes, 0);
}

static void a_frame_is_header_and_payload_for_every_kind_of_length(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536, 100000};
    static const char payload[100000] = {'p', 'q'};

    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t header[FC_FRAME_HEADER_MAX];
        size_t size = fc_frame_write_header(header, FC_OP_TEXT, lengths[i]);
        struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, payload, lengths[i]);

        CHECK_BYTES(fc_message_wire(message), size, header, size);
        CHECK_BYTES(fc_message_wire(message) + size, message->size - size, payload, lengths[i]);
        CHECK_EQ(message->frames, 1);
        CHECK(fc_message_weight(message) > message->size);
        fc_message_unref(message);
        expect_nothing_alive();
    }
}

static void control_frames_and_raw_bytes_are_not_counted_as_frames(void)
{
    struct fc_message *ping = fc_message_frame(&account, FC_OP_PING, "hi", 2);
    struct fc_message *raw = fc_message_raw(&account, "HTTP/1.1", 8);
    struct fc_message *empty = fc_message_raw(&account, NULL, 0);

    CHECK_BYTES(fc_message_wire(ping), ping->size, "\x89\x02hi", 4);
    CHECK_EQ(ping->frames, 0);
    CHECK_BYTES(fc_message_wire(raw), raw->size, "HTTP/1.1", 8);
    CHECK_EQ(raw->frames, 0);
    CHECK_EQ(empty->size, 0);
    CHECK_EQ(account.messages, 3);
    fc_message_unref(ping);
    fc_message_unref(raw);
    fc_message_unref(empty);
    expect_nothing_alive();
}

static void a_message_keeps_its_payload_when_it_is_resized(void)
{
    struct fc_message *message = fc_message_new(&account, 4);
    size_t before = account.bytes;

    memcpy(fc_message_payload(message), "abcd", 4);
    message = fc_message_resize(message, 5000);
    CHECK_EQ(account.bytes, before + 4996);
    CHECK_EQ(account.messages, 1);
    memset(fc_message_payload(message) + 4, 'e', 4996);
    fc_message_seal(message, FC_OP_BINARY, 6);
    CHECK_BYTES(fc_message_wire(message), message->size, "\x82\x06" "abcdee", 8);
    fc_message_unref(message);
    expect_nothing_alive();
}

static void joined_messages_are_their_wire_images_in_a_row(void)
{
    struct fc_message *parts[3] = {
        fc_message_frame(&account, FC_OP_TEXT, "one", 3),
        fc_message_frame(&account, FC_OP_PING, "", 0),
        fc_message_frame(&account, FC_OP_BINARY, "two", 3),
    };
    struct fc_message *joined = fc_message_join(&account, parts, 3);

    CHECK_BYTES(fc_message_wire(joined), joined->size, "\x81\x03one\x89\x00\x82\x03two", 12);
    CHECK_EQ(joined->frames, 2);
    for (unsigned i = 0; i < 3; i++)
        fc_message_unref(parts[i]);
    fc_message_unref(joined);
    expect_nothing_alive();
}

static void a_message_lives_until_its_last_reference(void)
{
    struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, "x", 1);

    CHECK(fc_message_ref(message) == message);
    fc_message_unref(message);
    CHECK_EQ(account.messages, 1);
    CHECK_BYTES(fc_message_wire(message), message->size, "\x81\x01x", 3);
    fc_message_unref(message);
    fc_message_unref(NULL);
    expect_nothing_alive();
}

static bool make_all_kinds(void)
{
    struct fc_message *message = fc_message_new(&account, 1);
    struct fc_message *grown = message ? fc_message_resize(message, 100) : NULL;
    struct fc_message *frame = fc_message_frame(&account, FC_OP_TEXT, "x", 1);
    struct fc_message *raw = fc_message_raw(&account, "x", 1);
    struct fc_message *joined = frame && raw ? fc_message_join(&account, (struct fc_message *[]){frame, raw}, 2) : NULL;

    fc_message_unref(grown ? grown : message);
    fc_message_unref(frame);
    fc_message_unref(raw);
    fc_message_unref(joined);
    expect_nothing_alive();
    return grown && joined;
}

static void missing_memory_gives_null_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(make_all_kinds), 5);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 20000 };

static _Atomic(struct fc_message *) given[THREADS][ROUNDS];

/* Gives a reference of each message to every reader, and drops its own at once. */
static void *give(void *argument)
{
    (void)argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t byte = (uint8_t)round;
        struct fc_message *message = fc_message_frame(&account, FC_OP_BINARY, &byte, 1);
        for (unsigned i = 0; i < THREADS; i++)
            atomic_store_explicit(&given[i][round], fc_message_ref(message), memory_order_release);
        fc_message_unref(message);
    }
    return NULL;
}

static void *read_and_drop(void *argument)
{
    _Atomic(struct fc_message *) *mine = argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct fc_message *message;
        WAIT_UNTIL((message = atomic_load_explicit(&mine[round], memory_order_acquire)));
        CHECK_EQ(fc_message_wire(message)[2], (uint8_t)round);
        fc_message_unref(message);
    }
    return NULL;
}

static void the_last_of_many_threads_frees(void)
{
    pthread_t giver;
    pthread_t readers[THREADS];

    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&readers[i], NULL, read_and_drop, given[i]), 0);
    CHECK_EQ(pthread_create(&giver, NULL, give, NULL), 0);
    pthread_join(giver, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(readers[i], NULL);
    expect_nothing_alive();
}

int main(void)
{
    RUN(a_frame_is_header_and_payload_for_every_kind_of_length);
    RUN(control_frames_and_raw_bytes_are_not_counted_as_frames);
    RUN(a_message_keeps_its_payload_when_it_is_resized);
    RUN(joined_messages_are_their_wire_images_in_a_row);
    RUN(a_message_lives_until_its_last_reference);
    RUN(missing_memory_gives_null_and_nothing_leaks);
    RUN(the_last_of_many_threads_frees);
    return 0;
}
