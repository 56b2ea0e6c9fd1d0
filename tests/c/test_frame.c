/* Headers, masks, close codes and counting: all values where they are few, all borders where they are many. */
#include "frame.h"

#include "check.h"
#include "guard.h"
#include "reference.h"
#include "frames.h"

#include <stdlib.h>
#include <string.h>

static struct guard guard;

static int parse(const void *bytes, size_t n, struct fc_frame_header *header)
{
    return fc_frame_parse_header(guard_copy(&guard, bytes, n), n, header);
}

static void a_written_header_has_the_shortest_length(void)
{
    static const struct {
        uint64_t length;
        uint8_t bytes[10];
        size_t size;
    } cases[] = {
        {0, {0x82, 0}, 2},
        {125, {0x82, 125}, 2},
        {126, {0x82, 126, 0, 126}, 4},
        {65535, {0x82, 126, 0xFF, 0xFF}, 4},
        {65536, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, 10},
        {UINT64_C(0x0102030405060708), {0x82, 127, 1, 2, 3, 4, 5, 6, 7, 8}, 10},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *out = guard_place(&guard, cases[i].size);
        CHECK_EQ(fc_frame_header_size(cases[i].length), cases[i].size);
        CHECK_EQ(fc_frame_write_header(out, FC_OP_BINARY, cases[i].length), cases[i].size);
        CHECK_BYTES(out, cases[i].size, cases[i].bytes, cases[i].size);
    }
}

static void every_first_pair_of_bytes_is_judged_at_the_earliest_byte(void)
{
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        uint8_t bytes[] = {(uint8_t)(pair >> 8), (uint8_t)pair};
        uint8_t opcode = bytes[0] & 0x0F;
        bool first_is_wrong = (bytes[0] & 0x70) || (opcode > 2 && opcode < 8) || opcode > 10 ||
                              (opcode >= 8 && !(bytes[0] & 0x80));
        bool second_is_wrong = !(bytes[1] & 0x80) || (opcode >= 8 && (bytes[1] & 0x7F) > 125);
        struct fc_frame_header header;

        CHECK_EQ(parse(bytes, 1, &header), first_is_wrong ? -FC_ERR_PROTOCOL : FC_PARTIAL);
        CHECK_EQ(parse(bytes, 2, &header), first_is_wrong || second_is_wrong ? -FC_ERR_PROTOCOL : FC_PARTIAL);
    }
}

static void a_header_is_partial_until_its_last_byte(void)
{
    static const struct {
        unsigned size;
        uint64_t length;
    } cases[] = {{2, 0},  {2, 125},   {4, 126},         {4, 127},
                 {4, 256}, {4, 65535}, {10, 65536}, {10, UINT64_C(0x7FFFFFFFFFFFFFFF)}};

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct frames wire = {0};
        struct fc_frame_header header;
        frames_header(&wire, 0x02, cases[i].size, cases[i].length);
        for (size_t n = 0; n < wire.length; n++)
            CHECK_EQ(parse(wire.bytes, n, &header), FC_PARTIAL);
        frames_add(&wire, "payload", 7);
        for (size_t n = wire.length - 7; n <= wire.length; n++) {
            CHECK_EQ(parse(wire.bytes, n, &header), cases[i].size + 4);
            CHECK_EQ(header.length, cases[i].length);
            CHECK_EQ(header.opcode, FC_OP_BINARY);
            CHECK(!header.fin);
            CHECK_BYTES(header.mask, 4, wire.bytes + cases[i].size, 4);
        }
        frames_free(&wire);
    }
}

static void a_length_that_is_wrong_fails_at_the_byte_that_proves_it(void)
{
    static const struct {
        unsigned size;
        uint64_t length;
        size_t proof;
    } cases[] = {
        {4, 0, 4},      {4, 125, 4},
        {10, 0, 8},     {10, 65535, 8},
        {10, UINT64_C(1) << 63, 3}, {10, UINT64_MAX, 3},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct frames wire = {0};
        struct fc_frame_header header;
        frames_header(&wire, 0x81, cases[i].size, cases[i].length);
        for (size_t n = 0; n <= wire.length; n++)
            CHECK_EQ(parse(wire.bytes, n, &header), n < cases[i].proof ? FC_PARTIAL : -FC_ERR_PROTOCOL);
        frames_free(&wire);
    }
}

