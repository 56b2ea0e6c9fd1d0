/*
 * traffic.h - sending: what each sender sends, and when.
 */
#ifndef FC_TRAFFIC_H
#define FC_TRAFFIC_H

#include "worker.h"

struct fc_sender {
    struct fc_link *link;
    struct fc_sender *next_ready;
    uint64_t due_ns;     /* when its pause to think ends; 0: it is not thinking */
    _Atomic bool queued; /* on its worker's ready list */
    bool done;
    uint32_t id;   /* among the senders of all processes */
    uint32_t next; /* sequence */
};

/* Starts the sending: what is due at once leaves. */
void fc_traffic_begin(struct fc_worker *worker);

/* Sends what has become due by the clock. */
void fc_traffic_pump(struct fc_worker *worker);

/* Sends for the senders whose window has opened since. */
void fc_traffic_pump_ready(struct fc_worker *worker);

/* When there is something to pump; UINT64_MAX: not by the clock. */
uint64_t fc_traffic_due(const struct fc_worker *worker);

/* Whether every sender has sent all it had to send. */
bool fc_traffic_done(const struct fc_worker *worker);

/* Tells the worker of this sender, which may be another thread, that its window has opened. */
void fc_traffic_release(struct fc_worker *worker, uint32_t sender);

/* Callback of struct fc_link_io. */
void fc_traffic_drained(void *owner, struct fc_link *link);

/* The connection is gone, and with it the sender, if it is one. */
void fc_traffic_leave(struct fc_worker *worker, const struct fc_link *link);

#endif
