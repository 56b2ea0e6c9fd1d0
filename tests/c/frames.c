/* Bytes of a client: always masked, always with the same mask, so that inputs are the same in every run. */
#include "frames.h"

#include "check.h"
#include "frame.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t mask[4] = {0x37, 0xFA, 0x21, 0x3D};

void frames_add(struct frames *frames, const void *bytes, size_t n)
{
    if (frames->length + n > frames->capacity) {
        frames->capacity = 2 * (frames->length + n);
        frames->bytes = realloc(frames->bytes, frames->capacity);
        CHECK(frames->bytes);
    }
    if (n > 0)
        memcpy(frames->bytes + frames->length, bytes, n);
    frames->length += n;
}

void frames_header(struct frames *frames, uint8_t first, unsigned size, uint64_t length)
{
    uint8_t header[10] = {first, (uint8_t)(0x80 | (size == 2 ? length : size == 4 ? 126 : 127))};

    for (unsigned i = 2; i < size; i++)
        header[i] = (uint8_t)(length >> 8 * (size - 1 - i));
    frames_add(frames, header, size);
    frames_add(frames, mask, sizeof mask);
}

void frames_frame(struct frames *frames, bool fin, uint8_t opcode, const void *payload, size_t n)
{
    const uint8_t *in = payload;

    frames_header(frames, (uint8_t)((fin ? 0x80 : 0) | opcode), n <= 125 ? 2 : n <= 65535 ? 4 : 10, n);
    for (size_t i = 0; i < n; i++) {
        uint8_t masked = in[i] ^ mask[i % 4];
        frames_add(frames, &masked, 1);
    }
}

void frames_text(struct frames *frames, const char *text)
{
    frames_frame(frames, true, FC_OP_TEXT, text, strlen(text));
}

void frames_free(struct frames *frames)
{
    free(frames->bytes);
    *frames = (struct frames){0};
}