static void unmasking_is_right_at_every_length_phase_and_alignment(void)
{
    static const uint64_t far_phases[] = {UINT64_C(0xFFFFFFFF), UINT64_C(0x100000001), UINT64_MAX - 2};
    static const uint8_t mask[4] = {0x12, 0x9A, 0xBC, 0xF1};
    uint64_t seed = 2;
    uint8_t in[160];
    uint8_t expected[160];

    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)check_random(&seed);
    for (size_t n = 0; n <= 140; n++) {
        for (unsigned k = 0; k < 11; k++) {
            uint64_t phase = k < 8 ? k : far_phases[k - 8];
            for (size_t alignment = 0; alignment < 8; alignment++) {
                for (size_t i = 0; i < n; i++)
                    expected[i] = in[alignment + i] ^ mask[(phase + i) % 4];
                uint8_t *out = guard_place(&guard, n);
                fc_frame_unmask(out, in + alignment, n, mask, phase);
                CHECK_BYTES(out, n, expected, n);
                uint8_t in_place[160];
                memcpy(in_place, in, sizeof in);
                fc_frame_unmask(in_place + alignment, in_place + alignment, n, mask, phase);
                CHECK_BYTES(in_place + alignment, n, expected, n);
                CHECK_BYTES(in_place + alignment + n, 160 - alignment - n, in + alignment + n, 160 - alignment - n);
            }
        }
    }
}

static void every_close_code_is_judged(void)
{
    for (unsigned code = 0; code < 0x10000; code++) {
        uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};
        bool allowed = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                       (code >= 3000 && code <= 4999);
        CHECK_EQ(fc_frame_parse_close(guard_copy(&guard, payload, 2), 2), allowed ? (int)code : -FC_ERR_PROTOCOL);
    }
}

static void a_close_without_code_with_half_a_code_or_with_a_bad_reason(void)
{
    static const uint8_t good[] = "\x03\xE8" "au revoir \xC3\xA0";
    size_t n = sizeof good - 1;

    CHECK_EQ(fc_frame_parse_close(guard_copy(&guard, good, 0), 0), FC_CLOSE_NO_STATUS);
    CHECK_EQ(fc_frame_parse_close(guard_copy(&guard, good, 1), 1), -FC_ERR_PROTOCOL);
    for (size_t length = 2; length <= n; length++) {
        int expected = length == n - 1 ? -FC_ERR_UTF8 : 1000;
        CHECK_EQ(fc_frame_parse_close(guard_copy(&guard, good, length), length), expected);
    }
    CHECK_EQ(fc_frame_parse_close((const uint8_t *)"\x03\xE8\xFF", 3), -FC_ERR_UTF8);
}

static void a_written_close_can_be_parsed(void)
{
    uint8_t *out = guard_place(&guard, 4);

    CHECK_EQ(fc_frame_write_close(out, 1008), 4);
    CHECK_BYTES(out, 4, "\x88\x02\x03\xF0", 4);
    CHECK_EQ(fc_frame_parse_close(out + 2, 2), 1008);
    out = guard_place(&guard, 2);
    CHECK_EQ(fc_frame_write_close(out, FC_CLOSE_NO_STATUS), 2);
    CHECK_BYTES(out, 2, "\x88\x00", 2);
}

static void frames_are_counted_when_their_last_byte_is_there(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 300, 65535, 65536, 5, 0};
    enum { FRAMES = sizeof lengths / sizeof *lengths };
    size_t ends[FRAMES];
    size_t n = 0;
    struct frames wire = {0};

    for (unsigned i = 0; i < FRAMES; i++) {
        uint8_t header[FC_FRAME_HEADER_MAX];
        uint8_t *payload = calloc(lengths[i] + 1, 1);
        frames_add(&wire, header, fc_frame_write_header(header, FC_OP_TEXT, lengths[i]));
        frames_add(&wire, payload, lengths[i]);
        free(payload);
        ends[i] = wire.length;
    }
    for (unsigned expected = 0; n <= wire.length; n++) {
        while (expected < FRAMES && ends[expected] <= n)
            expected++;
        /* Prefixes around the borders are enough: those amid 65,536 bytes are all alike. */
        bool near_a_border = n < 1000;
        for (unsigned i = 0; i < FRAMES; i++)
            near_a_border = near_a_border || (n + 12 > ends[i] && n < ends[i] + 12);
        if (near_a_border)
            CHECK_EQ(fc_frame_count(wire.bytes, n), expected);
    }
    frames_free(&wire);
}

int main(void)
{
    guard_open(&guard, 4096);
    RUN(a_written_header_has_the_shortest_length);
    RUN(every_first_pair_of_bytes_is_judged_at_the_earliest_byte);
    RUN(a_header_is_partial_until_its_last_byte);
    RUN(a_length_that_is_wrong_fails_at_the_byte_that_proves_it);
    RUN(unmasking_is_right_at_every_length_phase_and_alignment);
    RUN(every_close_code_is_judged);
    RUN(a_close_without_code_with_half_a_code_or_with_a_bad_reason);
    RUN(a_written_close_can_be_parsed);
    RUN(frames_are_counted_when_their_last_byte_is_there);
    guard_close(&guard);
    return 0;
}
