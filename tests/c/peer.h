/* A client of the hub under test: a blocking socket that speaks the protocol by hand, and expects what it gets. */
#ifndef PEER_H
#define PEER_H

#include "world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer {
    int fd;
    unsigned number; /* in its world */
    uint8_t *bytes;  /* received, */
    size_t length;
    size_t capacity;
    size_t used;     /* and these are dealt with */
};

struct frame {
    uint8_t opcode;
    size_t length;
    const uint8_t *payload; /* valid until the next call with the peer */
};

/* A connection to a shard's port, with a receive buffer of that many bytes; 0: the system's choice. */
void peer_connect(struct peer *peer, struct world *world, unsigned shard, int receive_buffer);

/* Sends the head of a request for a channel. */
void peer_ask(struct peer *peer, const char *path);

/* All the way to an open WebSocket. */
void peer_join(struct peer *peer, struct world *world, unsigned shard, const char *channel);

/* The second half of that, for a peer that has asked: answers requests until this one has its answer. */
void peer_enter(struct peer *peer, struct world *world);

void peer_send_bytes(struct peer *peer, const void *bytes, size_t n);
void peer_send(struct peer *peer, bool fin, uint8_t opcode, const void *payload, size_t n);
void peer_text(struct peer *peer, const char *text);

/* Waits for a complete frame, which must be well-formed. */
struct frame peer_receive(struct peer *peer);

/* The same, of a connection that may be cut at any time. False: it was, or has ended. */
bool peer_try(struct peer *peer, struct frame *frame);

void peer_expect(struct peer *peer, uint8_t opcode, const void *payload, size_t n);
void peer_expect_text(struct peer *peer, const char *text);
void peer_expect_close(struct peer *peer, uint16_t code);
void peer_expect_bytes(struct peer *peer, const char *bytes);

/* Nothing more, and the end of the stream. */
void peer_expect_end(struct peer *peer);

/* Waits for the end or a reset, whatever comes before it. */
void peer_await_end(struct peer *peer);

/* Whether a frame, or the end, could be received without waiting. */
bool peer_has_news(struct peer *peer);

/* Closes as the protocol wants it: Close 1000, its echo, the end. */
void peer_leave(struct peer *peer);

/* Closes the socket at once; with a reset. */
void peer_close(struct peer *peer);
void peer_reset(struct peer *peer);

#endif
