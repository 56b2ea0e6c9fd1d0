/*
 * test_load_wire.c - what the load client says and what it accepts: handshake, frames, payloads.
 *
 * Sources: fastcast/load/digest.c fastcast/load/handshake.c fastcast/load/payload.c fastcast/load/wire.c
 */
#include "handshake.h"
#include "payload.h"
#include "test_load_check.h"
#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static void the_accept_value_is_that_of_the_rfc(void)
{
    char accept[FC_DIGEST_ACCEPT + 1];
    /* RFC 6455 section 1.3 */
    fc_digest_accept(accept, "dGhlIHNhbXBsZSBub25jZQ==", 24);
    CHECK(strcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0);
}

static int answer(const struct fc_handshake *handshake, const char *status, const char *fields,
                  const char *accept)
{
    char text[512];
    char reason[FC_HANDSHAKE_REASON];
    int size = snprintf(text, sizeof text, "HTTP/1.1 %s\r\n%sSec-WebSocket-Accept: %s\r\n\r\nrest", status,
                        fields, accept);
    int code = fc_handshake_check(handshake, text, (size_t)size, reason);
    for (int cut = 0; cut < size - 4; cut++)
        CHECK(fc_handshake_check(handshake, text, (size_t)cut, reason) == 0);
    return code < 0 ? code : code - (size - 4);
}

static void only_a_right_answer_opens(void)
{
    static const char good[] = "upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n";
    struct fc_handshake handshake;
    CHECK(fc_handshake_init(&handshake, "host:1", "/x", "A: b\r\n", "chat, super") == 0);
    const char *right = handshake.accept;
    CHECK(strncmp(handshake.request, "GET /x HTTP/1.1\r\nHost: host:1\r\n", 31) == 0);
    CHECK(strstr(handshake.request, "\r\nSec-WebSocket-Protocol: chat, super\r\nA: b\r\n\r\n") != NULL);
    CHECK(answer(&handshake, "101 Switching Protocols", good, right) == 0);
    CHECK(answer(&handshake, "101 Switching Protocols", good, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == -EPROTO);
    CHECK(answer(&handshake, "200 OK", good, right) == -EPROTO);
    CHECK(answer(&handshake, "101 Switching Protocols", "Upgrade: websocket\r\n", right) == -EPROTO);
    CHECK(answer(&handshake, "101 Switching Protocols", "Connection: Upgrade\r\n", right) == -EPROTO);
    char fields[256];
    static const struct {
        const char *field;
        int code;
    } rows[] = {
        {"Sec-WebSocket-Protocol: super\r\n", 0},
        {"Sec-WebSocket-Protocol: other\r\n", -EPROTO},
        {"Sec-WebSocket-Extensions: permessage-deflate\r\n", -EPROTO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(fields, sizeof fields, "%s%s", good, rows[i].field);
        CHECK(answer(&handshake, "101 x", fields, right) == rows[i].code);
    }
    fc_handshake_free(&handshake);
}

static void server_heads_are_read_at_every_cut(void)
{
    static const struct {
        uint8_t bytes[10];
        uint8_t head;
        uint64_t length;
    } rows[] = {
        {{0x82, 0}, 2, 0},
        {{0x81, 125}, 2, 125},
        {{0x82, 126, 0, 126}, 4, 126},
        {{0x02, 126, 0xff, 0xff}, 4, 65535},
        {{0x80, 127, 0, 0, 0, 0, 0, 1, 0, 0}, 10, 65536},
        {{0x89, 125}, 2, 125},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fc_wire_frame frame;
        for (size_t cut = 0; cut < rows[i].head; cut++) {
            CHECK(fc_wire_parse(rows[i].bytes, cut, &frame) == 0);
            CHECK(frame.head > cut && frame.head <= rows[i].head);
        }
        CHECK(fc_wire_parse(rows[i].bytes, rows[i].head, &frame) == 1);
        CHECK(frame.head == rows[i].head && frame.length == rows[i].length);
        CHECK(frame.opcode == (rows[i].bytes[0] & 15) && frame.fin == (rows[i].bytes[0] >> 7));
    }
}

static void what_no_server_may_send_is_refused(void)
{
    static const uint8_t rows[][10] = {
        {0xc2, 1},                                /* RSV1 */
        {0x83, 1},                                /* reserved data opcode */
        {0x8b, 1},                                /* reserved control opcode */
        {0x82, 0x81},                             /* masked */
        {0x09, 1},                                /* fragmented control frame */
        {0x88, 126, 0, 126},                      /* long control frame */
        {0x82, 126, 0, 125},                      /* length not minimal */
        {0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 255}, /* length not minimal */
        {0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0},   /* top bit of the length */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fc_wire_frame frame;
        CHECK(fc_wire_parse(rows[i], sizeof rows[i], &frame) == -EPROTO);
    }
}

static void client_frames_are_masked_with_the_shortest_length(void)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536};
    static uint8_t payload[65536];
    static uint8_t frame[65536 + FC_WIRE_MAX_CLIENT_HEAD];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 31);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        size_t extended = size < 126 ? 0 : size < 65536 ? 2 : 8;
        size_t head = 6 + extended;
        CHECK(fc_wire_write(frame, FC_WIRE_TEXT, 0xa1b2c3d4, payload, size) == head + size);
        CHECK(frame[0] == 0x81);
        CHECK(frame[1] == (0x80 | (extended == 0 ? size : extended == 2 ? 126 : 127)));
        const uint8_t *key = frame + head - 4;
        CHECK(key[0] == 0xd4 && key[3] == 0xa1);
        bool same = true;
        for (size_t j = 0; j < size; j++)
            same = same && (frame[head + j] ^ key[j & 3]) == payload[j];
        CHECK(same);
    }
}

