/*
 * traffic.h - what a worker does about messages: sending them when it is their time, and judging each one
 * received.
 */
#ifndef FC_TRAFFIC_H
#define FC_TRAFFIC_H

#include "worker.h"

/* Bits of fc_link.role. */
enum {
    FC_ROLE_SENDER = 1,
    FC_ROLE_CHURNER = 2,
    FC_ROLE_REOPENED = 4,
    FC_ROLE_COUNTED = 8,    /* its deliveries are expected */
    FC_ROLE_FINISHED = 16,  /* it had every message */
    FC_ROLE_STRAYED = 32,   /* it left the common order: worker->strays knows what it had */
    FC_ROLE_UNTRACKED = 64, /* it left the common order and there was no memory to follow it */
    FC_ROLE_UNPLACED = 128  /* a churner whose place in the order is not known yet */
};

struct fc_sender {
    struct fc_link *link;
    struct fc_sender *next_ready;
    _Atomic bool queued; /* on its worker's ready list */
    bool done;
    uint32_t id;
    uint32_t next; /* sequence */
};

/* Of one flight within one worker. */
struct fc_local {
    uint32_t tag;   /* sequence + 1 of the message that `count` is about */
    uint32_t count; /* receivers that have it; UINT32_MAX: all, and the ledger knows */
};

/* Counts the worker's receivers. */
void fc_traffic_muster(struct fc_worker *worker);

/* Sends what is due now: at the start, and whenever the timer fires. */
void fc_traffic_pump(struct fc_worker *worker);

/* Sends for the senders that became ready since. */
void fc_traffic_pump_ready(struct fc_worker *worker);

/* When the next message of the open loop is due; UINT64_MAX: never. */
uint64_t fc_traffic_due(const struct fc_worker *worker);

bool fc_traffic_done(const struct fc_worker *worker);

/* Callbacks of struct fc_link_io. */
void fc_traffic_message(void *owner, struct fc_link *link, uint8_t opcode, const uint8_t *payload,
                        size_t size, uint64_t now);
void fc_traffic_drained(void *owner, struct fc_link *link);

/* A connection is gone: nothing is expected of it any more. */
void fc_traffic_leave(struct fc_worker *worker, struct fc_link *link);

#endif
