/* A client's bytes: builds frames as a browser sends them, and HTTP heads, into growing memory. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frames {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
};

void frames_add(struct frames *frames, const void *bytes, size_t n);

/* A masked frame of at most 2^32 bytes, its length in as few bytes as possible. */
void frames_frame(struct frames *frames, bool fin, uint8_t opcode, const void *payload, size_t n);

/* A header alone, with the length in 2, 4 or 10 bytes whether that's right or not. */
void frames_header(struct frames *frames, uint8_t first, unsigned size, uint64_t length);

/* A text message of one frame. */
void frames_text(struct frames *frames, const char *text);

void frames_free(struct frames *frames);

#endif
