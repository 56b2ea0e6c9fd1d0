/*
 * wire.h - WebSocket frames as a client sees them (RFC 6455 section 5): masked out, unmasked in.
 */
#ifndef FC_WIRE_H
#define FC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FC_WIRE_CONTINUATION = 0,
    FC_WIRE_TEXT = 1,
    FC_WIRE_BINARY = 2,
    FC_WIRE_CLOSE = 8,
    FC_WIRE_PING = 9,
    FC_WIRE_PONG = 10
};

#define FC_WIRE_MAX_CONTROL 125u
#define FC_WIRE_MAX_SERVER_HEAD 10u
#define FC_WIRE_MAX_CLIENT_HEAD 14u

struct fc_wire_frame {
    uint64_t length; /* of the payload */
    uint8_t head;    /* bytes before the payload */
    uint8_t opcode;
    bool fin;
};

/* Reads the head of a server's frame.  Returns 1 when it is whole; 0 when bytes are missing, with frame->head
 * set to how many the head needs as far as can be told; -EPROTO when no server may send it (section 5.1
 * to 5.5). */
int fc_wire_parse(const uint8_t *bytes, size_t have, struct fc_wire_frame *frame);

/* Writes a whole masked frame and returns its size; `out` has room for FC_WIRE_MAX_CLIENT_HEAD more than
 * `length`. */
size_t fc_wire_write(uint8_t *out, uint8_t opcode, uint32_t mask, const uint8_t *payload, size_t length);

#endif
