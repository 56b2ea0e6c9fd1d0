/* The plain parsers behind reference.h, and the observer that feeds the core the same bytes. Whoever asks for a
 * transcript frees it. */
#include "reference.h"

#include "check.h"

#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 ---- */

/* Whether a character between the two code points is one that UTF-8 may carry, in a sequence of that many bytes. */
static bool any_valid(uint32_t low, uint32_t high, unsigned continuations)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};

    if (low < smallest[continuations])
        low = smallest[continuations];
    if (high > 0x10FFFF)
        high = 0x10FFFF;
    if (low >= 0xD800 && low <= 0xDFFF)
        low = 0xE000;
    return low <= high;
}

bool reference_utf8_take(struct reference_utf8 *state, uint8_t byte)
{
    if (state->need == 0) {
        if (byte < 0x80)
            return true;
        if (byte < 0xC0 || byte > 0xF7)
            return false;
        state->need = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        state->have = 0;
        state->bits = byte & (0x3Fu >> state->need);
    } else {
        if ((byte & 0xC0) != 0x80)
            return false;
        state->bits = state->bits << 6 | (byte & 0x3F);
        state->have++;
    }
    unsigned missing = 6 * (state->need - state->have);
    uint32_t low = state->bits << missing;
    if (!any_valid(low, low | ((UINT32_C(1) << missing) - 1), state->need))
        return false;
    if (state->have == state->need)
        *state = (struct reference_utf8){0};
    return true;
}

/* ---- transcripts ---- */

static void append(struct transcript *transcript, const void *bytes, size_t n)
{
    if (transcript->length + n > transcript->capacity) {
        transcript->capacity = 2 * (transcript->length + n);
        transcript->items = realloc(transcript->items, transcript->capacity);
        CHECK(transcript->items);
    }
    if (n > 0)
        memcpy(transcript->items + transcript->length, bytes, n);
    transcript->length += n;
}

void transcript_add(struct transcript *transcript, enum fc_item_kind kind, uint8_t opcode, uint16_t code, size_t at,
                    const uint8_t *payload, size_t length)
{
    uint64_t numbers[] = {kind, opcode, code, at, length};

    append(transcript, numbers, sizeof numbers);
    append(transcript, payload, length);
    transcript->count++;
}

bool transcript_equal(const struct transcript *a, const struct transcript *b)
{
    return a->error == b->error && a->count == b->count && a->length == b->length &&
           (a->length == 0 || memcmp(a->items, b->items, a->length) == 0);
}

void transcript_free(struct transcript *transcript)
{
    free(transcript->items);
    *transcript = (struct transcript){0};
}

/* ---- frames ---- */

struct parser {
    uint8_t header[14];
    unsigned have;   /* bytes of the header */
    unsigned size;   /* of the header, as far as it's known */
    bool in_payload;
    uint64_t length; /* of the frame's payload, */
    uint64_t done;   /* and what came of it */
    uint8_t control[125];
    uint8_t *message;
    size_t message_length;
    uint8_t opcode; /* of the message in the making, or 0 */
    struct reference_utf8 utf8;
};

static uint8_t frame_opcode(const struct parser *parser)
{
    return parser->header[0] & 0x0F;
}

static uint64_t big_endian(const uint8_t *bytes, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value = value * 256 + bytes[i];
    return value;
}

