/* Fuzz target: a client's bytes through fc_inbound, in chunks that the input chooses as well.
 *
 * Bytes 0 and 1 of the input choose the limit of a message and the chunks, the rest is what the client sends.
 * Whatever the chunking, the items and the error must be those of the reference; no memory may be left.
 */
#include "check.h"
#include "inbound.h"
#include "reference.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fc_account account;

static size_t everything(void *context, size_t left)
{
    (void)context;
    return left;
}

static size_t one_byte(void *context, size_t left)
{
    (void)context;
    (void)left;
    return 1;
}

static size_t random_size(void *context, size_t left)
{
    size_t chunk = 1 + check_random(context) % 40;

    return chunk < left ? chunk : left;
}

static void compare(const uint8_t *in, size_t n, size_t max_message, size_t (*next_chunk)(void *, size_t),
                    void *context, const struct transcript *expected)
{
    const struct fc_inbound_limits limits = {.account = &account, .max_message = max_message, .max_alive = SIZE_MAX};
    struct transcript actual = {0};

    inbound_parse(in, n, &limits, next_chunk, context, &actual);
    CHECK_EQ(actual.error, expected->error);
    CHECK(transcript_equal(&actual, expected));
    CHECK_EQ(account.messages, 0);
    CHECK_EQ(account.bytes, 0);
    transcript_free(&actual);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct transcript expected = {0};

    if (size < 2)
        return 0;
    size_t max_message = (size_t)1 << data[0] % 20;
    uint64_t seed = data[1];
    const uint8_t *in = data + 2;
    size_t n = size - 2;

    reference_parse(in, n, max_message, &expected);
    compare(in, n, max_message, everything, NULL, &expected);
    compare(in, n, max_message, one_byte, NULL, &expected);
    compare(in, n, max_message, random_size, &seed, &expected);
    if (expected.error) { /* not before the byte that shows it */
        struct transcript before = expected;
        before.error = 0;
        compare(in, expected.error_at - 1, max_message, everything, NULL, &before);
    }
    transcript_free(&expected);
    return 0;
}