static void a_payload_shows_every_damaged_bit(void)
{
    static const size_t sizes[] = {32, 33, 64, 71, 128};
    for (unsigned text = 0; text < 2; text++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct fc_payload_head wrote = {7, 0x123456789, UINT64_C(0xfedcba987654321)};
            struct fc_payload_head read;
            uint8_t bytes[128];
            size_t size = sizes[i];
            if (text && size < FC_PAYLOAD_MIN_TEXT)
                continue;
            fc_payload_write(bytes, size, text, &wrote);
            CHECK(fc_payload_check(bytes, size, text, true, &read));
            CHECK(read.sender == 7 && read.sequence == 0x123456789 && read.sent_ns == wrote.sent_ns);
            for (size_t j = 0; j < size; j++) {
                CHECK(!text || (bytes[j] >= ' ' && bytes[j] < 0x7f));
                for (unsigned bit = 0; bit < 8; bit++) {
                    bytes[j] ^= (uint8_t)(1u << bit);
                    CHECK(!fc_payload_check(bytes, size, text, true, &read));
                    bytes[j] ^= (uint8_t)(1u << bit);
                }
            }
        }
    }
}

static void bytes_that_moved_are_damage(void)
{
    struct fc_payload_head head = {1, 2, 3};
    struct fc_payload_head read;
    uint8_t bytes[256];
    for (size_t by = 1; by < 32; by++) {
        fc_payload_write(bytes, sizeof bytes, false, &head);
        memmove(bytes + 64, bytes + 64 + by, sizeof bytes - 64 - by);
        CHECK(!fc_payload_check(bytes, sizeof bytes, false, true, &read));
        CHECK(fc_payload_check(bytes, sizeof bytes, false, false, &read));
    }
    CHECK(!fc_payload_check(bytes, FC_PAYLOAD_MIN_BINARY - 1, false, false, &read));
}

int main(void)
{
    the_accept_value_is_that_of_the_rfc();
    only_a_right_answer_opens();
    server_heads_are_read_at_every_cut();
    what_no_server_may_send_is_refused();
    client_frames_are_masked_with_the_shortest_length();
    a_payload_shows_every_damaged_bit();
    bytes_that_moved_are_damage();
    return check_result();
}
