/* The wire format of RFC 6455 section 5.2: encode and parse frame headers, unmask payloads. */
#ifndef FC_FRAME_H
#define FC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fc_opcode {
    FC_OP_CONTINUATION = 0x0,
    FC_OP_TEXT = 0x1,
    FC_OP_BINARY = 0x2,
    FC_OP_CLOSE = 0x8,
    FC_OP_PING = 0x9,
    FC_OP_PONG = 0xA,
};

/* Errors of the protocol are negated close codes (RFC 6455 section 7.4.1), which are far from any errno. */
enum fc_error {
    FC_ERR_PROTOCOL = 1002,
    FC_ERR_UTF8 = 1007,
    FC_ERR_POLICY = 1008,
    FC_ERR_TOO_BIG = 1009,
    FC_ERR_TRY_LATER = 1013,
};

enum {
    FC_CLOSE_GOING_AWAY = 1001,
    FC_CLOSE_NO_STATUS = 1005, /* an empty Close, and */
    FC_CLOSE_ABNORMAL = 1006,  /* an end without one; never on the wire */
};

/* "More bytes are needed": what parsers return when they have consumed nothing for want of input. */
#define FC_PARTIAL 0

#define FC_FRAME_HEADER_MAX 10        /* what a server sends is never masked */
#define FC_FRAME_CLIENT_HEADER_MAX 14 /* what a client sends always is */
#define FC_FRAME_CONTROL_MAX 125

struct fc_frame_header {
    uint64_t length;
    uint8_t mask[4];
    uint8_t opcode;
    bool fin;
};

static inline bool fc_frame_is_control(uint8_t opcode)
{
    return opcode >= FC_OP_CLOSE;
}

static inline size_t fc_frame_header_size(uint64_t length)
{
    return length <= 125 ? 2 : length <= UINT16_MAX ? 4 : 10;
}

/* Writes the header of an unfragmented, unmasked frame; returns its size, fc_frame_header_size(length). */
size_t fc_frame_write_header(uint8_t *out, uint8_t opcode, uint64_t length);

/* Parses the header of a client's frame. Returns the bytes consumed, FC_PARTIAL, or -FC_ERR_PROTOCOL as
 * soon as the bytes that are there prove an error, even when the header isn't complete. */
int fc_frame_parse_header(const uint8_t *in, size_t n, struct fc_frame_header *header);

/* Unmasks n bytes (RFC 6455 section 5.3). `phase` is the offset of in[0] within the frame's payload.
 * `out` may be `in`, but must not overlap it otherwise. */
void fc_frame_unmask(uint8_t *out, const uint8_t *in, size_t n, const uint8_t mask[4], uint64_t phase);

/* Writes a Close frame with the code, and no reason; code FC_CLOSE_NO_STATUS gives an empty payload.
 * Returns the size, at most 4. */
size_t fc_frame_write_close(uint8_t *out, uint16_t code);

/* Whether the code may stand in a Close frame (section 7.4). */
bool fc_frame_close_code_valid(uint16_t code);

/* The code in a Close frame's payload, FC_CLOSE_NO_STATUS for an empty one, -FC_ERR_PROTOCOL for a code
 * that may not be sent (section 7.4) and -FC_ERR_UTF8 for a reason that's no text. */
int fc_frame_parse_close(const uint8_t *payload, size_t n);

/* How many frames lie completely in the first n bytes of unmasked, well-formed frames. */
unsigned fc_frame_count(const uint8_t *wire, size_t n);

#endif