/* Looks at the newest byte of the header. Returns 0, an error, or 1 when the header is complete. */
static int check_header(struct parser *parser)
{
    const uint8_t *header = parser->header;
    uint8_t opcode = frame_opcode(parser);

    switch (parser->have) {
    case 1:
        parser->size = 2;
        if ((header[0] & 0x70) || (opcode >= 3 && opcode <= 7) || opcode >= 11)
            return -FC_ERR_PROTOCOL;
        return opcode >= 8 && header[0] < 0x80 ? -FC_ERR_PROTOCOL : 0;
    case 2:
        if (header[1] < 0x80 || (opcode >= 8 && header[1] - 0x80 > 125))
            return -FC_ERR_PROTOCOL;
        parser->size = header[1] == 0xFF ? 14 : header[1] == 0xFE ? 8 : 6;
        return 0;
    case 3:
        if (parser->size == 14 && header[2] >= 0x80)
            return -FC_ERR_PROTOCOL;
        break;
    case 4:
        if (parser->size == 8 && big_endian(header + 2, 2) < 126)
            return -FC_ERR_PROTOCOL;
        break;
    case 8:
        if (parser->size == 14 && big_endian(header + 2, 6) == 0) /* less than 2^16, whatever follows */
            return -FC_ERR_PROTOCOL;
        break;
    default:
        break;
    }
    return parser->have == parser->size;
}

static int begin_frame(struct parser *parser, size_t max_message)
{
    uint8_t opcode = frame_opcode(parser);

    parser->length = parser->size == 6 ? (uint64_t)parser->header[1] - 0x80
                                       : big_endian(parser->header + 2, parser->size - 6);
    parser->done = 0;
    parser->in_payload = true;
    if (opcode >= 8)
        return 0;
    if ((opcode == 0) != (parser->opcode != 0))
        return -FC_ERR_PROTOCOL;
    if (parser->length > max_message - parser->message_length)
        return -FC_ERR_TOO_BIG;
    if (opcode != 0)
        parser->opcode = opcode;
    return 0;
}

static int take_payload_byte(struct parser *parser, uint8_t byte)
{
    byte ^= parser->header[parser->size - 4 + parser->done % 4];
    if (frame_opcode(parser) >= 8) {
        parser->control[parser->done] = byte;
    } else {
        parser->message[parser->message_length++] = byte;
        if (parser->opcode == FC_OP_TEXT && !reference_utf8_take(&parser->utf8, byte))
            return -FC_ERR_UTF8;
    }
    parser->done++;
    return 0;
}

static int close_code(const uint8_t *payload, size_t n)
{
    static const struct {
        unsigned first, last;
    } allowed[] = {{1000, 1003}, {1007, 1014}, {3000, 4999}};
    struct reference_utf8 utf8 = {0};
    bool found = false;

    if (n == 0)
        return 1005;
    if (n == 1)
        return -FC_ERR_PROTOCOL;
    unsigned code = (unsigned)big_endian(payload, 2);
    for (unsigned i = 0; i < 3; i++)
        found = found || (code >= allowed[i].first && code <= allowed[i].last);
    if (!found)
        return -FC_ERR_PROTOCOL;
    for (size_t i = 2; i < n; i++) {
        if (!reference_utf8_take(&utf8, payload[i]))
            return -FC_ERR_UTF8;
    }
    return utf8.need ? -FC_ERR_UTF8 : (int)code;
}

static int end_frame(struct parser *parser, size_t at, struct transcript *transcript)
{
    size_t length = (size_t)parser->length;
    int code;

    parser->in_payload = false;
    parser->have = 0;
    switch (frame_opcode(parser)) {
    case FC_OP_PING:
        transcript_add(transcript, FC_ITEM_PING, 0, 0, at, parser->control, length);
        return 0;
    case FC_OP_PONG:
        transcript_add(transcript, FC_ITEM_PONG, 0, 0, at, NULL, 0);
        return 0;
    case FC_OP_CLOSE:
        code = close_code(parser->control, length);
        if (code < 0)
            return code;
        transcript_add(transcript, FC_ITEM_CLOSE, 0, (uint16_t)code, at, NULL, 0);
        return 0;
    default:
        break;
    }
    if (parser->header[0] < 0x80)
        return 0;
    if (parser->opcode == FC_OP_TEXT && parser->utf8.need)
        return -FC_ERR_UTF8;
    transcript_add(transcript, FC_ITEM_MESSAGE, parser->opcode, 0, at, parser->message, parser->message_length);
    parser->opcode = 0;
    parser->message_length = 0;
    return 0;
}

