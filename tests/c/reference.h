/* What the parsers must do, written the slow and plain way: one byte after the other, nothing shared with the core
 * but the names of opcodes and errors. Tests and fuzz targets compare the core against it. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "inbound.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One character that isn't complete, as the bits that are known of it. */
struct reference_utf8 {
    uint32_t bits;
    unsigned have; /* continuation bytes that came, */
    unsigned need; /* of so many; 0: between characters */
};

/* False when no text has these bytes. */
bool reference_utf8_take(struct reference_utf8 *state, uint8_t byte);

/* What a parser made of its input: for each item its kind, place and content, in one growing piece of memory, so that
 * two transcripts are compared as bytes. */
struct transcript {
    uint8_t *items;
    size_t length;
    size_t capacity;
    unsigned count;
    int error;        /* 0 or -FC_ERR_* */
    size_t error_at;  /* bytes after which the error shows; only the reference knows it without feeding byte by byte */
};

void transcript_add(struct transcript *transcript, enum fc_item_kind kind, uint8_t opcode, uint16_t code, size_t at,
                    const uint8_t *payload, size_t length);

/* Items and error. */
bool transcript_equal(const struct transcript *a, const struct transcript *b);
void transcript_free(struct transcript *transcript);

/* Parses a client's frames. */
void reference_parse(const uint8_t *in, size_t n, size_t max_message, struct transcript *transcript);

/* Feeds the bytes to fc_inbound, in chunks as `next_chunk` says: it gets what is left and returns 1 to that. Checks
 * on the way what must hold after every step. */
void inbound_parse(const uint8_t *in, size_t n, const struct fc_inbound_limits *limits,
                   size_t (*next_chunk)(void *context, size_t left), void *context, struct transcript *transcript);

/* The length of the request head as fc_head_end tells it, 0 if it isn't complete. */
size_t reference_head_end(const uint8_t *in, size_t n);

#endif
