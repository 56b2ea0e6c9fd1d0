/*
 * handshake.h - the client's side of the opening handshake (RFC 6455 section 4.1): one request for all
 * connections, and the check of each answer.  Sans I/O.
 *
 * The key is random for the process and the same for each of its connections: what it guards against, a
 * server that does not know the protocol, is decided by the first answer as well as by a thousand.
 */
#ifndef FC_HANDSHAKE_H
#define FC_HANDSHAKE_H

#include "digest.h"

#include <stddef.h>

#define FC_HANDSHAKE_MAX_HEAD 16384u
#define FC_HANDSHAKE_REASON 48u

struct fc_handshake {
    char *request;
    size_t request_size;
    char accept[FC_DIGEST_ACCEPT + 1];
    const char *subprotocol; /* borrowed; may be NULL */
};

/* `headers` is NULL or whole lines, each with its CR LF; it and `subprotocol` outlive the handshake.  Returns
 * 0 or -errno. */
int fc_handshake_init(struct fc_handshake *handshake, const char *authority, const char *path,
                      const char *headers, const char *subprotocol);

void fc_handshake_free(struct fc_handshake *handshake);

/* Reads an answer.  Returns the size of its head when the server agreed; 0 when the head is not whole;
 * -EPROTO with a few words in `reason` when the connection has failed. */
int fc_handshake_check(const struct fc_handshake *handshake, const char *bytes, size_t have,
                       char reason[FC_HANDSHAKE_REASON]);

#endif
