/* Messages: wire images, growing, joining, keys, the account; references dropped by many threads at once. */
#include "message.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
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

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

static struct fc_message *keyed(const char *payload, const char *name, const char *key)
{
    struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, payload, strlen(payload));

    return fc_message_set_key(message, span(name), span(key));
}

static void a_key_is_of_two_parts_and_never_on_the_wire(void)
{
    static const struct {
        const char *name;
        const char *key;
    } keys[] = {{"a", "b"}, {"a", "c"}, {"b", "b"}, {"ab", ""}, {"", "ab"},
                {"a", ""},  {"", "a"},  {"", ""},   {"aa", "b"}};
    enum { KEYS = sizeof keys / sizeof *keys };
    struct fc_message *messages[KEYS];
    struct fc_message *others[KEYS];

    for (unsigned i = 0; i < KEYS; i++) {
        messages[i] = keyed("old", keys[i].name, keys[i].key);
        others[i] = keyed("a newer one", keys[i].name, keys[i].key);
        CHECK_BYTES(fc_message_wire(messages[i]), messages[i]->size, "\x81\x03old", 5);
        CHECK_BYTES(fc_message_wire(others[i]), others[i]->size, "\x81\x0B" "a newer one", 13);
        CHECK_EQ(messages[i]->frames, 1);
        CHECK_EQ(fc_message_weight(messages[i]), sizeof(struct fc_message) + 5);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        for (unsigned k = 0; k < KEYS; k++)
            CHECK_EQ(fc_message_same_key(messages[i], others[k]), i == k);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        fc_message_unref(messages[i]);
        fc_message_unref(others[i]);
    }
    expect_nothing_alive();
}

static void keys_fit_behind_payloads_of_any_length_and_into_any_room(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536};
    static const char payload[65536] = {'p', 'q'};

    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t spare = 0; spare < 12; spare++) {
            struct fc_message *message = fc_message_new(&account, lengths[i] + spare);
            memcpy(fc_message_payload(message), payload, lengths[i]);
            fc_message_seal(message, FC_OP_BINARY, lengths[i]);
            message = fc_message_set_key(message, span("name"), span("key"));
            struct fc_message *other = keyed("", "name", "key");
            CHECK(fc_message_same_key(message, other));
            CHECK_EQ(account.messages, 2);
            CHECK_BYTES(fc_message_payload(message), lengths[i], payload, lengths[i]);
            CHECK_EQ(message->size, fc_frame_header_size(lengths[i]) + lengths[i]);
            fc_message_unref(message);
            fc_message_unref(other);
            expect_nothing_alive();
        }
    }
}

/* Names may contain any byte, see fc_topic_valid. */
static void keys_differ_wherever_the_name_ends_and_the_key_begins(void)
{
    static const struct fc_span parts[][2] = {
        {{"a", 1}, {"b\0", 2}},
        {{"a\0b", 3}, {"", 0}},
        {{"a\0b\0", 4}, {"", 0}},
        {{"a", 1}, {"b\0\0", 3}},
    };
    enum { KEYS = sizeof parts / sizeof *parts };
    struct fc_message *messages[KEYS];

    for (unsigned i = 0; i < KEYS; i++)
        messages[i] = fc_message_set_key(fc_message_frame(&account, FC_OP_TEXT, "x", 1), parts[i][0], parts[i][1]);
    for (unsigned i = 0; i < KEYS; i++) {
        for (unsigned k = 0; k < KEYS; k++)
            CHECK_EQ(fc_message_same_key(messages[i], messages[k]), i == k);
    }
    for (unsigned i = 0; i < KEYS; i++)
        fc_message_unref(messages[i]);
    expect_nothing_alive();
}

static void without_a_key_a_message_is_like_no_other(void)
{
    static const char name[UINT16_MAX] = {'n'};
    struct fc_message *plain = fc_message_frame(&account, FC_OP_TEXT, "x", 1);
    struct fc_message *too_long = fc_message_frame(&account, FC_OP_TEXT, "x", 1);
    struct fc_message *longest = fc_message_frame(&account, FC_OP_TEXT, "x", 1);
    struct fc_message *joined = fc_message_join(&account, (struct fc_message *[]){plain, plain}, 2);
    struct fc_message *key = keyed("x", "a", "b");

    CHECK(fc_message_set_key(too_long, (struct fc_span){name, sizeof name}, span("")) == too_long);
    CHECK(!fc_message_same_key(too_long, too_long));
    longest = fc_message_set_key(longest, (struct fc_span){name, sizeof name - 3}, span("k"));
    CHECK(fc_message_same_key(longest, longest));
    CHECK(!fc_message_same_key(plain, plain) && !fc_message_same_key(joined, joined));
    CHECK(!fc_message_same_key(plain, key) && !fc_message_same_key(key, plain));
    fc_message_unref(plain);
    fc_message_unref(too_long);
    fc_message_unref(longest);
    fc_message_unref(joined);
    fc_message_unref(key);
    expect_nothing_alive();
}

static void without_memory_a_message_stays_without_a_key(void)
{
    struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, "x", 1);

    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK(fc_message_set_key(message, span("name"), span("key")) == message);
    CHECK(!fc_message_same_key(message, message));
    CHECK_BYTES(fc_message_wire(message), message->size, "\x81\x01x", 3);
    fc_message_unref(message);
    expect_nothing_alive();
}

static void joined_messages_are_under_the_rule_of_the_first(void)
{
    struct fc_message *parts[2] = {
        fc_message_frame(&account, FC_OP_TEXT, "one", 3),
        fc_message_frame(&account, FC_OP_TEXT, "two", 3),
    };

    CHECK_EQ(parts[0]->rule, 0);
    parts[0]->rule = 7;
    parts[1]->rule = 9;
    parts[1] = fc_message_set_key(parts[1], span("name"), span("key"));
    CHECK_EQ(parts[1]->rule, 9);
    struct fc_message *joined = fc_message_join(&account, parts, 2);
    CHECK_EQ(joined->rule, 7);
    CHECK_BYTES(fc_message_wire(joined), joined->size, "\x81\x03one\x81\x03two", 10);
    fc_message_unref(parts[0]);
    fc_message_unref(parts[1]);
    fc_message_unref(joined);
    expect_nothing_alive();
}

static void the_account_counts_what_is_alive_and_all_that_was_made(void)
{
    unsigned long long before = account.made;
    struct fc_message *message = keyed("x", "name", "key");

    CHECK_EQ(account.messages, 1);
    CHECK_EQ(account.bytes, sizeof(struct fc_message) + FC_FRAME_HEADER_MAX + message->capacity);
    fc_message_unref(message);
    CHECK_EQ(account.made, before + 1);
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
    RUN(a_key_is_of_two_parts_and_never_on_the_wire);
    RUN(keys_fit_behind_payloads_of_any_length_and_into_any_room);
    RUN(without_a_key_a_message_is_like_no_other);
    RUN(without_memory_a_message_stays_without_a_key);
    RUN(joined_messages_are_under_the_rule_of_the_first);
    RUN(the_account_counts_what_is_alive_and_all_that_was_made);
    RUN(missing_memory_gives_null_and_nothing_leaks);
    RUN(the_last_of_many_threads_frees);
    RUN(keys_differ_wherever_the_name_ends_and_the_key_begins);
    return 0;
}
