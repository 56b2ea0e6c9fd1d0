/* Fuzz target: a request head that arrives in pieces that the input chooses as well.
 *
 * Byte 0 of the input chooses the pieces, the rest is what the client sends. The end must be found where the
 * reference finds it, as soon as it's there, and whatever was looked at before.
 */
#include "check.h"
#include "head.h"
#include "reference.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_head *head = NULL;
    size_t end = 0;

    if (size < 2)
        return 0;
    uint64_t seed = data[0];
    const uint8_t *in = data + 1;
    size_t n = size - 1;

    CHECK_EQ(fc_head_end(in, n, 0), reference_head_end(in, n));
    for (size_t at = 0; at < n && end == 0;) {
        size_t seen = at;
        size_t piece = 1 + check_random(&seed) % 20;
        piece = piece < n - at ? piece : n - at;
        CHECK_EQ(fc_head_append(&head, in + at, piece), 0);
        at += piece;
        CHECK_BYTES(head->bytes, head->length, in, at);
        end = fc_head_end(head->bytes, head->length, seen);
        CHECK_EQ(end, reference_head_end(in, at));
    }
    free(head);
    return 0;
}
