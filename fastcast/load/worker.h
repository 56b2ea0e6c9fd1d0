/*
 * worker.h - one thread of the load client: its share of the connections, of the senders and of the counting.
 *
 * A worker owns all that it points to except the run.  Other threads touch only the fields of the first
 * group; the rest is read by the coordinating thread after the worker has been joined.
 */
#ifndef FC_WORKER_H
#define FC_WORKER_H

#include "arrivals.h"
#include "counters.h"
#include "ledger.h"
#include "link.h"
#include "load.h"
#include "timers.h"

#include <pthread.h>
#include <stdatomic.h>

/* The steps that the coordinating thread leads all workers through. */
enum fc_worker_step {
    FC_STEP_CONNECT,
    FC_STEP_IDLE, /* keep the connections alive, answer pings */
    FC_STEP_STORM,
    FC_STEP_MUSTER, /* count who will receive */
    FC_STEP_MESSAGES,
    FC_STEP_CLOSE, /* from here on nothing is opened */
    FC_STEP_STOP
};

/* Bits of fc_link.role. */
enum {
    FC_ROLE_SENDER = 1,
    FC_ROLE_CHURNER = 2,     /* it comes and goes: what it misses meanwhile is not lost */
    FC_ROLE_REOPENED = 4,    /* churn closed it, and it is not back */
    FC_ROLE_COUNTED = 8,     /* its deliveries are expected */
    FC_ROLE_FINISHED = 16,   /* it had every message */
    FC_ROLE_STRAYED = 32,    /* it left the common order: worker->strays knows what it had */
    FC_ROLE_UNTRACKED = 64,  /* it left the common order and there was no memory to follow it */
    FC_ROLE_UNPLACED = 128,  /* a churner whose place in the order is not known yet */
    FC_ROLE_MADE = 256,      /* it has been open */
    FC_ROLE_WAITING = 512,   /* it has a timer, and will try again */
    FC_ROLE_ABSENT = 1024,   /* the storm dropped it, and it is not back */
    FC_ROLE_ABANDONED = 2048 /* it never was open, and is given up */
};

/* What all workers share. */
struct fc_run {
    const struct fc_load_options *options;
    struct fc_target target;
    struct fc_handshake handshake;
    struct fc_arrivals arrivals;
    struct fc_ledger ledger;
    struct fc_worker *workers;
    uint32_t threads;
    uint32_t churners;
    uint32_t senders_total;
    int wake_fd;       /* wakes the coordinating thread */
    int *wake_fds;     /* this one and those that wake the workers, in ascending order */
    uint64_t start_ns; /* of the message step; written before the step is announced */
    _Atomic int step;
};

struct fc_sender;
struct fc_local;

struct fc_worker {
    /* Read by the coordinating thread while the worker runs. */
    _Atomic int done; /* the last step that is complete */
    struct fc_counters counters;
    _Atomic uint32_t receivers; /* this and the next are valid once FC_STEP_MUSTER is done */
    _Atomic uint32_t present;   /* senders that are connected */
    _Atomic bool own_table;
    pthread_mutex_t tally_lock; /* for the two that follow; failures are rare enough for a lock */
    struct fc_load_tally failures;
    struct fc_load_tally retried;

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
    uint64_t step_ns;  /* when the step began here */
    uint32_t cursor;   /* of the step's walk through the connections */
    uint32_t swept;    /* of the walk that looks for what takes too long */
    uint64_t swept_ns; /* when that walk last moved */
    uint32_t sockets;
    uint32_t closing; /* closing handshakes that this side began in the close step */

    uint32_t batch;     /* of the arrivals */
    uint32_t unsettled; /* connections that have neither been open nor been given up */
    uint64_t attempts;
    uint64_t reconnected;
    struct fc_timers retries; /* by connection */

    bool dropping; /* the storm is under way: what closes now was meant to */
    uint32_t absent;
    uint64_t storm_dropped;
    uint64_t storm_back;
    uint64_t storm_attempts;
    struct fc_load_tally storm_refused;

    struct fc_sender *senders;
    uint32_t senders_used;
    uint32_t senders_done;
    uint32_t turn;             /* open loop: the sender whose message is due next */
    struct fc_timers thoughts; /* closed loop: by sender */
    uint8_t *frame;
    uint8_t *payload;

    struct fc_local *local;   /* one for each of the ledger's flights */
    struct fc_stray **strays; /* by connection; NULL until a first one strays */
    uint32_t counted;         /* receivers that are still there */
    uint32_t expected;        /* receivers when they were mustered */
    uint32_t finished;        /* receivers that had everything, or are gone */
    bool recount;             /* some have gone since the flights were last looked at */

    uint32_t churn_first;
    uint32_t churn_end;
    uint32_t churn_next;
    uint64_t churn_due;
    uint32_t *reopen; /* closed, to be opened again */
    uint32_t reopen_used;
    uint32_t reopening; /* FC_ROLE_REOPENED */

    /* Results. */
    uint64_t lost_in_churn;
    uint64_t churn_received;
    uint64_t churn_closed;
    uint64_t churn_reopened;
    uint64_t churn_failed;
    uint64_t stalled_closed;
    uint64_t unanswered; /* ended by this side at the end, without the server's Close */
    struct fc_load_tally closes;
    unsigned errors_used;
    char errors[4][160];
    struct fc_load_histograms histograms;
};

/* Allocates for `count` connections.  Returns 0 or -errno; fc_worker_free() is due either way. */
int fc_worker_init(struct fc_worker *worker, struct fc_run *run, uint32_t id, uint32_t count);
int fc_worker_start(struct fc_worker *worker);
void fc_worker_free(struct fc_worker *worker);

/* Makes the worker look at the step or at its ready senders.  Any thread. */
void fc_worker_wake(struct fc_worker *worker);

/* Notes a thing that should not be; each different one once, since what happens to one connection tends to
 * happen to many. */
void fc_worker_note(struct fc_worker *worker, const char *what, int detail);

#endif
