/* From a client's bytes to messages: frames, fragments, masks, text and limits (RFC 6455 section 5). */
#ifndef FC_INBOUND_H
#define FC_INBOUND_H

#include "frame.h"
#include "message.h"
#include "utf8.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_inbound_limits {
    struct fc_account *account;
    size_t max_message; /* payload bytes of one message, over all its fragments */
    size_t max_alive;   /* bytes of all messages alive, past which no partly received message may grow */
};

/* Zero-initialised is "at rest", and at rest there's nothing to keep: a client that is between frames
 * needs no such state at all. */
struct fc_inbound {
    struct fc_frame_header frame;
    uint64_t done;              /* payload bytes of the frame that are consumed */
    struct fc_message *message; /* the data message in the making */
    size_t length;              /* its payload bytes so far */
    struct fc_utf8 utf8;
    uint8_t opcode;   /* TEXT or BINARY between the first and the last fragment, else 0 */
    uint8_t in_frame; /* the header is parsed, the payload isn't consumed */
    uint8_t partial;  /* bytes of an incomplete header in `bytes` */
    uint8_t bytes[FC_FRAME_CONTROL_MAX]; /* an incomplete header, or a control frame's payload */
};

enum fc_item_kind { FC_ITEM_MESSAGE, FC_ITEM_PING, FC_ITEM_PONG, FC_ITEM_CLOSE };

struct fc_item {
    enum fc_item_kind kind;
    struct fc_message *message; /* MESSAGE: sealed, one reference, now the caller's */
    const uint8_t *payload;     /* PING: valid until the next call */
    size_t length;
    uint16_t code; /* CLOSE: as fc_frame_parse_close gives it */
};

/* Consumes bytes until an item is complete. Returns 1 with *item, 0 when all n bytes are consumed, or
 * -FC_ERR_* / -ENOMEM, after which only fc_inbound_clear may be called. *used says how many bytes were
 * consumed. Call again with the rest after an item. */
int fc_inbound_next(struct fc_inbound *in, const struct fc_inbound_limits *limits, const uint8_t *data, size_t n,
                    size_t *used, struct fc_item *item);

static inline bool fc_inbound_at_rest(const struct fc_inbound *in)
{
    return !in->in_frame && in->opcode == 0 && in->partial == 0;
}

/* Frees what a message in the making holds. */
void fc_inbound_clear(struct fc_inbound *in);

#endif
