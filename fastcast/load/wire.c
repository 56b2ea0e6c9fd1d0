/*
 * wire.c - frame heads and masking.  Pure functions: no state, no I/O, no allocation, any thread.
 */
#include "wire.h"

#include <errno.h>
#include <string.h>

static uint64_t big_endian(const uint8_t *bytes, unsigned count)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

int fc_wire_parse(const uint8_t *bytes, size_t have, struct fc_wire_frame *frame)
{
    frame->head = 2;
    if (have < 2)
        return 0;
    unsigned length = bytes[1];
    frame->fin = (bytes[0] & 0x80) != 0;
    frame->opcode = bytes[0] & 0x0f;
    bool control = frame->opcode >= FC_WIRE_CLOSE;
    bool reserved = control ? frame->opcode > FC_WIRE_PONG : frame->opcode > FC_WIRE_BINARY;
    /* A set mask bit makes `length` 128 or more: a server must not mask (section 5.1). */
    if ((bytes[0] & 0x70) != 0 || reserved || length > 127)
        return -EPROTO;
    if (control && (!frame->fin || length > FC_WIRE_MAX_CONTROL))
        return -EPROTO;
    if (length < 126) {
        frame->length = length;
        return 1;
    }
    unsigned extended = length == 126 ? 2 : 8;
    frame->head = (uint8_t)(2 + extended);
    if (have < frame->head)
        return 0;
    frame->length = big_endian(bytes + 2, extended);
    if (frame->length < (extended == 2 ? 126u : 65536u) || frame->length >> 63 != 0)
        return -EPROTO;
    return 1;
}

static size_t write_head(uint8_t *out, uint8_t opcode, size_t length)
{
    out[0] = 0x80 | opcode;
    if (length < 126) {
        out[1] = (uint8_t)(0x80 | length);
        return 2;
    }
    unsigned extended = length < 65536 ? 2 : 8;
    out[1] = extended == 2 ? 0x80 | 126 : 0x80 | 127;
    for (unsigned i = 0; i < extended; i++)
        out[2 + i] = (uint8_t)((uint64_t)length >> (8 * (extended - 1 - i)));
    return 2 + extended;
}

size_t fc_wire_write(uint8_t *out, uint8_t opcode, uint32_t mask, const uint8_t *payload, size_t length)
{
    size_t head = write_head(out, opcode, length);
    uint64_t wide = (uint64_t)mask << 32 | mask;
    memcpy(out + head, &mask, sizeof mask);
    uint8_t *to = out + head + sizeof mask;
    size_t i = 0;
    for (; i + sizeof wide <= length; i += sizeof wide) {
        uint64_t word;
        memcpy(&word, payload + i, sizeof word);
        word ^= wide;
        memcpy(to + i, &word, sizeof word);
    }
    const uint8_t *key = out + head;
    for (; i < length; i++)
        to[i] = payload[i] ^ key[i & 3];
    return head + sizeof mask + length;
}
