/* A message: the bytes that go out on the wire, built once, shared by all who send or queue them. */
#ifndef FC_MESSAGE_H
#define FC_MESSAGE_H

#include "fastcast.h"
#include "frame.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What is alive, over all threads of a hub. Every message points to the one that it was counted in. */
struct fc_account {
    atomic_size_t messages;
    atomic_size_t bytes;
    atomic_ullong made; /* since the beginning */
};

/* While it is being built a message belongs to one thread. Once sealed it is immutable, and each holder
 * of a pointer owns one reference. */
struct fc_message {
    atomic_uint references;
    uint32_t frames; /* data frames within; 0 for control frames and HTTP responses, which no one counts */
    size_t capacity; /* payload bytes there is room for */
    size_t size;     /* bytes on the wire, from `start` */
    struct fc_account *account;
    uint16_t key_length; /* of the key behind the payload: of two messages with one key only the newer one matters */
    uint8_t rule;        /* of the channel that it was published to */
    uint8_t start;       /* offset of the wire image: the header is written right before the payload */
    uint8_t room[];
};

/* All constructors return one reference, or NULL when memory is short. */

/* An unsealed message with room for `capacity` payload bytes. */
struct fc_message *fc_message_new(struct fc_account *account, size_t capacity);

/* Changes the room of an unsealed message; NULL leaves `message` as it was. */
struct fc_message *fc_message_resize(struct fc_message *message, size_t capacity);

static inline uint8_t *fc_message_payload(struct fc_message *message)
{
    return message->room + FC_FRAME_HEADER_MAX;
}

/* Makes one frame of the first `length` payload bytes. */
void fc_message_seal(struct fc_message *message, uint8_t opcode, size_t length);

/* One complete frame with a copy of the payload. */
struct fc_message *fc_message_frame(struct fc_account *account, uint8_t opcode, const void *payload, size_t n);

/* Gives a sealed message that nobody else has yet a key, of two parts. It stays without one if it's too long or there's
 * no memory: then it replaces no other, and none replaces it. May move the message. */
struct fc_message *fc_message_set_key(struct fc_message *message, struct fc_span name, struct fc_span key);

bool fc_message_same_key(const struct fc_message *message, const struct fc_message *other);

/* Bytes that are no frame of ours to count: a Close frame as written, an HTTP response. */
struct fc_message *fc_message_raw(struct fc_account *account, const void *bytes, size_t n);

/* The wire images of n sealed messages in a row, under the rule of the first. */
struct fc_message *fc_message_join(struct fc_account *account, struct fc_message *const *messages, size_t n);

static inline const uint8_t *fc_message_wire(const struct fc_message *message)
{
    return message->room + message->start;
}

/* What a message counts for in backlogs: its bytes, and something for itself. */
static inline size_t fc_message_weight(const struct fc_message *message)
{
    return message->size + sizeof(struct fc_message);
}

/* The memory that it takes. */
size_t fc_message_footprint(const struct fc_message *message);

static inline struct fc_message *fc_message_ref(struct fc_message *message)
{
    /* Relaxed: whoever copies a reference already holds one, so nothing needs to be ordered by it. */
    atomic_fetch_add_explicit(&message->references, 1, memory_order_relaxed);
    return message;
}

/* Gives a reference back; NULL is allowed. */
void fc_message_unref(struct fc_message *message);

#endif
