/*
 * worker.h - one thread of the load client: its share of the connections, of the senders and of the counting.
 *
 * A worker owns all that it points to except the run.  Other threads touch only the fields of the first
 * group, which are atomic; the rest is read by the coordinating thread after the worker has been joined.
 */
#ifndef FC_WORKER_H
#define FC_WORKER_H

#include "link.h"
#include "histogram.h"
#include "ledger.h"
#include "load.h"

#include <pthread.h>
#include <stdatomic.h>

/* The steps that the coordinating thread leads all workers through. */
enum fc_worker_step {
    FC_STEP_CONNECT,
    FC_STEP_IDLE,   /* keep the connections alive, answer pings */
    FC_STEP_MUSTER, /* count who will receive */
    FC_STEP_MESSAGES,
    FC_STEP_CLOSE,
    FC_STEP_STOP
};

/* What all workers share. */
struct fc_run {
    const struct fc_load_options *options;
    struct fc_target target;
    struct fc_handshake handshake;
    struct fc_ledger ledger;
    struct fc_worker *workers;
    uint32_t threads;
    uint32_t churners;
    int wake_fd;    /* wakes the coordinating thread */
    int wake_first; /* the lowest and the highest of all descriptors that wake a thread */
    int wake_last;
    uint64_t start_ns; /* of the message step; written before the step is announced */
    _Atomic int step;
};

struct fc_sender;
struct fc_local;

struct fc_worker {
    /* Read by the coordinating thread while the worker runs. */
    _Atomic int done; /* the last step that is complete */
    _Atomic uint64_t made;
    _Atomic uint64_t failed;
    _Atomic uint64_t sent;
    _Atomic uint64_t received;
    _Atomic uint32_t receivers; /* valid once FC_STEP_MUSTER is done */
    _Atomic bool own_table;

    /* Pushed by any worker whose receiver was a message's last, popped by this one. */
    _Atomic(struct fc_sender *) ready;
    int wake_fd;

    /* Constant once started. */
    struct fc_run *run;
    uint32_t id;
    uint32_t count; /* connections; the one at index i is number i * threads + id of the run */
    pthread_t thread;

    /* The worker's alone. */
    struct fc_link_io io;
    struct fc_link *links;
    int timer_fd;
    uint64_t timer_ns; /* what the timer is set to; 0: nothing */
    int step;
    bool step_done;
    uint64_t step_ns;     /* when the step began here */
    uint32_t cursor;      /* of the step's walk through the connections */
    uint32_t in_progress; /* handshakes, opening or closing */
    uint32_t sockets;

    struct fc_sender *senders;
    uint32_t senders_used;
    uint32_t senders_done;
    uint32_t turn; /* open loop: the sender whose message is due next */
    uint8_t *frame;
    uint8_t *payload;

    struct fc_local *local;   /* one for each of the ledger's flights */
    struct fc_stray **strays; /* by connection; NULL until a first one strays */
    uint32_t counted;         /* receivers that are still there */
    uint32_t finished;        /* receivers that had everything, or are gone */

    uint32_t churn_first;
    uint32_t churn_end;
    uint32_t churn_next;
    uint64_t churn_due;
    uint32_t *reopen; /* closed, to be opened again */
    uint32_t reopen_used;
    uint32_t reopening; /* handshakes of reopened connections in progress */

    /* Results. */
    uint64_t live_received; /* `received`, before it is published */
    uint64_t expected;      /* receivers when the message step began */
    uint64_t lost_in_churn;
    uint64_t duplicated;
    uint64_t reordered;
    uint64_t damaged;
    uint64_t churn_received;
    uint64_t churn_closed;
    uint64_t churn_reopened;
    uint64_t churn_failed;
    uint64_t closed_unexpectedly;
    uint64_t stalled_closed;
    struct fc_load_tally failures;
    struct fc_load_tally closes;
    unsigned errors_used;
    char errors[4][160];
    struct fc_histogram handshake, latency, first, last, spread;
};

/* Allocates for `count` connections.  Returns 0 or -errno; fc_worker_free() is due either way. */
int fc_worker_init(struct fc_worker *worker, struct fc_run *run, uint32_t id, uint32_t count);
int fc_worker_start(struct fc_worker *worker);
void fc_worker_free(struct fc_worker *worker);

/* Makes the worker look at the step or at its ready senders.  Any thread. */
void fc_worker_wake(struct fc_worker *worker);

#endif
