/*
 * link.h - one client connection: opening, handshake, frames both ways, closing.
 *
 * A connection at rest is one struct fc_link and nothing else.  What it needs for a moment (a frame that came
 * in parts, bytes that the socket did not take) hangs on `extra` and goes when that moment is over.  All
 * connections of a thread share one struct fc_link_io with one read buffer; nothing here may be called from
 * any other thread.
 */
#ifndef FC_LINK_H
#define FC_LINK_H

#include "handshake.h"
#include "target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fc_link_state {
    FC_LINK_NONE,       /* no socket */
    FC_LINK_CONNECTING, /* TCP is being established */
    FC_LINK_REQUESTED,  /* the upgrade request is on its way */
    FC_LINK_OPEN,
    FC_LINK_CLOSING, /* we sent a Close; the server's is awaited */
    FC_LINK_CLOSED   /* both sent a Close; the end of TCP is awaited */
};

struct fc_link_extra;

struct fc_link {
    struct fc_link_extra *extra;
    uint64_t since_ns; /* when it took up its present state; not updated by FC_LINK_OPEN */
    int32_t fd;
    uint32_t position; /* the owner's */
    uint16_t code;     /* of the server's Close; 0: none came */
    uint16_t role;     /* the owner's */
    uint8_t state;
    uint8_t attempts; /* the owner's */
    bool deaf;        /* stops reading once it is open */
};

/* What one thread's connections have in common.  The owner fills it in; the callbacks run within fc_link_*
 * calls, and none but `refused` and `closed` may end the connection they are called for. */
struct fc_link_io {
    int epoll;
    struct fc_link *links; /* an epoll event carries the index into this table */
    const struct fc_target *target;
    const struct fc_handshake *handshake;
    uint8_t *buffer;
    size_t capacity;
    uint64_t frame_limit; /* payload bytes; a server that sends more fails the connection */
    uint64_t random;      /* state of the generator of masks; not 0 */

    void *owner;
    void (*opened)(void *owner, struct fc_link *link);
    /* The handshake failed: there is no socket any more. */
    void (*refused)(void *owner, struct fc_link *link, const char *reason);
    void (*message)(void *owner, struct fc_link *link, uint8_t opcode, const uint8_t *payload, size_t size,
                    uint64_t now);
    /* Bytes that the socket had not taken at first have now left. */
    void (*drained)(void *owner, struct fc_link *link);
    /* An open connection has ended with this code (section 7.4.1; 1006: without the server's Close). */
    void (*closed)(void *owner, struct fc_link *link, uint16_t code, bool asked);
};

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t fc_link_now(void);

/* Starts a connection from the source address that belongs to `number`.  Ends in `opened` or `refused`,
 * perhaps before it returns.  `since_ns` is when it should have begun; 0: now. */
void fc_link_open(struct fc_link_io *io, struct fc_link *link, uint32_t number, uint64_t since_ns);

/* Handles an epoll event. */
void fc_link_event(struct fc_link_io *io, struct fc_link *link, uint32_t events);

/* Sends bytes of whole frames on an open connection; what the socket does not take waits.  Returns false when
 * the connection broke, after `closed`. */
bool fc_link_send(struct fc_link_io *io, struct fc_link *link, const uint8_t *bytes, size_t size);

/* Whether bytes still wait to leave. */
bool fc_link_backed_up(const struct fc_link *link);

uint32_t fc_link_mask(struct fc_link_io *io);

/* Starts the closing handshake with this code on an open connection. */
void fc_link_close(struct fc_link_io *io, struct fc_link *link, uint16_t code);

/* Ends a connection in whatever state it is, without ceremony; `refused` or `closed` follows. */
void fc_link_abort(struct fc_link_io *io, struct fc_link *link, const char *reason);

/* The same, so that the server is told by an RST instead of a FIN. */
void fc_link_reset(struct fc_link_io *io, struct fc_link *link, const char *reason);

#endif
