/*
 * digest.h - the value of Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2).
 */
#ifndef FC_DIGEST_H
#define FC_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define FC_DIGEST_ACCEPT 28u

/* Writes FC_DIGEST_ACCEPT characters and a NUL.  `key` is what stood in Sec-WebSocket-Key: 24 characters; a
 * key longer than 64 is cut there, since no valid one is. */
void fc_digest_accept(char out[FC_DIGEST_ACCEPT + 1], const char *key, size_t length);

/* Base64 (RFC 4648 section 4) of `size` bytes, with padding and a NUL; `out` has room for 4 * ((size + 2) /
 * 3) + 1. */
void fc_digest_base64(char *out, const uint8_t *bytes, size_t size);

#endif
