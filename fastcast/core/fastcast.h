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

/* What becomes of a message for a client that lags, and has no room for it. */
enum fc_policy {
    FC_POLICY_CLOSE,       /* the client is closed with 1008 */
    FC_POLICY_DROP_OLDEST, /* messages that wait make room, the oldest first */
    FC_POLICY_DROP_NEWEST, /* it's left out */
    FC_POLICY_LATEST,      /* of those with its key only the newest waits; without room, as with DROP_OLDEST */
};

/* Where messages go that clients send. */
enum fc_relay {
    FC_RELAY_CHANNEL, /* to the sender's home: the first channel that it was opened on */
    FC_RELAY_ALL,     /* to every client */
    FC_RELAY_OFF,     /* to nobody; they are counted as ignored */
};

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

struct fc_rule {
    struct fc_span channels; /* the name or pattern of those that it's for */
    enum fc_policy policy;
    size_t max_queue;      /* bytes that may wait for one client when a message of these comes */
    uint64_t max_messages; /* and messages; 0: any number */
    uint64_t keep_messages; /* of its last messages a channel keeps so many (0: any number), */
    uint64_t keep_time;     /* for so many milliseconds (0: any time). Both 0: it has no history */
};

struct fc_options {
    unsigned shards;            /* threads, 1 to 1024 */
    const int *listeners;       /* shards * listeners_each listening, non-blocking sockets, shard by shard; */
    unsigned listeners_each;    /* the hub takes them over, and closes them */
    uint32_t max_connections;   /* over all shards; UINT32_MAX: as many as the fd limits allow */
    uint32_t max_handshakes;    /* connections that aren't open yet, over all shards, but one for each at the least */
    size_t max_message;         /* payload bytes of one message */
    size_t max_queue;           /* bytes that may wait for one client, */
    uint64_t max_messages;      /* messages (0: any number), */
    enum fc_policy policy;      /* and then; for messages of channels that no rule is for, */
    uint64_t keep_messages;     /* of which these have a history, */
    uint64_t keep_time;         /* see the rules */
    size_t max_history;         /* bytes of messages that channels keep, all together */
    const struct fc_rule *rules; /* copied, the first that takes in a channel's name holds; at most FC_RULES_MAX */
    unsigned rule_count;
    size_t max_backlog;         /* bytes of messages alive in the hub */
    size_t max_head;            /* bytes of a request head */
    uint32_t flush_interval;    /* least time between two writes to a client; this and all below: milliseconds */
    uint32_t handshake_timeout;
    uint32_t ping_interval;     /* silence of a client until it's pinged; 0: never */
    uint32_t ping_timeout;      /* further silence until it's given up */
    uint32_t close_timeout;     /* how long a closing client may take */
    enum fc_io_choice io;
    enum fc_relay relay;
    double rate_limit;          /* messages per second that a client may send; 0: any number */
    uint32_t rate_burst;        /* and how many at once; at least 1 */
    uint32_t max_per_address;   /* open clients of one address; 0: any number */
    bool handled;               /* messages of clients go to Python, and aren't relayed */
    bool closes;                /* Python hears of the end of each client that it has accepted, */
    bool presence;              /* of joining and leaving channels, */
    bool remotes;               /* and where requests come from */
    bool proxy_protocol;        /* a PROXY header may come before a request */
    bool shared_table;          /* don't try to give each shard an fd table of its own */
    struct fc_span timeout;     /* complete HTTP responses, copied: 408, */
    struct fc_span too_large;   /* 431, */
    struct fc_span full;        /* 503, */
    struct fc_span too_many;    /* and 429 */
};

/* And where one has a history it counts twice. */
#define FC_RULES_MAX 255u

enum fc_event_kind {
    FC_EVENT_REQUEST, /* bytes: the head; remote and port if asked for */
    FC_EVENT_MESSAGE, /* channel: the sender's home, if any; bytes, text */
    FC_EVENT_CLOSED,  /* code, and bytes: the reason. 1006: without a Close */
    FC_EVENT_JOINED,  /* channel */
    FC_EVENT_LEFT,    /* channel */
    FC_EVENT_SLOW,    /* a policy begins to act: code is the policy, number the bytes that wait */
    FC_EVENT_MISSING, /* to fc_hub_check: there's no such open client, or no more */
    FC_EVENT_FLUSHED, /* a reply: client is the token */
    FC_EVENT_INFO,    /* a reply: number: the token; bytes: a struct fc_info, or nothing if the client has gone */
};

/* What a client, or a shard, has for Python. */
struct fc_event {
    enum fc_event_kind kind;
    uint16_t code;
    uint16_t port;
    bool text;              /* valid UTF-8 */
    uint64_t client;
    uint64_t number;
    struct fc_span bytes;   /* this and the next two are valid until fc_hub_release */
    struct fc_span channel;
    struct fc_span remote;  /* "127.0.0.1" */
    struct fc_message *message; /* these two hold the bytes: not for the taker */
    struct fc_channel *origin;
};

