/* Request heads: where they end, and the bytes until then.
 *
 * The core only finds the end, since it must know when to ask Python; what the head says is decided by
 * handshake.py. Owned by the client that sends the head, freed with free().
 */
#include "head.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool may_start_a_request(uint8_t byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
}

size_t fc_head_end(const uint8_t *bytes, size_t n, size_t seen)
{
    size_t start = 0;

    /* RFC 9112 section 2.2: empty lines before the request line are skipped. */
    while (start < n && (bytes[start] == '\r' || bytes[start] == '\n'))
        start++;
    if (start == n)
        return 0;
    if (!may_start_a_request(bytes[start]))
        return n;

    /* The end may lie across the old bytes and the new ones: LF, CR, LF. */
    size_t from = seen > start + 2 ? seen - 2 : start;
    for (const uint8_t *line = bytes + from; (line = memchr(line, '\n', n - (size_t)(line - bytes)));) {
        size_t next = (size_t)(++line - bytes);
        if (next < n && bytes[next] == '\n')
            return next + 1;
        if (next + 1 < n && bytes[next] == '\r' && bytes[next + 1] == '\n')
            return next + 2;
    }
    return 0;
}

size_t fc_head_proxy(const uint8_t *bytes, size_t n)
{
    static const uint8_t signature[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};
    enum { LONGEST_LINE = 107, FIXED_PART = 16 };

    if (n > 0 && bytes[0] == signature[0]) {
        if (memcmp(bytes, signature, n < sizeof signature ? n : sizeof signature) != 0)
            return 0;
        return n < FIXED_PART ? SIZE_MAX : FIXED_PART + ((size_t)bytes[14] << 8 | bytes[15]);
    }
    if (memcmp(bytes, "PROXY ", n < 6 ? n : 6) != 0)
        return 0;
    const uint8_t *end = memchr(bytes, '\n', n < LONGEST_LINE ? n : LONGEST_LINE);
    if (end)
        return (size_t)(end - bytes) + 1;
    return n < LONGEST_LINE ? SIZE_MAX : 0;
}

int fc_head_append(struct fc_head **head, const uint8_t *bytes, size_t n)
{
    size_t length = *head ? (*head)->length : 0;
    size_t capacity = *head ? (*head)->capacity : 0;

    if (length + n > capacity) {
        capacity = 2 * (length + n);
        struct fc_head *grown = realloc(*head, sizeof(struct fc_head) + capacity);
        if (!grown)
            return -ENOMEM;
        grown->capacity = (uint32_t)capacity;
        grown->length = (uint32_t)length;
        *head = grown;
    }
    memcpy((*head)->bytes + length, bytes, n);
    (*head)->length = (uint32_t)(length + n);
    return 0;
}
