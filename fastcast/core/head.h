/* Collects the head of an HTTP request, without looking at what it says. */
#ifndef FC_HEAD_H
#define FC_HEAD_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of a request whose head isn't complete, or what came behind a complete one. */
struct fc_head {
    uint32_t length;
    uint32_t capacity;
    uint8_t bytes[];
};

/* The length of the request head at the beginning of the bytes, its final empty line included, or 0 when
 * more are needed. Looks at nothing before `seen`, a length that was already found incomplete. Lines may
 * end in a bare LF and the first byte may be no HTTP at all: either completes a head, which
 * the handshake then refuses without waiting for a time-out. */
size_t fc_head_end(const uint8_t *bytes, size_t n, size_t seen);

/* The length of the PROXY protocol's header that the bytes begin with, version 1 or 2; 0 if it's none. SIZE_MAX: more
 * bytes are needed to tell. The header may be longer than n. */
size_t fc_head_proxy(const uint8_t *bytes, size_t n);

/* Appends to *head, which is NULL at first. Returns 0 or -ENOMEM, with *head as it was. */
int fc_head_append(struct fc_head **head, const uint8_t *bytes, size_t n);

#endif