/* What fc_hub_inspect tells of a client. */
struct fc_info {
    uint64_t queued; /* messages, */
    uint64_t queued_bytes;
    uint32_t idle; /* milliseconds without a sign of life */
    bool open;     /* or it's closing */
    char remote[64];
    uint16_t port;
    uint32_t channels; /* so many names follow, each with its length in 32 bits before it */
    uint8_t names[];
};

/* A piece of what waits. */
#define FC_EVENTS 256

struct fc_events {
    struct fc_events *next; /* not for the taker */
    size_t count;
    struct fc_event events[FC_EVENTS];
};

/* An epoch: a run of offsets of one channel. Letters and digits. */
#define FC_EPOCH_SIZE 12

/* Where in a channel's history a client is: it has all up to the message with the offset. */
struct fc_position {
    char epoch[FC_EPOCH_SIZE];
    uint64_t offset;
};

/* What a client wants of its channels' histories. */
enum fc_resume {
    FC_RESUME_OFF,   /* nothing: its messages are as they were published */
    FC_RESUME_NEW,   /* to know its position, from now on, */
    FC_RESUME_ALL,   /* and first what is kept, */
    FC_RESUME_SINCE, /* or what came after its positions */
    FC_RESUME_HERE,  /* within the core: at a position behind which everything is on its way already */
};

struct fc_answer {
    uint64_t client;
    struct fc_span response;
    bool accept;
    const struct fc_span *channels;
    size_t channel_count;
    struct fc_span address; /* what counts for max_per_address; nothing: isn't counted */
    enum fc_resume resume;
    const struct fc_position *positions; /* FC_RESUME_SINCE: of any of its channels, in any order */
    size_t position_count;
};

struct fc_channel_stats {
    uint64_t members;
    uint64_t sent;
    uint64_t delivered;
    uint64_t dropped;
    uint64_t gone;
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
    X(dropped)         /* left out by a policy, or for want of memory, or */                                                    \
    X(gone)            /* waiting for a client that went before; the rest is queued */                          \
    X(sent_bytes)      /* bytes written to sockets */                                                           \
    X(slow)            /* clients closed at their queue limit */                                                \
    X(dropped_oldest)  /* of the dropped: by this policy, */                                                    \
    X(dropped_newest)  /* by this one, */                                                                       \
    X(conflated)       /* and replaced by a newer one with their key */                                         \
    X(replayed)        /* messages of histories to clients that came back, */                                   \
    X(gaps)            /* and channels whose history didn't reach back to where they were */                    \
    X(ignored)         /* messages from clients that were for nobody */                                         \
    X(rate_limited)    /* clients closed because they sent too much */                                          \
    X(address_limited) /* requests refused because their address had its clients */                             \
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
    uint64_t published; /* by fc_hub_publish and fc_hub_broadcast */
    uint64_t history_messages; /* that channels keep, */
    uint64_t history_bytes;
    uint64_t histories;        /* and channels that do */
};

/* Copies the options. The responses and the array of listeners may go after the call; the listening sockets
 * are the hub's if it succeeds. */
int fc_hub_create(struct fc_hub **hub, const struct fc_options *options);

/* Starts the shards and returns when each of them listens, or has failed: then none is left running. -EALREADY when
 * called again. */
int fc_hub_start(struct fc_hub *hub);

/* A non-blocking eventfd, readable when events wait or a shard has ended; the hub owns it. */
int fc_hub_event_fd(const struct fc_hub *hub);

/* Take the oldest requests, replies, or other events, that wait, FC_EVENTS at most; NULL if none does. What was taken goes back
 * to fc_hub_release. While events of more than a quarter of max_backlog wait, nothing is read from clients. Reset the
 * event fd before, and then take until there are no more, or look again in any case. */
void fc_hub_reset_event(struct fc_hub *hub);
struct fc_events *fc_hub_requests(struct fc_hub *hub);
struct fc_events *fc_hub_replies(struct fc_hub *hub);
bool fc_hub_unanswered(struct fc_hub *hub); /* whether, since it was last asked, a reply was lost for want of memory */
struct fc_events *fc_hub_events(struct fc_hub *hub);
void fc_hub_release(struct fc_hub *hub, struct fc_events *events);

/* Answers requests: writes the response and, if it accepts, opens the WebSocket as a member of all the channels, whose
 * names must be valid; else the connection ends behind the response. All answers for a shard go to it at once. A client
 * that has gone is no error: if it was accepted, its FC_EVENT_CLOSED comes all the same. -ENOMEM: some were not answered,
 * and time out; their FC_EVENT_CLOSED comes, too. */
int fc_hub_answer(struct fc_hub *hub, const struct fc_answer *answers, size_t n);