void reference_parse(const uint8_t *in, size_t n, size_t max_message, struct transcript *transcript)
{
    struct parser parser = {.message = malloc(n + 1)};

    CHECK(parser.message);
    for (size_t i = 0; i < n && !transcript->error; i++) {
        int result = 0;
        if (parser.in_payload) {
            result = take_payload_byte(&parser, in[i]);
        } else {
            parser.header[parser.have++] = in[i];
            result = check_header(&parser);
            if (result == 1)
                result = begin_frame(&parser, max_message);
        }
        if (result == 0 && parser.in_payload && parser.done == parser.length)
            result = end_frame(&parser, i + 1, transcript);
        transcript->error = result;
        transcript->error_at = i + 1;
    }
    free(parser.message);
}

/* ---- the core, under observation ---- */

static void add_item(struct transcript *transcript, const struct fc_item *item, size_t at)
{
    struct fc_message *message = item->message;
    uint8_t header[FC_FRAME_HEADER_MAX];

    switch (item->kind) {
    case FC_ITEM_MESSAGE: {
        const uint8_t *wire = fc_message_wire(message);
        size_t length = message->size - (size_t)(fc_message_payload(message) - wire);
        size_t size = fc_frame_write_header(header, wire[0] & 0x0F, length);
        CHECK_BYTES(wire, message->size - length, header, size);
        CHECK_EQ(message->frames, 1);
        transcript_add(transcript, item->kind, wire[0] & 0x0F, 0, at, fc_message_payload(message), length);
        fc_message_unref(message);
        break;
    }
    case FC_ITEM_PING:
        transcript_add(transcript, item->kind, 0, 0, at, item->payload, item->length);
        break;
    case FC_ITEM_PONG:
        transcript_add(transcript, item->kind, 0, 0, at, NULL, 0);
        break;
    case FC_ITEM_CLOSE:
        transcript_add(transcript, item->kind, 0, item->code, at, NULL, 0);
        break;
    }
}

void inbound_parse(const uint8_t *in, size_t n, const struct fc_inbound_limits *limits,
                   size_t (*next_chunk)(void *context, size_t left), void *context, struct transcript *transcript)
{
    struct fc_inbound inbound = {0};
    size_t at = 0;

    while (at < n && !transcript->error) {
        size_t chunk = next_chunk(context, n - at);
        CHECK(chunk >= 1 && chunk <= n - at);
        while (chunk > 0 && !transcript->error) {
            struct fc_item item = {0};
            size_t used = 0;
            int result = fc_inbound_next(&inbound, limits, in + at, chunk, &used, &item);
            CHECK(used <= chunk);
            at += used;
            chunk -= used;
            if (result > 0)
                add_item(transcript, &item, at);
            else if (result == 0)
                CHECK_EQ(chunk, 0);
            else
                transcript->error = result;
        }
        if (!transcript->error && fc_inbound_at_rest(&inbound))
            CHECK(!inbound.message);
    }
    fc_inbound_clear(&inbound);
    CHECK(fc_inbound_at_rest(&inbound));
}

/* ---- heads ---- */

size_t reference_head_end(const uint8_t *in, size_t n)
{
    size_t start = 0;
    bool line_is_empty = false;

    while (start < n && (in[start] == '\r' || in[start] == '\n'))
        start++;
    if (start == n)
        return 0;
    uint8_t first = in[start] | 0x20;
    if (first < 'a' || first > 'z')
        return n;
    for (size_t i = start; i < n; i++) {
        if (in[i] == '\n') {
            if (line_is_empty)
                return i + 1;
            line_is_empty = true;
        } else if (!(in[i] == '\r' && i > 0 && in[i - 1] == '\n')) {
            line_is_empty = false;
        }
    }
    return 0;
}
