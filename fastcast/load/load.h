/*
 * load.h - the load client: many WebSocket connections from one process, and what became of every message.
 *
 * One call, fc_load_run(), takes a set of options through the phases connect, settle, storm, messages, hold
 * and close, and fills a report.  It blocks its caller, starts its own threads and joins them before it
 * returns; nothing outlives the call. The library needs Linux and pthreads and never includes Python.h.
 */
#ifndef FC_LOAD_H
#define FC_LOAD_H

#include "histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Connections that one source address opens to the one port when the source addresses are this library's
 * choice: beyond this the kernel's search for a free port costs more than the connection. */
#define FC_LOAD_PER_ADDRESS 2000u

/* Room for the line that says why a run could not start. */
#define FC_LOAD_PROBLEM 512u

enum fc_load_phase {
    FC_LOAD_CONNECT,
    FC_LOAD_SETTLE,
    FC_LOAD_STORM,
    FC_LOAD_MESSAGES,
    FC_LOAD_HOLD,
    FC_LOAD_CLOSE,
    FC_LOAD_PHASES
};

/* "connect", "settle" and so on. */
extern const char *const fc_load_phase_names[FC_LOAD_PHASES];

/* Who is to receive a message. */
enum fc_load_expect {
    FC_LOAD_EXPECT_ALL,    /* a relay: every connection, the sender's included */
    FC_LOAD_EXPECT_SENDER, /* an echo server: the connection that sent it, and no other */
    FC_LOAD_EXPECT_ANY     /* the server publishes of itself: whatever comes is counted, and not looked at */
};

#define FC_LOAD_TALLIES 24
#define FC_LOAD_ERRORS 16

/* How often each of a small set of things happened, by name; what does not fit is counted under "other". */
struct fc_load_tally {
    struct fc_load_tally_row {
        char name[48];
        uint64_t count;
    } rows[FC_LOAD_TALLIES];
    unsigned used;
};

/* What is known while the run goes on.  Counts are since its start, the histograms since the last snapshot.
 */
struct fc_load_snapshot {
    enum fc_load_phase phase;
    double seconds;
    uint64_t made;        /* connections that have been open at least once */
    uint64_t failed;      /* that never were, and are given up */
    uint64_t open;        /* now */
    uint64_t in_progress; /* handshakes, now */
    uint64_t waiting;     /* to try again, now */
    uint64_t closed_unexpectedly;
    uint64_t sent;
    uint64_t received;
    uint64_t duplicated;
    uint64_t reordered;
    uint64_t damaged;
    uint64_t unexpected;
    const struct fc_load_tally *failures; /* of connections given up */
    const struct fc_load_tally *retried;  /* of attempts that were followed by another */
    const struct fc_histogram *latency;
    const struct fc_histogram *handshake;
    bool server_known;
    double server_seconds; /* of processor time, since that process began */
    uint64_t server_pss;
    uint64_t server_rss;
    unsigned server_threads;
    uint64_t kernel_tcp; /* of the whole machine, as is kernel_slab */
    uint64_t kernel_slab;
    double client_seconds; /* of processor time, since the run began */
};

/* So many connections at such a rate; 0: as fast as connect_window lets. */
struct fc_load_arrival {
    uint32_t count;
    double rate;
};

/* Times in seconds, rates per second, sizes in bytes.  fc_load_options_init() gives every field its default.
 */
struct fc_load_options {
    const char *url; /* ws://HOST[:PORT][/PATH][?QUERY]; HOST is a name, an IPv4 address or [IPv6] */
    const char *headers;     /* request lines to add, each ending in CR LF; may be NULL */
    const char *subprotocol; /* may be NULL */
    uint32_t connections;
    uint32_t threads; /* 0: two, or as many as the descriptor limit asks for */

    /* A list as in sources.h.  NULL: a random slice of 127.0.0.0/8 when the target is there, otherwise the
     * address that the kernel picks. */
    const char *sources;

    double connect_rate;     /* 0: as fast as connect_window lets */
    uint32_t connect_window; /* handshakes in progress at once, where there is no rate */
    const struct fc_load_arrival *arrivals; /* one after the other, instead of connect_rate */
    uint32_t arrivals_used;
    double handshake_timeout; /* of one attempt */

    /* Who failed or was lost tries again after a random pause of up to this; of up to twice this if that
     * fails, and so on to a bound.  0: never. */
    double retry;

    bool storm;       /* once all are connected, drop all and let all come back at the same time */
    bool storm_reset; /* drop with RST rather than with FIN */

    uint32_t senders;
    uint32_t messages; /* for each sender */
    enum fc_load_expect expect;
    uint32_t in_flight; /* closed loop: a sender's messages that not all receivers have yet */
    double rate;        /* open loop: messages per second of all senders together; 0: closed loop */
    double think;       /* closed loop: mean of the exponential pause before each message */
    bool think_fixed;   /* the pause is always `think` */
    uint32_t size;      /* of a payload */
    bool text;
    bool check_heads_only; /* leave the fill of a payload unchecked */

    /* This run's senders are numbers sender_base and up of the senders_total that all processes have
     * together, and the messages of all are expected here.  0: there are no others. */
    uint32_t sender_base;
    uint32_t senders_total;

    uint32_t stalled; /* connections that never read once they are open */
    double churn;     /* connections closed and reopened per second while messages flow */
    double settle;
    double hold;
    double timeout;   /* for connecting, storm and messages together */
    double patience;  /* the message phase gives up after this long without any delivery where one was due */
    pid_t server_pid; /* a process that exists; 0: the server is not measured */