/* Sends one message to every client of the channel, and of patterns that take it in, as text or binary. Costs the same
 * for any number of clients. *reached: how many subscriptions it goes to. The key counts under FC_POLICY_LATEST.
 * -EAGAIN: the shards are too far behind. -EMSGSIZE: longer than FC_PAYLOAD_MAX. -EINVAL: no name of a channel. -ENOMEM.
 * -ESHUTDOWN once stopping. */
int fc_hub_publish(struct fc_hub *hub, struct fc_span channel, bool text, struct fc_span payload, struct fc_span key,
                   uint64_t *reached);

/* Has others give the offsets of a channel's messages, as where several hubs share one history: `position` is that of the
 * last message so far, but for those that are stored behind it, which nobody hears, and which are there at once for who
 * comes. Then only what comes with fc_hub_record is kept. fc_hub_release_history ends that, and forgets what is kept.
 * -EINVAL: the channel keeps nothing, or offsets don't rise. -ENOMEM: without what came before some message. */
struct fc_stored {
    uint64_t offset;
    bool text;
    struct fc_span payload;
};
int fc_hub_lead_history(struct fc_hub *hub, struct fc_span channel, const struct fc_position *position,
                        const struct fc_stored *stored, size_t n);
void fc_hub_release_history(struct fc_hub *hub, struct fc_span channel);

enum fc_recording {
    FC_RECORD,        /* for the history, and all who subscribe; */
    FC_RECORD_OTHERS, /* for all but those who resume, and not kept: it was kept before it was published */
};

/* fc_hub_publish for a channel that is led. -EALREADY: the offset isn't greater than all before it, as it has to be for
 * what is kept, and nothing happens. -EINVAL as well for a channel that isn't led. -ENOMEM: what can't be recorded is a
 * gap. For one caller at a time. */
int fc_hub_record(struct fc_hub *hub, struct fc_span channel, bool text, struct fc_span payload, struct fc_span key,
                  uint64_t offset, enum fc_recording recording, uint64_t *reached);

/* Some messages of a channel that is led are lost: forgets what is kept, and tells those who resume of a gap up to the
 * offset. -EINVAL, -ENOMEM. */
int fc_hub_skip_history(struct fc_hub *hub, struct fc_span channel, uint64_t offset);

/* Forgets all that is kept: each channel begins an epoch of its own. 0, or -ENOMEM and nothing is forgotten. */
int fc_hub_forget_histories(struct fc_hub *hub);

/* Drops what was kept for its time in channels where nothing is published any more; to be called now and then. */
void fc_hub_expire(struct fc_hub *hub);

/* The same to every client. */
int fc_hub_broadcast(struct fc_hub *hub, bool text, struct fc_span payload, uint64_t *reached);

/* The same to one client, behind what was published to it before. Nothing happens if it has gone. */
int fc_hub_send(struct fc_hub *hub, uint64_t client, bool text, struct fc_span payload);

/* Makes an open client a member of a channel or pattern, from now on; and ends that. -EINVAL for a bad name, -ENOMEM. */
int fc_hub_subscribe(struct fc_hub *hub, uint64_t client, struct fc_span channel);
int fc_hub_unsubscribe(struct fc_hub *hub, uint64_t client, struct fc_span channel);

/* Closes a client behind what was published and sent to it before. -EINVAL: no code to close with, or a reason of more
 * than 123 bytes. -ENOMEM. */
int fc_hub_close(struct fc_hub *hub, uint64_t client, uint16_t code, struct fc_span reason);

/* Has an FC_EVENT_MISSING come if the client isn't open; then behind its FC_EVENT_CLOSED, if it had one. -ENOMEM. */
int fc_hub_check(struct fc_hub *hub, uint64_t client);

/* Ask for an FC_EVENT_INFO; and for an FC_EVENT_FLUSHED of each shard, when all that was published before is written,
 * or waits in the queues of clients that lag. -ENOMEM. */
int fc_hub_inspect(struct fc_hub *hub, uint64_t client, uint64_t token);
int fc_hub_flush(struct fc_hub *hub, uint64_t token);

/* The ids of those whom a message to the channel would reach, each once; of a pattern, those who subscribe to just it.
 * *ids is for free(). -ENOMEM. */
int fc_hub_members(struct fc_hub *hub, struct fc_span channel, uint64_t **ids, size_t *count);

/* How many subscriptions that would be. */
int fc_hub_count(struct fc_hub *hub, struct fc_span channel, uint64_t *count);

/* What became of what was sent to subscribers of just this name or pattern since it had the first one. False: it has
 * none. */
bool fc_hub_read_channel(struct fc_hub *hub, struct fc_span channel, struct fc_channel_stats *stats);

/* Calls `each` for every channel and pattern that has clients. -ENOMEM. */
int fc_hub_channels(struct fc_hub *hub, void (*each)(void *context, struct fc_span name, uint64_t members),
                    void *context);

/* Open clients that count for the address. */
uint32_t fc_hub_address_count(struct fc_hub *hub, struct fc_span address);

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
