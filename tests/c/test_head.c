/* The end of a request head: every prefix and every split, against the reference, before an unreadable page; and the
 * length of what a proxy puts before it. */
#include "head.h"

#include "check.h"
#include "faults.h"
#include "guard.h"
#include "reference.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct guard guard;

static size_t end_of(const char *bytes, size_t n, size_t seen)
{
    return fc_head_end(guard_copy(&guard, bytes, n), n, seen);
}

/* Arriving in any two pieces, and byte by byte, the end is found at the same place, and as early as it can be. */
static void replay(const char *bytes, size_t n)
{
    size_t byte_by_byte = 0;

    for (size_t have = 1; have <= n; have++) {
        size_t expected = reference_head_end((const uint8_t *)bytes, have);
        CHECK_EQ(end_of(bytes, have, 0), expected);
        if (byte_by_byte == 0) {
            byte_by_byte = end_of(bytes, have, have - 1);
            CHECK_EQ(byte_by_byte, expected);
        }
    }
    for (size_t split = 1; split < n; split++) {
        if (end_of(bytes, split, 0) == 0)
            CHECK_EQ(end_of(bytes, n, split), reference_head_end((const uint8_t *)bytes, n));
    }
}

static void the_end_is_where_the_empty_line_ends(void)
{
    static const struct {
        const char *bytes;
        size_t end;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", 27},
        {"GET / HTTP/1.1\nHost: a\n\nmore", 24},
        {"GET / HTTP/1.1\nHost: a\n\r\n", 25},
        {"GET / HTTP/1.1\r\n\nrest", 17},
        {"GET / HTTP/1.1\r\n\r\n", 18},
        {"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 22},
        {"GET / HTTP/1.1\r\n\r \n\r\r\n\n", 23},
        {"GET / HTTP/1.1\r\r\n\r\r\n", 0},
        {"GET", 0},
        {"\r\n\r\n\r\n", 0},
        {"G\n\n", 3},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].bytes);
        CHECK_EQ(end_of(cases[i].bytes, n, 0), cases[i].end);
        replay(cases[i].bytes, n);
    }
}

static void what_is_no_request_ends_at_once(void)
{
    static const char tls[] = "\x16\x03\x01\x02\x00\x01";

    CHECK_EQ(end_of(tls, sizeof tls - 1, 0), sizeof tls - 1);
    CHECK_EQ(end_of("\r\n{}", 4, 0), 4);
    for (unsigned byte = 0; byte < 256; byte++) {
        char first = (char)byte;
        bool letter = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
        CHECK_EQ(end_of(&first, 1, 0), letter || byte == '\r' || byte == '\n' ? 0 : 1);
    }
}

static void random_lines_are_judged_like_the_reference(void)
{
    static const char alphabet[] = "\r\n\r\nGx: \n";
    uint64_t seed = 5;

    for (unsigned round = 0; round < 20000; round++) {
        char bytes[24];
        size_t n = 1 + check_random(&seed) % sizeof bytes;
        for (size_t i = 0; i < n; i++)
            bytes[i] = alphabet[check_random(&seed) % (sizeof alphabet - 1)];
        replay(bytes, n);
    }
}

/* ---- the PROXY protocol ---- */

static size_t proxy(const char *bytes, size_t n)
{
    return fc_head_proxy(guard_copy(&guard, bytes, n), n);
}

/* All that is shorter than `known` needs more bytes, and from there on the answer stays. */
static void expect_proxy(const char *bytes, size_t n, size_t known, size_t expected)
{
    for (size_t have = 0; have <= n; have++)
        CHECK_EQ(proxy(bytes, have), have < known ? SIZE_MAX : expected);
}

#define EXPECT_PROXY(bytes, known, expected) expect_proxy(bytes, sizeof(bytes) - 1, known, expected)

static void a_proxy_line_ends_with_its_line_feed(void)
{
    EXPECT_PROXY("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET / HTTP/1.1\r\n\r\n", 40, 40);
    EXPECT_PROXY("PROXY UNKNOWN\r\n", 15, 15);
    EXPECT_PROXY("PROXY UNKNOWN\nGET", 14, 14);
    EXPECT_PROXY("PROXY \n", 7, 7);
}

