/* The receiving machine against the reference: each case in every chunk size and at every split point, its input placed
 * before an unreadable page; then random streams. */
#include "inbound.h"

#include "check.h"
#include "frames.h"
#include "guard.h"
#include "reference.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGE 1000

static struct fc_account account;
static struct guard guard;

static struct fc_inbound_limits limits(void)
{
    return (struct fc_inbound_limits){.account = &account, .max_message = MAX_MESSAGE, .max_alive = SIZE_MAX};
}

static size_t fixed_chunk(void *context, size_t left)
{
    const size_t *size = context;

    return *size < left ? *size : left;
}

/* First `split` bytes, then the rest. */
static size_t two_chunks(void *context, size_t left)
{
    size_t *split = context;
    size_t now = *split > 0 && *split < left ? *split : left;

    *split = 0;
    return now;
}

static size_t random_chunk(void *context, size_t left)
{
    uint64_t *seed = context;
    uint64_t number = check_random(seed);
    size_t most = number & 1 ? 5 : 300; /* small ones cut headers, large ones hold many frames */
    size_t size = 1 + (number >> 1) % most;

    return size < left ? size : left;
}

static struct transcript parsed(const uint8_t *in, size_t n, size_t (*next_chunk)(void *, size_t), void *context)
{
    struct fc_inbound_limits with = limits();
    struct transcript transcript = {0};

    inbound_parse(in, n, &with, next_chunk, context, &transcript);
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(account.bytes, 0);
    return transcript;
}

static void expect_equal(struct transcript *actual, const struct transcript *expected)
{
    CHECK_EQ(actual->error, expected->error);
    CHECK(transcript_equal(actual, expected));
    transcript_free(actual);
}

/* Every chunk size, every split point, and the error exactly when its byte has come. */
static void replay(const struct frames *wire)
{
    struct transcript expected = {0};
    const uint8_t *in = guard_copy(&guard, wire->bytes, wire->length);

    reference_parse(wire->bytes, wire->length, MAX_MESSAGE, &expected);
    for (size_t size = 1; size <= wire->length; size++) {
        struct transcript actual = parsed(in, wire->length, fixed_chunk, &size);
        expect_equal(&actual, &expected);
    }
    for (size_t split = 1; split < wire->length; split++) {
        size_t first = split;
        struct transcript actual = parsed(in, wire->length, two_chunks, &first);
        expect_equal(&actual, &expected);

        struct transcript prefix = parsed(guard_copy(&guard, wire->bytes, split), split, fixed_chunk, &(size_t){split});
        CHECK_EQ(prefix.error, expected.error && expected.error_at <= split ? expected.error : 0);
        transcript_free(&prefix);
        guard_copy(&guard, wire->bytes, wire->length);
    }
    transcript_free(&expected);
}

static void expect(struct frames *wire, unsigned items, int error)
{
    struct transcript transcript = {0};

    reference_parse(wire->bytes, wire->length, MAX_MESSAGE, &transcript);
    CHECK_EQ(transcript.count, items);
    CHECK_EQ(transcript.error, error);
    transcript_free(&transcript);
    replay(wire);
    frames_free(wire);
}

static void single_frames_of_all_length_encodings(void)
{
    static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 255, 256, 999, 1000};
    char payload[MAX_MESSAGE];

    memset(payload, 'x', sizeof payload);
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct frames wire = {0};
        frames_frame(&wire, true, i % 2 ? FC_OP_TEXT : FC_OP_BINARY, payload, lengths[i]);
        frames_text(&wire, "behind");
        expect(&wire, 2, 0);
    }
}

static void a_long_message_in_the_64_bit_encoding(void)
{
    struct fc_inbound_limits with = {.account = &account, .max_message = 100000, .max_alive = SIZE_MAX};
    static uint8_t payload[70000];
    static const size_t sizes[] = {1, 13, 14, 4096, 65536, 70014};
    struct frames wire = {0};
    struct transcript expected = {0};
    uint64_t seed = 3;

    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)check_random(&seed);
    frames_frame(&wire, true, FC_OP_BINARY, payload, sizeof payload);
    reference_parse(wire.bytes, wire.length, with.max_message, &expected);
    CHECK_EQ(expected.count, 1);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct transcript actual = {0};
        size_t size = sizes[i];
        inbound_parse(wire.bytes, wire.length, &with, fixed_chunk, &size, &actual);
        expect_equal(&actual, &expected);
    }
    transcript_free(&expected);
    frames_free(&wire);
}

