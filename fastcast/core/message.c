/* Messages: immutable once sealed, reference-counted, freed by whoever drops the last reference.
 *
 * Room for the longest header lies in front of the payload, so that an inbound message can be unmasked
 * into place while its length is still unknown, and gets its header without being moved.
 */
#include "message.h"

#include <stdlib.h>
#include <string.h>

static void account_add(struct fc_account *account, size_t bytes)
{
    /* Relaxed: these are gauges that are read for limits and reports, and order nothing. */
    atomic_fetch_add_explicit(&account->bytes, bytes, memory_order_relaxed);
}

static void account_subtract(struct fc_account *account, size_t bytes)
{
    atomic_fetch_sub_explicit(&account->bytes, bytes, memory_order_relaxed);
}

static size_t footprint(size_t capacity)
{
    return sizeof(struct fc_message) + FC_FRAME_HEADER_MAX + capacity;
}

size_t fc_message_footprint(const struct fc_message *message)
{
    return footprint(message->capacity);
}

struct fc_message *fc_message_new(struct fc_account *account, size_t capacity)
{
    struct fc_message *message = malloc(footprint(capacity));

    if (!message)
        return NULL;
    atomic_init(&message->references, 1);
    message->frames = 0;
    message->capacity = capacity;
    message->size = 0;
    message->account = account;
    message->key_length = 0;
    message->rule = 0;
    message->start = FC_FRAME_HEADER_MAX;
    atomic_fetch_add_explicit(&account->messages, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&account->made, 1, memory_order_relaxed);
    account_add(account, footprint(capacity));
    return message;
}

struct fc_message *fc_message_resize(struct fc_message *message, size_t capacity)
{
    size_t before = footprint(message->capacity);
    struct fc_message *moved = realloc(message, footprint(capacity));

    if (!moved)
        return NULL;
    account_add(moved->account, footprint(capacity));
    account_subtract(moved->account, before);
    moved->capacity = capacity;
    return moved;
}

void fc_message_seal(struct fc_message *message, uint8_t opcode, size_t length)
{
    uint8_t header[FC_FRAME_HEADER_MAX];
    size_t size = fc_frame_write_header(header, opcode, length);

    message->start = (uint8_t)(FC_FRAME_HEADER_MAX - size);
    memcpy(message->room + message->start, header, size);
    message->size = size + length;
    message->frames = fc_frame_is_control(opcode) ? 0 : 1;
}

struct fc_message *fc_message_frame(struct fc_account *account, uint8_t opcode, const void *payload, size_t n)
{
    struct fc_message *message = fc_message_new(account, n);

    if (!message)
        return NULL;
    if (n > 0)
        memcpy(fc_message_payload(message), payload, n);
    fc_message_seal(message, opcode, n);
    return message;
}

struct fc_message *fc_message_set_key(struct fc_message *message, struct fc_span name, struct fc_span key)
{
    size_t size = sizeof(uint16_t) + name.length + key.length;
    size_t payload = message->start + message->size - FC_FRAME_HEADER_MAX;

    if (size > UINT16_MAX)
        return message;
    if (message->capacity < payload + size) {
        struct fc_message *moved = fc_message_resize(message, payload + size);
        if (!moved)
            return message;
        message = moved;
    }
    uint8_t *out = fc_message_payload(message) + payload;
    uint16_t length = (uint16_t)name.length; /* so that it's clear where the one ends, and the other begins */
    memcpy(out, &length, sizeof length);
    out += sizeof length;
    if (name.length > 0)
        memcpy(out, name.bytes, name.length);
    if (key.length > 0)
        memcpy(out + name.length, key.bytes, key.length);
    message->key_length = (uint16_t)size;
    return message;
}

/* Where the wire image ends. */
static const uint8_t *key_of(const struct fc_message *message)
{
    return fc_message_wire(message) + message->size;
}

bool fc_message_same_key(const struct fc_message *message, const struct fc_message *other)
{
    return message->key_length > 0 && message->key_length == other->key_length &&
           !memcmp(key_of(message), key_of(other), message->key_length);
}

struct fc_message *fc_message_raw(struct fc_account *account, const void *bytes, size_t n)
{
    struct fc_message *message = fc_message_new(account, n);

    if (!message)
        return NULL;
    if (n > 0)
        memcpy(fc_message_payload(message), bytes, n);
    message->size = n;
    return message;
}

struct fc_message *fc_message_join(struct fc_account *account, struct fc_message *const *messages, size_t n)
{
    size_t size = 0;

    for (size_t i = 0; i < n; i++)
        size += messages[i]->size;

    struct fc_message *joined = fc_message_new(account, size);
    if (!joined)
        return NULL;

    uint8_t *out = fc_message_payload(joined);
    for (size_t i = 0; i < n; i++) {
        memcpy(out, fc_message_wire(messages[i]), messages[i]->size);
        out += messages[i]->size;
        joined->frames += messages[i]->frames;
    }
    joined->size = size;
    joined->rule = messages[0]->rule;
    return joined;
}

void fc_message_unref(struct fc_message *message)
{
    if (!message)
        return;
    /* Release: our reads of the bytes come before the count drops. Acquire, by the last one: they all
     * come before the memory is given back. */
    if (atomic_fetch_sub_explicit(&message->references, 1, memory_order_acq_rel) != 1)
        return;
    account_subtract(message->account, footprint(message->capacity));
    atomic_fetch_sub_explicit(&message->account->messages, 1, memory_order_relaxed);
    free(message);
}
