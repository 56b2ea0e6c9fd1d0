/*
 * handshake.c - builds the upgrade request and judges the answer.  The request is built by the coordinating
 * thread and constant while the load runs; checks are pure functions, on any thread.
 */
#include "handshake.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

int fc_handshake_init(struct fc_handshake *handshake, const char *authority, const char *path,
                      const char *headers, const char *subprotocol)
{
    uint8_t nonce[16];
    char key[25];
    memset(handshake, 0, sizeof *handshake);
    if (getrandom(nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        return -errno;
    fc_digest_base64(key, nonce, sizeof nonce);
    fc_digest_accept(handshake->accept, key, strlen(key));
    handshake->subprotocol = subprotocol;
    int size = asprintf(&handshake->request,
                        "GET %s HTTP/1.1\r\n"
                        "Host: %s\r\n"
                        "Upgrade: websocket\r\n"
                        "Connection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\n"
                        "Sec-WebSocket-Version: 13\r\n"
                        "%s%s%s%s\r\n",
                        path, authority, key, subprotocol != NULL ? "Sec-WebSocket-Protocol: " : "",
                        subprotocol != NULL ? subprotocol : "", subprotocol != NULL ? "\r\n" : "",
                        headers != NULL ? headers : "");
    if (size < 0) {
        handshake->request = NULL;
        return -ENOMEM;
    }
    handshake->request_size = (size_t)size;
    return 0;
}

void fc_handshake_free(struct fc_handshake *handshake)
{
    free(handshake->request);
    handshake->request = NULL;
}

struct span {
    const char *at;
    size_t size;
};

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static bool same(struct span span, struct span other)
{
    return span.size == other.size && strncasecmp(span.at, other.at, span.size) == 0;
}

static struct span trim(struct span span)
{
    while (span.size > 0 && (span.at[0] == ' ' || span.at[0] == '\t')) {
        span.at++;
        span.size--;
    }
    while (span.size > 0 && (span.at[span.size - 1] == ' ' || span.at[span.size - 1] == '\t'))
        span.size--;
    return span;
}

static bool has_token(struct span list, struct span token)
{
    while (list.size > 0) {
        const char *comma = memchr(list.at, ',', list.size);
        size_t length = comma != NULL ? (size_t)(comma - list.at) : list.size;
        if (same(trim((struct span){list.at, length}), token))
            return true;
        size_t used = length + (comma != NULL);
        list.at += used;
        list.size -= used;
    }
    return false;
}

/* What the header fields of an answer have shown so far. */
struct answer {
    bool upgrade;
    bool connection;
    bool accept;
    const char *wrong;
};

static void read_field(const struct fc_handshake *handshake, struct answer *answer, struct span name,
                       struct span value)
{
    if (same(name, span_of("Upgrade"))) {
        answer->upgrade = has_token(value, span_of("websocket"));
    } else if (same(name, span_of("Connection"))) {
        answer->connection = answer->connection || has_token(value, span_of("upgrade"));
    } else if (same(name, span_of("Sec-WebSocket-Accept"))) {
        /* Base64, so unlike all the others this value is case-sensitive. */
        answer->accept =
            value.size == FC_DIGEST_ACCEPT && memcmp(value.at, handshake->accept, value.size) == 0;
    } else if (same(name, span_of("Sec-WebSocket-Protocol"))) {
        if (handshake->subprotocol == NULL || !has_token(span_of(handshake->subprotocol), value))
            answer->wrong = "subprotocol that was not asked for";
    } else if (same(name, span_of("Sec-WebSocket-Extensions"))) {
        answer->wrong = "extension that was not asked for";
    }
}

int fc_handshake_check(const struct fc_handshake *handshake, const char *bytes, size_t have,
                       char reason[FC_HANDSHAKE_REASON])
{
    const char *end = memmem(bytes, have, "\r\n\r\n", 4);
    if (end == NULL) {
        if (have < FC_HANDSHAKE_MAX_HEAD)
            return 0;
        snprintf(reason, FC_HANDSHAKE_REASON, "answer without an end");
        return -EPROTO;
    }
    size_t size = (size_t)(end + 4 - bytes);
    if (size < 16 || memcmp(bytes, "HTTP/1.1 ", 9) != 0) {
        snprintf(reason, FC_HANDSHAKE_REASON, "not HTTP/1.1");
        return -EPROTO;
    }
    if (memcmp(bytes + 9, "101", 3) != 0) {
        snprintf(reason, FC_HANDSHAKE_REASON, "http %.3s", bytes + 9);
        return -EPROTO;
    }
    struct answer answer = {0};
    const char *line = (const char *)memmem(bytes, size, "\r\n", 2) + 2;
    while (line < end) {
        const char *next = memmem(line, (size_t)(bytes + size - line), "\r\n", 2);
        const char *colon = memchr(line, ':', (size_t)(next - line));
        if (colon != NULL) {
            read_field(handshake, &answer, (struct span){line, (size_t)(colon - line)},
                       trim((struct span){colon + 1, (size_t)(next - colon - 1)}));
        }
        line = next + 2;
    }
    const char *wrong = !answer.upgrade      ? "no Upgrade: websocket in the answer"
                        : !answer.connection ? "no Connection: Upgrade in the answer"
                        : !answer.accept     ? "wrong Sec-WebSocket-Accept"
                                             : answer.wrong;
    if (wrong != NULL) {
        snprintf(reason, FC_HANDSHAKE_REASON, "%s", wrong);
        return -EPROTO;
    }
    return (int)size;
}