static void fragments_with_control_frames_between_them(void)
{
    struct frames wire = {0};

    frames_frame(&wire, false, FC_OP_TEXT, "one ", 4);
    frames_frame(&wire, true, FC_OP_PING, "ping", 4);
    frames_frame(&wire, false, FC_OP_CONTINUATION, "two ", 4);
    frames_frame(&wire, true, FC_OP_PONG, "", 0);
    frames_frame(&wire, false, FC_OP_CONTINUATION, "", 0);
    frames_frame(&wire, true, FC_OP_CONTINUATION, "three", 5);
    frames_frame(&wire, false, FC_OP_BINARY, "", 0);
    frames_frame(&wire, true, FC_OP_CONTINUATION, "", 0);
    frames_frame(&wire, true, FC_OP_CLOSE, "\x03\xE8" "bye", 5);
    expect(&wire, 5, 0);
}

static void a_character_cut_by_fragments_stays_text(void)
{
    struct frames wire = {0};

    frames_frame(&wire, false, FC_OP_TEXT, "\xF0\x9F", 2);
    frames_frame(&wire, true, FC_OP_PING, "\xFF\xFF", 2); /* no text is asked of it */
    frames_frame(&wire, false, FC_OP_CONTINUATION, "\x98", 1);
    frames_frame(&wire, true, FC_OP_CONTINUATION, "\x80", 1);
    frames_text(&wire, "\xC3\xA9");
    expect(&wire, 3, 0);
}

static void control_frames_of_all_lengths(void)
{
    static const uint8_t opcodes[] = {FC_OP_PING, FC_OP_PONG};
    char payload[FC_FRAME_CONTROL_MAX];

    memset(payload, 'p', sizeof payload);
    for (unsigned i = 0; i < 2; i++) {
        for (size_t n = 0; n <= sizeof payload; n += 25) {
            struct frames wire = {0};
            frames_frame(&wire, true, opcodes[i], payload, n);
            frames_frame(&wire, true, opcodes[i], payload, n);
            expect(&wire, 2, 0);
        }
    }
}

static void broken_text_fails_at_its_first_bad_byte(void)
{
    static const char *const texts[] = {
        "ok\xFFtail",   "\xC0\x80 overlong", "cut \xE2\x82",
        "\xED\xA0\x80", "\xF4\x90\x80\x80",  "long long long text before it \x80 and after",
    };

    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct frames whole = {0};
        frames_text(&whole, texts[i]);
        expect(&whole, 0, -FC_ERR_UTF8);

        struct frames parts = {0};
        size_t n = strlen(texts[i]);
        frames_frame(&parts, false, FC_OP_TEXT, texts[i], n / 2);
        frames_frame(&parts, true, FC_OP_CONTINUATION, texts[i] + n / 2, n - n / 2);
        expect(&parts, 0, -FC_ERR_UTF8);

        struct frames binary = {0};
        frames_frame(&binary, true, FC_OP_BINARY, texts[i], n);
        expect(&binary, 1, 0);
    }
}

static void frames_that_break_the_rules(void)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"\xC1\x80", 2},                             /* RSV1 */
        {"\xA1\x80", 2},                             /* RSV2 */
        {"\x91\x80", 2},                             /* RSV3 */
        {"\x83\x80", 2},                             /* a reserved opcode for data */
        {"\x8B\x80", 2},                             /* one for control */
        {"\x81\x05hello", 7},                        /* not masked */
        {"\x09\x80mask", 6},                         /* a Ping in fragments */
        {"\x89\xFE\x00\x7Emask", 8},                 /* a Ping of 126 bytes */
        {"\x80\x80mask", 6},                         /* a continuation of nothing */
        {"\x81\xFE\x00\x7Dmask", 8},                 /* 125 in 16 bits */
        {"\x81\xFF\0\0\0\0\0\0\xFF\xFFmask", 14},    /* 65,535 in 64 bits */
        {"\x81\xFF\x80\0\0\0\0\0\0\0mask", 14},      /* the highest bit of the length */
        {"\x88\x81\0\0\0\0\x03", 7},                 /* half a close code */
        {"\x88\x82\0\0\0\0\x03\xED", 8},             /* 1005 on the wire */
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct frames wire = {0};
        frames_text(&wire, "before");
        frames_add(&wire, cases[i].bytes, cases[i].n);
        frames_text(&wire, "never seen");
        expect(&wire, 1, -FC_ERR_PROTOCOL);
    }
}

