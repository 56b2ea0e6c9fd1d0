/* Frame headers, masks and close codes: RFC 6455 sections 5.2, 5.3, 5.5 and 7.4.
 *
 * Pure functions over bytes: no I/O, no allocation, no clock, any thread. What a sequence of frames means
 * (fragments, text, limits) is the business of inbound.c.
 */
#include "frame.h"

#include "utf8.h"

#include <string.h>

static uint16_t load_be16(const uint8_t *in)
{
    return (uint16_t)(in[0] << 8 | in[1]);
}

static uint64_t load_be64(const uint8_t *in)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++)
        value = value << 8 | in[i];
    return value;
}

size_t fc_frame_write_header(uint8_t *out, uint8_t opcode, uint64_t length)
{
    out[0] = (uint8_t)(0x80 | opcode);
    if (length <= 125) {
        out[1] = (uint8_t)length;
        return 2;
    }
    if (length <= UINT16_MAX) {
        out[1] = 126;
        out[2] = (uint8_t)(length >> 8);
        out[3] = (uint8_t)length;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(length >> (56 - 8 * i));
    return 10;
}

int fc_frame_parse_header(const uint8_t *in, size_t n, struct fc_frame_header *header)
{
    if (n == 0)
        return FC_PARTIAL;

    uint8_t opcode = in[0] & 0x0F;
    bool fin = in[0] & 0x80;

    if (in[0] & 0x70) /* RSV bits: no extension is ever negotiated */
        return -FC_ERR_PROTOCOL;
    if ((opcode > FC_OP_BINARY && opcode < FC_OP_CLOSE) || opcode > FC_OP_PONG)
        return -FC_ERR_PROTOCOL;
    if (fc_frame_is_control(opcode) && !fin)
        return -FC_ERR_PROTOCOL;
    if (n == 1)
        return FC_PARTIAL;

    uint8_t short_length = in[1] & 0x7F;
    size_t size;
    uint64_t length;

    if (!(in[1] & 0x80)) /* section 5.1: a client must mask */
        return -FC_ERR_PROTOCOL;
    if (fc_frame_is_control(opcode) && short_length > FC_FRAME_CONTROL_MAX)
        return -FC_ERR_PROTOCOL;

    if (short_length <= 125) {
        length = short_length;
        size = 2;
    } else if (short_length == 126) {
        if (n < 4)
            return FC_PARTIAL;
        length = load_be16(in + 2);
        size = 4;
        if (length <= 125) /* the minimal number of bytes must be used */
            return -FC_ERR_PROTOCOL;
    } else {
        static const uint8_t none[6];
        if (n > 2 && in[2] & 0x80)
            return -FC_ERR_PROTOCOL;
        if (n >= 8 && memcmp(in + 2, none, sizeof none) == 0) /* at most UINT16_MAX */
            return -FC_ERR_PROTOCOL;
        if (n < 10)
            return FC_PARTIAL;
        length = load_be64(in + 2);
        size = 10;
    }
    if (n < size + 4)
        return FC_PARTIAL;

    header->length = length;
    memcpy(header->mask, in + size, 4);
    header->opcode = opcode;
    header->fin = fin;
    return (int)(size + 4);
}

void fc_frame_unmask(uint8_t *out, const uint8_t *in, size_t n, const uint8_t mask[4], uint64_t phase)
{
    uint8_t turned[8];
    uint64_t key;
    size_t i = 0;

    for (unsigned k = 0; k < 8; k++)
        turned[k] = mask[(phase + k) & 3];
    memcpy(&key, turned, 8);

    /* Blocks through memcpy: no alignment is assumed, and the compiler makes vector code of it. */
    for (; n - i >= 32; i += 32) {
        uint64_t block[4];
        memcpy(block, in + i, 32);
        block[0] ^= key;
        block[1] ^= key;
        block[2] ^= key;
        block[3] ^= key;
        memcpy(out + i, block, 32);
    }
    for (; n - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, in + i, 8);
        word ^= key;
        memcpy(out + i, &word, 8);
    }
    for (; i < n; i++)
        out[i] = in[i] ^ turned[i & 7];
}

size_t fc_frame_write_close(uint8_t *out, uint16_t code)
{
    if (code == FC_CLOSE_NO_STATUS)
        return fc_frame_write_header(out, FC_OP_CLOSE, 0);
    size_t size = fc_frame_write_header(out, FC_OP_CLOSE, 2);
    out[size] = (uint8_t)(code >> 8);
    out[size + 1] = (uint8_t)code;
    return size + 2;
}

/* Section 7.4: the codes that may stand in a Close frame, with 1012 to 1014 from the IANA registry. */
bool fc_frame_close_code_valid(uint16_t code)
{
    if (code >= 3000 && code <= 4999)
        return true;
    return code >= 1000 && code <= 1014 && !(code >= 1004 && code <= 1006);
}

int fc_frame_parse_close(const uint8_t *payload, size_t n)
{
    struct fc_utf8 reason = {0};

    if (n == 0)
        return FC_CLOSE_NO_STATUS;
    if (n == 1 || !fc_frame_close_code_valid(load_be16(payload)))
        return -FC_ERR_PROTOCOL;
    if (!fc_utf8_feed(&reason, payload + 2, n - 2) || !fc_utf8_complete(&reason))
        return -FC_ERR_UTF8;
    return load_be16(payload);
}

unsigned fc_frame_count(const uint8_t *wire, size_t n)
{
    unsigned count = 0;

    while (n >= 2) {
        uint8_t short_length = wire[1];
        size_t size = short_length <= 125 ? 2 : short_length == 126 ? 4 : 10;
        if (n < size)
            break;
        uint64_t length = size == 2 ? short_length : size == 4 ? load_be16(wire + 2) : load_be64(wire + 2);
        if (n - size < length)
            break;
        wire += size + length;
        n -= size + length;
        count++;
    }
    return count;
}