    /* All are called by the caller's own thread and may be NULL.  `progress` comes every `interval` and once
     * at the end; `cancelled` some ten times a second.  Anything but 0 from either ends the run early. `gate`
     * is asked before each phase, some ten times a second until it returns something positive; a negative
     * answer ends the run early. Waiting at a gate does not count against the timeout. */
    int (*progress)(void *context, const struct fc_load_snapshot *snapshot);
    int (*cancelled)(void *context);
    int (*gate)(void *context, enum fc_load_phase phase);
    double interval;
    void *context;
};

/* Microseconds. */
struct fc_load_spread {
    uint64_t count;
    double p50, p90, p99, p999, max, mean;
};

/* Seconds; the server's are negative when there was no server_pid, or its clock could not be read. */
struct fc_load_usage {
    double wall;
    double client;       /* user and system time of the load client's threads */
    double server;       /* run time of the server's threads, from schedstat */
    double server_ticks; /* the same from utime and stime: coarse, but keeps what ended threads had used */
};

/* Bytes; 0 where unknown.  kernel_* are of the whole machine. */
struct fc_load_memory {
    uint64_t server_pss;
    uint64_t server_rss;
    uint64_t kernel_tcp;
    uint64_t kernel_slab;
};

enum {
    FC_LOAD_BEFORE,
    FC_LOAD_CONNECTED,
    FC_LOAD_BACK,
    FC_LOAD_DELIVERED,
    FC_LOAD_HELD,
    FC_LOAD_CLOSED,
    FC_LOAD_MOMENTS
};

/* Nanoseconds.  `first_receiver` and `last_receiver` are when a message reached the first and the last of its
 * receivers, `spread` is the time between the two. */
struct fc_load_histograms {
    struct fc_histogram latency, first_receiver, last_receiver, spread, handshake;
    struct fc_histogram storm_handshake; /* of each successful attempt in the storm */
    struct fc_histogram storm_back;      /* from the drop until a connection was back */
};

struct fc_load_report {
    struct {
        uint32_t asked;
        uint64_t made;
        uint64_t failed;
        uint64_t attempts;
        uint64_t reconnected; /* times that a connection which was lost came back */
        uint64_t closed_unexpectedly;
        uint64_t stalled_closed; /* stalled connections whose end by the server was seen */
        uint64_t unanswered;     /* closed at the end, without the server's Close */
        uint32_t threads;
        uint32_t sources; /* addresses; 0: the kernel chose */
        bool own_tables;  /* each thread had a descriptor table of its own */
        double seconds;
        double rate;
        struct fc_load_tally failures;
        struct fc_load_tally retried;
        struct fc_load_spread handshake_us;
    } connections;
    struct {
        bool happened;
        uint64_t dropped;
        uint64_t back;
        uint64_t attempts;
        double seconds; /* until all were back, or the run's patience with them ended */
        struct fc_load_tally refused;
        struct fc_load_spread handshake_us;
        struct fc_load_spread back_us;
    } storm;
    struct {
        uint64_t asked;
        uint64_t sent;
        uint32_t size;
        uint32_t senders;
        uint32_t senders_total;
        enum fc_load_expect expect;
        bool text;
    } messages;
    struct {
        uint64_t receivers; /* neither stalled nor churning */
        uint64_t expected;
        uint64_t received;
        uint64_t lost;
        uint64_t duplicated;
        uint64_t reordered;
        uint64_t damaged;
        uint64_t unexpected; /* came to a connection that is not among the message's receivers */
        uint64_t churning;   /* received by connections that churn; not among the expected */
    } deliveries;
    struct {
        uint64_t closed;
        uint64_t reopened;
        uint64_t failed;
    } churn;
    double throughput;     /* deliveries per second */
    /* The same in all processes whose receivers saw one order; empty when not all of it is known. */
    char order_digest[17];
    struct fc_load_spread latency_us, last_receiver_us, first_receiver_us, spread_us;
    struct fc_load_usage usage[FC_LOAD_PHASES];
    double client_busy;  /* of the busiest client thread in the message phase, 0 to 1 */
    double server_busy;  /* of the busiest server thread; negative when unknown */
    double machine_busy; /* both together over all processors; negative when unknown */
    bool client_bound;
    struct fc_load_memory memory[FC_LOAD_MOMENTS];
    struct fc_load_tally closes;
    unsigned errors_used;
    char errors[FC_LOAD_ERRORS][160];
    bool cancelled;
    bool clean; /* all connected; nothing lost, duplicated, reordered, damaged or closed before its time */
    struct fc_load_histograms histograms;
};

void fc_load_options_init(struct fc_load_options *options);

/* Runs the load and fills the report, whatever the outcome.  Returns 0; -EINVAL with one line in `problem`
 * when the options contradict each other; another -errno with one line in `problem` when the run could not
 * start: -EADDRNOTAVAIL for too few ports or a source that is not this machine's, -EMFILE and -ENFILE for too
 * few descriptors.  `room` is FC_LOAD_PROBLEM or more. */
int fc_load_run(const struct fc_load_options *options, struct fc_load_report *report, char *problem,
                size_t room);

/* Writes the report, except the histograms, as one JSON object and a newline.  Returns 0 or -EIO. */
int fc_load_report_write(const struct fc_load_report *report, FILE *out);

void fc_load_tally_add(struct fc_load_tally *tally, const char *name, uint64_t count);

void fc_load_tally_merge(struct fc_load_tally *into, const struct fc_load_tally *from);

#endif