static void a_new_message_amid_fragments_breaks_the_rules(void)
{
    struct frames wire = {0};

    frames_frame(&wire, false, FC_OP_TEXT, "begun", 5);
    frames_text(&wire, "another");
    expect(&wire, 0, -FC_ERR_PROTOCOL);
}

static void a_close_with_a_reason_that_is_no_text(void)
{
    struct frames wire = {0};

    frames_frame(&wire, true, FC_OP_CLOSE, "\x03\xE8\xC3", 3);
    expect(&wire, 0, -FC_ERR_UTF8);
}

static void a_message_over_the_limit_fails_with_its_header(void)
{
    char payload[MAX_MESSAGE];
    struct frames wire = {0};

    memset(payload, 'x', sizeof payload);
    frames_header(&wire, 0x82, 4, MAX_MESSAGE + 1);
    expect(&wire, 0, -FC_ERR_TOO_BIG);

    frames_frame(&wire, false, FC_OP_TEXT, payload, 600);
    frames_header(&wire, 0x00, 4, 401);
    expect(&wire, 0, -FC_ERR_TOO_BIG);

    frames_frame(&wire, false, FC_OP_TEXT, payload, 600);
    frames_frame(&wire, true, FC_OP_CONTINUATION, payload, 400);
    expect(&wire, 1, 0);

    frames_header(&wire, 0x82, 10, UINT64_C(0x7FFFFFFFFFFFFFFF));
    expect(&wire, 0, -FC_ERR_TOO_BIG);
}

static void random_frame(struct frames *wire, uint64_t *seed)
{
    static const uint8_t opcodes[] = {FC_OP_TEXT, FC_OP_TEXT,  FC_OP_BINARY, FC_OP_CONTINUATION, FC_OP_CONTINUATION,
                                      FC_OP_PING, FC_OP_PONG, FC_OP_CLOSE,  3};
    uint8_t payload[700];
    uint64_t number = check_random(seed);
    uint8_t opcode = opcodes[number % (number & 0x100 ? 7 : 9)];
    size_t n = (number >> 16) % (opcode >= 8 ? 126 : number & 0x200 ? 20 : sizeof payload);

    for (size_t i = 0; i < n; i++)
        payload[i] = number & 0x400 || opcode == FC_OP_BINARY ? (uint8_t)check_random(seed) : 'a';
    frames_frame(wire, opcode >= 8 || number & 0x800, opcode, payload, n);
}

static void random_streams_give_what_the_reference_gives(void)
{
    uint64_t seed = 4;

    for (unsigned round = 0; round < 4000; round++) {
        struct frames wire = {0};
        struct transcript expected = {0};
        for (uint64_t frames = 1 + check_random(&seed) % 12; frames > 0; frames--)
            random_frame(&wire, &seed);
        if (round % 3 == 0)
            wire.bytes[check_random(&seed) % wire.length] ^= (uint8_t)(1u << check_random(&seed) % 8);
        size_t n = wire.length < guard.size ? wire.length : guard.size;
        const uint8_t *in = guard_copy(&guard, wire.bytes, n);
        reference_parse(in, n, MAX_MESSAGE, &expected);
        for (unsigned k = 0; k < 4; k++) {
            struct transcript actual = parsed(in, n, random_chunk, &seed);
            expect_equal(&actual, &expected);
        }
        transcript_free(&expected);
        frames_free(&wire);
    }
}

static void memory_follows_the_bytes_and_not_the_announcement(void)
{
    struct fc_inbound_limits with = {.account = &account, .max_message = SIZE_MAX / 4, .max_alive = SIZE_MAX};
    struct fc_inbound in = {0};
    struct fc_item item;
    struct frames wire = {0};
    size_t used;

    frames_header(&wire, 0x82, 10, UINT64_C(1) << 40);
    frames_add(&wire, "only this", 9);
    CHECK_EQ(fc_inbound_next(&in, &with, wire.bytes, wire.length, &used, &item), 0);
    CHECK_EQ(used, wire.length);
    CHECK_EQ(account.messages, 1);
    CHECK(account.bytes < 8192);
    fc_inbound_clear(&in);
    CHECK_EQ(account.bytes, 0);
    frames_free(&wire);
}

