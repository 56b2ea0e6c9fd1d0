/* The receiving half of the protocol: an incremental machine over any chunking of a client's bytes.
 *
 * Invariants: a message in the making is owned by the struct until it's handed out in an item; control
 * frames never touch it, so they may come between fragments. Text is validated as it arrives, so that it
 * fails with the first bad byte and not with the end of the message (section 8.1).
 * Owned by the thread of the client's shard; allocates only the message.
 */
#include "inbound.h"

#include <errno.h>
#include <string.h>

/* A length is only a claim: memory follows the bytes that came, not the header that announced them. */
#define FIRST_ROOM 4096

void fc_inbound_clear(struct fc_inbound *in)
{
    fc_message_unref(in->message);
    memset(in, 0, sizeof *in);
}

static int make_room(struct fc_inbound *in, const struct fc_inbound_limits *limits, size_t arriving)
{
    size_t need = in->length + arriving;
    size_t announced = in->length + (size_t)(in->frame.length - in->done);
    bool complete = need == announced && in->frame.fin;
    size_t capacity = need;

    if (in->message && need <= in->message->capacity)
        return 0;
    if (!complete) {
        /* Others' memory is not for this one to fill with a message that may never end. */
        if (atomic_load_explicit(&limits->account->bytes, memory_order_relaxed) > limits->max_alive)
            return -FC_ERR_TRY_LATER;
        capacity = need < FIRST_ROOM / 2 ? FIRST_ROOM : 2 * need;
        if (in->frame.fin && capacity > announced)
            capacity = announced;
        if (capacity > limits->max_message)
            capacity = limits->max_message;
    }
    struct fc_message *message =
        in->message ? fc_message_resize(in->message, capacity) : fc_message_new(limits->account, capacity);
    if (!message)
        return -ENOMEM;
    in->message = message;
    return 0;
}

/* What a parsed header means where it stands. */
static int begin_frame(struct fc_inbound *in, const struct fc_inbound_limits *limits)
{
    uint8_t opcode = in->frame.opcode;

    in->in_frame = 1;
    in->done = 0;
    if (fc_frame_is_control(opcode))
        return 0;
    if ((opcode == FC_OP_CONTINUATION) != (in->opcode != 0)) /* section 5.4 */
        return -FC_ERR_PROTOCOL;
    if (in->frame.length > limits->max_message - in->length)
        return -FC_ERR_TOO_BIG;
    if (opcode != FC_OP_CONTINUATION)
        in->opcode = opcode;
    return 0;
}

static int take_header(struct fc_inbound *in, const struct fc_inbound_limits *limits, const uint8_t *data, size_t n,
                       size_t *used)
{
    int size;

    if (in->partial == 0) {
        size = fc_frame_parse_header(data, n, &in->frame);
        if (size < 0)
            return size;
        if (size == FC_PARTIAL) {
            memcpy(in->bytes, data, n);
            in->partial = (uint8_t)n;
            *used = n;
            return 0;
        }
        *used = (size_t)size;
    } else {
        size_t more = FC_FRAME_CLIENT_HEADER_MAX - in->partial;
        if (more > n)
            more = n;
        memcpy(in->bytes + in->partial, data, more);
        size = fc_frame_parse_header(in->bytes, in->partial + more, &in->frame);
        if (size < 0)
            return size;
        if (size == FC_PARTIAL) {
            in->partial = (uint8_t)(in->partial + more);
            *used = more;
            return 0;
        }
        *used = (size_t)size - in->partial;
        in->partial = 0;
    }
    return begin_frame(in, limits);
}

static int take_data(struct fc_inbound *in, const struct fc_inbound_limits *limits, const uint8_t *data, size_t n)
{
    int error = make_room(in, limits, n);

    if (error)
        return error;
    uint8_t *out = fc_message_payload(in->message) + in->length;
    fc_frame_unmask(out, data, n, in->frame.mask, in->done);
    in->length += n;
    if (in->opcode == FC_OP_TEXT && !fc_utf8_feed(&in->utf8, out, n))
        return -FC_ERR_UTF8;
    return 0;
}

static int finish_message(struct fc_inbound *in, struct fc_item *item)
{
    if (in->opcode == FC_OP_TEXT && !fc_utf8_complete(&in->utf8))
        return -FC_ERR_UTF8;
    /* Fragments left room for more. It's not worth a failure if it can't be given back. */
    if (in->message->capacity - in->length > in->length / 4) {
        struct fc_message *fitting = fc_message_resize(in->message, in->length);
        if (fitting)
            in->message = fitting;
    }
    fc_message_seal(in->message, in->opcode, in->length);
    item->kind = FC_ITEM_MESSAGE;
    item->message = in->message;
    in->message = NULL;
    in->length = 0;
    in->opcode = 0;
    in->utf8 = (struct fc_utf8){0};
    return 1;
}

static int finish_control(struct fc_inbound *in, struct fc_item *item)
{
    int code;

    item->payload = in->bytes;
    item->length = (size_t)in->frame.length;
    switch (in->frame.opcode) {
    case FC_OP_PING:
        item->kind = FC_ITEM_PING;
        return 1;
    case FC_OP_PONG:
        item->kind = FC_ITEM_PONG;
        return 1;
    default:
        code = fc_frame_parse_close(item->payload, item->length);
        if (code < 0)
            return code;
        item->kind = FC_ITEM_CLOSE;
        item->code = (uint16_t)code;
        return 1;
    }
}

/* A Close says why it can't be right before its payload is complete: the code is checked when both of
 * its bytes are there, by finish_control, because 125 bytes aren't worth a second machine. */
static int take_payload(struct fc_inbound *in, const struct fc_inbound_limits *limits, const uint8_t *data, size_t n,
                        size_t *used, struct fc_item *item)
{
    uint64_t missing = in->frame.length - in->done;
    size_t now = missing < n ? (size_t)missing : n;
    bool control = fc_frame_is_control(in->frame.opcode);

    if (control) {
        fc_frame_unmask(in->bytes + in->done, data, now, in->frame.mask, in->done);
    } else {
        int error = take_data(in, limits, data, now);
        if (error)
            return error;
    }
    *used = now;
    in->done += now;
    if (in->done < in->frame.length)
        return 0;
    in->in_frame = 0;
    if (control)
        return finish_control(in, item);
    return in->frame.fin ? finish_message(in, item) : 0;
}

int fc_inbound_next(struct fc_inbound *in, const struct fc_inbound_limits *limits, const uint8_t *data, size_t n,
                    size_t *used, struct fc_item *item)
{
    *used = 0;
    for (;;) {
        size_t step = 0;
        int result;

        /* An empty frame is complete with its header, so its payload step runs without input. */
        if (*used == n && !(in->in_frame && in->done == in->frame.length))
            return 0;
        if (in->in_frame)
            result = take_payload(in, limits, data + *used, n - *used, &step, item);
        else
            result = take_header(in, limits, data + *used, n - *used, &step);
        if (result < 0)
            return result;
        *used += step;
        if (result > 0)
            return result;
    }
}
