/* The one public header of the core: a hub of shards that broadcast over WebSocket.
 *
 * No Python here, and none behind it. Every function may be called from any thread, except where it says
 * otherwise. Fallible functions return 0 or -errno.
 */
#ifndef FASTCAST_H
#define FASTCAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_hub;
struct fc_message;
struct fc_channel;

enum fc_io_choice {
    FC_IO_AUTO,  /* io_uring where the system allows it, else epoll */
    FC_IO_EPOLL,
    FC_IO_URING,
};

#define FC_PAYLOAD_MAX ((size_t)1 << 30) /* bytes of any message */

struct fc_span {
    const void *bytes;
    size_t length;
};

struct fc_options {
    unsigned shards;            /* threads, 1 to 1024 */
    const int *listeners;       /* shards * listeners_each listening, non-blocking sockets, shard by shard; */
    unsigned listeners_each;    /* the hub takes them over, and closes them */
    uint32_t max_connections;   /* over all shards; UINT32_MAX: as many as the fd limits allow */
    uint32_t max_handshakes;    /* connections that aren't open yet, over all shards, but one for each at the least */
    size_t max_message;         /* payload bytes of one message */
    size_t max_queue;           /* bytes that may wait for one client */
    size_t max_backlog;         /* bytes of messages alive in the hub */
    size_t max_head;            /* bytes of a request head */
    uint32_t flush_interval;    /* least time between two writes to a client; this and all below: milliseconds */
    uint32_t handshake_timeout;
    uint32_t ping_interval;     /* silence of a client until it's pinged; 0: never */
    uint32_t ping_timeout;      /* further silence until it's given up */
    uint32_t close_timeout;     /* how long a closing client may take */
    enum fc_io_choice io;
    bool handled;               /* messages of clients go to Python, and aren't relayed */
    bool shared_table;          /* don't try to give each shard an fd table of its own */
    struct fc_span timeout;     /* complete HTTP responses, copied: 408, */
    struct fc_span too_large;   /* 431, */
    struct fc_span full;        /* and 503 */
};

/* What a client has for Python: a request head that waits for its answer, or a message. */
struct fc_event {
    uint64_t client;
    struct fc_span bytes;   /* the head, or the payload; valid until fc_hub_release, */
    struct fc_span channel; /* as is the channel's name of a message */
    bool text;              /* a message is text, valid UTF-8 */
    struct fc_message *message; /* these two hold the bytes: not for the taker */
    struct fc_channel *origin;
};

/* A piece of what waits. */
#define FC_EVENTS 256

struct fc_events {
    struct fc_events *next; /* not for the taker */
    size_t count;
    struct fc_event events[FC_EVENTS];
};

struct fc_answer {
    uint64_t client;
    struct fc_span response;
    struct fc_span channel;
};

/* Written by the shards, each its own, and read at any time: every number is right, but
 * they are not all of the same instant. */
#define FC_COUNTERS(X)                                                                                          \
    X(accepted)        /* connections taken from the listeners */                                               \
    X(closed)          /* connections closed, whatever their state */                                           \
    X(requests)        /* request heads handed to Python */                                                     \
    X(opened)          /* WebSockets opened */                                                                  \
    X(refused)         /* requests that Python refused, or answered with a page */                              \
    X(full)            /* connections refused for want of room */                                               \
    X(handed_over)     /* connections passed to a shard with room */                                            \
    X(handshake_timeouts) /* clients whose request didn't come in time */                                       \
    X(shed)            /* clients that waited too long for us to read their request, or gave up meanwhile */    \
    X(received)        /* messages from clients */                                                              \
    X(received_bytes)  /* as frames that go out */                                                              \
    X(sent)            /* deliveries begun: a message for one client counts as one; each ends as */             \
    X(delivered)       /* completely written to the socket, */                                                  \
    X(dropped)         /* left out for want of memory, or */                                                    \
    X(gone)            /* waiting for a client that went before; the rest is queued */                          \
    X(sent_bytes)      /* bytes written to sockets */                                                           \
    X(slow)            /* clients closed at their queue limit */                                                \
    X(dead)            /* clients given up after a ping, or in closing */                                       \
    X(violations)      /* clients closed for an error of theirs */                                              \
    X(pings)                                                                                                    \
    X(no_files)        /* times that accepting failed for want of fds, */                                       \
    X(no_memory)       /* or of memory; and connections that couldn't be watched */