static void a_message_in_the_making_may_not_grow_when_memory_is_used_up(void)
{
    struct fc_inbound_limits with = {.account = &account, .max_message = MAX_MESSAGE, .max_alive = 0};
    struct fc_message *others = fc_message_new(&account, 10);
    struct fc_inbound in = {0};
    struct fc_item item;
    struct frames wire = {0};
    size_t used;

    /* All at once: needs no patience. */
    frames_text(&wire, "complete");
    CHECK_EQ(fc_inbound_next(&in, &with, wire.bytes, wire.length, &used, &item), 1);
    fc_message_unref(item.message);
    /* Its last byte is missing. */
    CHECK_EQ(fc_inbound_next(&in, &with, wire.bytes, wire.length - 1, &used, &item), -FC_ERR_TRY_LATER);
    fc_inbound_clear(&in);
    fc_message_unref(others);
    frames_free(&wire);
}

static void at_rest_means_that_nothing_is_kept(void)
{
    struct fc_inbound_limits with = limits();
    struct fc_inbound in = {0};
    struct fc_item item;
    struct frames wire = {0};
    size_t used;

    frames_frame(&wire, false, FC_OP_TEXT, "ab", 2);
    frames_frame(&wire, true, FC_OP_CONTINUATION, "cd", 2);
    CHECK(fc_inbound_at_rest(&in));
    for (size_t i = 0; i < wire.length; i++) {
        int result = fc_inbound_next(&in, &with, wire.bytes + i, 1, &used, &item);
        CHECK_EQ(used, 1);
        CHECK_EQ(result, i == wire.length - 1);
        CHECK_EQ(fc_inbound_at_rest(&in), i == wire.length - 1);
    }
    CHECK_BYTES(fc_message_payload(item.message), 4, "abcd", 4);
    fc_message_unref(item.message);
    frames_free(&wire);
}

static struct frames prepared;

static bool receive_byte_by_byte(void)
{
    struct fc_inbound_limits with = limits();
    struct fc_inbound in = {0};
    int result = 0;

    for (size_t i = 0; i < prepared.length && result >= 0; i++) {
        struct fc_item item;
        size_t used;
        result = fc_inbound_next(&in, &with, prepared.bytes + i, 1, &used, &item);
        if (result > 0)
            fc_message_unref(item.message);
    }
    CHECK(result >= 0 || result == -ENOMEM);
    fc_inbound_clear(&in);
    CHECK_EQ(account.messages, 0);
    return result >= 0;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    char payload[400];

    memset(payload, 'x', sizeof payload);
    frames_frame(&prepared, true, FC_OP_BINARY, payload, 400);
    frames_frame(&prepared, false, FC_OP_TEXT, payload, 100);
    frames_frame(&prepared, true, FC_OP_CONTINUATION, payload, 400);
    CHECK(check_each_allocation(receive_byte_by_byte) >= 2);
    frames_free(&prepared);
}

int main(void)
{
    guard_open(&guard, 8000);
    RUN(single_frames_of_all_length_encodings);
    RUN(a_long_message_in_the_64_bit_encoding);
    RUN(fragments_with_control_frames_between_them);
    RUN(a_character_cut_by_fragments_stays_text);
    RUN(control_frames_of_all_lengths);
    RUN(broken_text_fails_at_its_first_bad_byte);
    RUN(frames_that_break_the_rules);
    RUN(a_new_message_amid_fragments_breaks_the_rules);
    RUN(a_close_with_a_reason_that_is_no_text);
    RUN(a_message_over_the_limit_fails_with_its_header);
    RUN(random_streams_give_what_the_reference_gives);
    RUN(memory_follows_the_bytes_and_not_the_announcement);
    RUN(a_message_in_the_making_may_not_grow_when_memory_is_used_up);
    RUN(at_rest_means_that_nothing_is_kept);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    guard_close(&guard);
    return 0;
}
