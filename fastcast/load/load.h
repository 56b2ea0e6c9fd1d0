/*
 * load.h - the load client: many WebSocket connections from one process, and what became of every message.
 *
 * One call, fc_load_run(), takes a set of options through the phases connect, settle, messages, hold and
 * close, and fills a report.  It blocks its caller, starts its own threads and joins them before it returns;
 * nothing outlives the call. The library needs Linux and pthreads and never includes Python.h.
 */
#ifndef FC_LOAD_H
#define FC_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Connections that one source address opens to the one port: beyond this the kernel's search for a free port
 * costs more than the connection. */
#define FC_LOAD_PER_ADDRESS 2000u

enum fc_load_phase {
    FC_LOAD_CONNECT,
    FC_LOAD_SETTLE,
    FC_LOAD_MESSAGES,
    FC_LOAD_HOLD,
    FC_LOAD_CLOSE,
    FC_LOAD_PHASES
};

struct fc_load_progress {
    enum fc_load_phase phase;
    uint64_t made;
    uint64_t failed;
    uint64_t sent;
    uint64_t received;
};

/* Times in seconds, rates per second, sizes in bytes.  fc_load_options_init() gives every field its default.
 */
struct fc_load_options {
    const char *url; /* ws://HOST[:PORT][/PATH] */
    uint32_t connections;
    uint32_t threads; /* 0: two, or as many as the descriptor limit asks for */
    const char
        *sources; /* "A.B.C.D[/NN],..."; NULL: a random slice of 127.0.0.0/8 when the target is there */
    double connect_rate;     /* 0: as fast as connect_window lets */
    uint32_t connect_window; /* handshakes in progress at once */
    uint32_t senders;
    uint32_t messages;  /* for each sender */
    uint32_t in_flight; /* closed loop: a sender's messages that not all receivers have yet */
    double rate;        /* open loop: messages per second of all senders together; 0: closed loop */
    uint32_t size;      /* of a payload */
    bool text;
    uint32_t stalled; /* connections that never read once they are open */
    double churn;     /* connections closed and reopened per second while messages flow */
    double hold;
    double settle;
    double timeout;          /* for everything but the close phase, which has its own bound */
    double patience;         /* the message phase gives up after this long without any delivery */
    pid_t server_pid;        /* 0: the server is not measured */
    bool check_heads_only;   /* leave the fill of a payload unchecked */
    const char *headers;     /* request lines to add, each ending in CR LF; may be NULL */
    const char *subprotocol; /* may be NULL */

    /* Called by the caller's own thread some ten times a second; anything but 0 ends the run early.  May be
     * NULL. */
    int (*progress)(void *context, const struct fc_load_progress *progress);
    void *context;
};

#define FC_LOAD_TALLIES 24
#define FC_LOAD_ERRORS 16

/* How often each of a small set of things happened, by name; what does not fit is counted under "other". */
struct fc_load_tally {
    struct {
        char name[48];
        uint64_t count;
    } rows[FC_LOAD_TALLIES];
    unsigned used;
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

enum { FC_LOAD_BEFORE, FC_LOAD_CONNECTED, FC_LOAD_DELIVERED, FC_LOAD_HELD, FC_LOAD_CLOSED, FC_LOAD_MOMENTS };

struct fc_load_report {
    struct {
        uint32_t asked;
        uint64_t made;
        uint64_t failed;
        uint64_t closed_unexpectedly;
        uint64_t stalled_closed; /* stalled connections whose end by the server was seen */
        uint32_t threads;
        bool own_tables; /* each thread had a descriptor table of its own */
        double seconds;
        double rate;
        struct fc_load_tally failures;
        struct fc_load_spread handshake_us;
    } connections;
    struct {
        uint64_t asked;
        uint64_t sent;
        uint32_t size;
        uint32_t senders;
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
        uint64_t churning; /* received by connections that churn; not among the expected */
    } deliveries;
    struct {
        uint64_t closed;
        uint64_t reopened;
        uint64_t failed;
    } churn;
    double throughput; /* deliveries per second */
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
    bool clean; /* all connected; nothing lost, duplicated, reordered, damaged or closed before its time */
};

void fc_load_options_init(struct fc_load_options *options);

/* Runs the load and fills the report, whatever the outcome.  Returns 0; -EINVAL with one line in `problem`
 * when the options contradict each other; another -errno with one line in `problem` when the run could not
 * start. */
int fc_load_run(const struct fc_load_options *options, struct fc_load_report *report, char *problem,
                size_t room);

/* Writes the report as one JSON object and a newline.  Returns 0 or -EIO. */
int fc_load_report_write(const struct fc_load_report *report, FILE *out);

void fc_load_tally_add(struct fc_load_tally *tally, const char *name, uint64_t count);

#endif