static void a_proxy_line_is_at_most_107_bytes_long(void)
{
    char bytes[120];

    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "PROXY ", 6);
    expect_proxy(bytes, sizeof bytes, 107, 0);
    bytes[107] = '\n';
    expect_proxy(bytes, sizeof bytes, 107, 0);
    bytes[106] = '\n';
    expect_proxy(bytes, sizeof bytes, 107, 107);
}

static void a_binary_header_tells_its_length(void)
{
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
    EXPECT_PROXY(SIGNATURE "\x21\x11\0\x0C" "0123456789ab" "GET / HTTP/1.1", 16, 28);
    EXPECT_PROXY(SIGNATURE "\x20\0\0\0", 16, 16);
    EXPECT_PROXY(SIGNATURE "\x21\x21\x01\x02", 16, 16 + 258); /* most of it hasn't come yet */
    EXPECT_PROXY(SIGNATURE "\x21\x21\xFF\xFF", 16, 16 + 65535);
}

static void what_is_no_proxy_header_is_told_at_the_first_byte_that_differs(void)
{
    static const char signature[] = SIGNATURE;
    char bytes[16];

    for (size_t i = 0; i < 12; i++) {
        memcpy(bytes, signature, 12);
        bytes[i] ^= 0x20;
        expect_proxy(bytes, 12, i + 1, 0);
    }
    for (size_t i = 0; i < 6; i++) {
        memcpy(bytes, "PROXY ", 6);
        bytes[i] ^= 0x20;
        expect_proxy(bytes, 6, i + 1, 0);
    }
    EXPECT_PROXY("GET / HTTP/1.1\r\n\r\n", 1, 0);
    EXPECT_PROXY("POST / HTTP/1.1\r\n\r\n", 2, 0);
    EXPECT_PROXY("\r\nGET / HTTP/1.1\r\n\r\n", 3, 0); /* empty lines before a request */
    EXPECT_PROXY("\r\n\r\nGET / HTTP/1.1\r\n\r\n", 5, 0);
    EXPECT_PROXY("\nGET / HTTP/1.1\r\n\r\n", 1, 0);
}

/* ---- collecting ---- */

static void pieces_are_appended_in_order(void)
{
    struct fc_head *head = NULL;
    char expected[1000];
    size_t n = 0;

    for (unsigned i = 1; n + i <= sizeof expected; i++) {
        memset(expected + n, 'a' + (int)(i % 26), i);
        CHECK_EQ(fc_head_append(&head, (const uint8_t *)expected + n, i), 0);
        n += i;
        CHECK_BYTES(head->bytes, head->length, expected, n);
    }
    free(head);
}

static void without_memory_the_head_stays_as_it_was(void)
{
    static const uint8_t more[100] = {0};
    struct fc_head *head = NULL;

    CHECK_EQ(fc_head_append(&head, (const uint8_t *)"GET", 3), 0);
    struct fc_head *before = head;
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_head_append(&head, more, sizeof more), -ENOMEM);
    CHECK(head == before);
    CHECK_BYTES(head->bytes, head->length, "GET", 3);
    free(head);

    head = NULL;
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_head_append(&head, more, 1), -ENOMEM);
    CHECK(!head);
}

int main(void)
{
    guard_open(&guard, 256);
    RUN(the_end_is_where_the_empty_line_ends);
    RUN(what_is_no_request_ends_at_once);
    RUN(random_lines_are_judged_like_the_reference);
    RUN(a_proxy_line_ends_with_its_line_feed);
    RUN(a_proxy_line_is_at_most_107_bytes_long);
    RUN(a_binary_header_tells_its_length);
    RUN(what_is_no_proxy_header_is_told_at_the_first_byte_that_differs);
    RUN(pieces_are_appended_in_order);
    RUN(without_memory_the_head_stays_as_it_was);
    guard_close(&guard);
    return 0;
}