/* Gauges: what is there now. */
#define FC_GAUGES(X)                                                                                            \
    X(connections)     /* sockets of clients, in whatever state */                                              \
    X(clients)         /* open WebSockets */                                                                    \
    X(handshakes)      /* connections that aren't open yet, */                                                  \
    X(asked)           /* among them the requests that Python hasn't answered */                                               \
    X(lagging)         /* clients for whom something waits */                                                   \
    X(queued)          /* deliveries that wait */                                                               \
    X(queued_bytes)    /* bytes that wait, over all clients; many share the same memory */

struct fc_shard_stats {
#define FC_FIELD(name) uint64_t name;
    FC_COUNTERS(FC_FIELD)
    FC_GAUGES(FC_FIELD)
#undef FC_FIELD
    uint64_t capacity; /* clients that its fd table holds */
};

struct fc_hub_stats {
    uint64_t messages; /* alive in the process */
    uint64_t message_bytes;
    uint64_t channels;
    uint64_t threads;
    uint64_t published; /* by fc_hub_publish */
};

/* Copies the options. The responses and the array of listeners may go after the call; the listening sockets
 * are the hub's if it succeeds. */
int fc_hub_create(struct fc_hub **hub, const struct fc_options *options);

/* Starts the shards and returns when each of them listens, or has failed: then none is left running. -EALREADY when
 * called again. */
int fc_hub_start(struct fc_hub *hub);

/* A non-blocking eventfd, readable when events wait or a shard has ended; the hub owns it. */
int fc_hub_event_fd(const struct fc_hub *hub);

/* Take the oldest requests, or messages, that wait, FC_EVENTS at most; NULL if none does. What was taken goes back to
 * fc_hub_release. While messages of more than a quarter of max_backlog wait, nothing is read from clients. Reset the
 * event fd before, and then take until there are no more, or look again in any case. */
void fc_hub_reset_event(struct fc_hub *hub);
struct fc_events *fc_hub_requests(struct fc_hub *hub);
struct fc_events *fc_hub_messages(struct fc_hub *hub);
void fc_hub_release(struct fc_hub *hub, struct fc_events *events);

/* Answers requests: writes the response and, with a channel, opens the WebSocket as its member; without one
 * (length 0), the connection ends behind the response. All answers for a shard go to it at once. A client that has
 * gone is no error. -ENOMEM: some were not answered, and time out. */
int fc_hub_answer(struct fc_hub *hub, const struct fc_answer *answers, size_t n);

/* Sends one message to every client of the channel, as text or binary. Costs the same for any number of
 * clients. -EAGAIN: the shards are too far behind. -EMSGSIZE: longer than FC_PAYLOAD_MAX. -ENOMEM. -ESHUTDOWN once
 * stopping. */
int fc_hub_publish(struct fc_hub *hub, struct fc_span channel, bool text, struct fc_span payload);

/* Begins the end: listeners close, clients get what was published and a Close 1001, shards end when all
 * have gone, or after timeout milliseconds. May be called again with less time. */
void fc_hub_stop(struct fc_hub *hub, uint32_t timeout);

/* How many shards are running. */
unsigned fc_hub_running(struct fc_hub *hub);

unsigned fc_hub_shards(const struct fc_hub *hub);

/* Clients that there is room for. After fc_hub_start. */
uint64_t fc_hub_capacity(struct fc_hub *hub);

/* "io_uring" or "epoll". After fc_hub_start. */
const char *fc_hub_backend(struct fc_hub *hub);

/* Why io_uring isn't used though FC_IO_AUTO asked for it: an errno; 0 if it is, or wasn't asked for. After
 * fc_hub_start. */
int fc_hub_uring_error(struct fc_hub *hub);

/* Whether each shard has an fd table of its own. After fc_hub_start. */
bool fc_hub_private_tables(struct fc_hub *hub);

void fc_hub_read_stats(struct fc_hub *hub, struct fc_hub_stats *stats);
void fc_hub_read_shard_stats(struct fc_hub *hub, unsigned shard, struct fc_shard_stats *stats);

/* Stops at once what still runs, waits for the threads, frees everything. No other call may be under way. */
void fc_hub_destroy(struct fc_hub *hub);

#endif
