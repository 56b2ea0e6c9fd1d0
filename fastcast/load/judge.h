/*
 * judge.h - receiving: what each message proves about its delivery.
 */
#ifndef FC_JUDGE_H
#define FC_JUDGE_H

#include "worker.h"

/* Of one flight within one worker. */
struct fc_local {
    uint32_t tag;   /* sequence + 1 of the message that `count` is about */
    uint32_t count; /* receivers that have it; UINT32_MAX: all, and the ledger knows */
};

/* Notes who is there to receive: from now on their deliveries are expected. */
void fc_judge_muster(struct fc_worker *worker);

/* Whether every receiver has had everything, or is gone. */
bool fc_judge_done(const struct fc_worker *worker);

/* Callback of struct fc_link_io. */
void fc_judge_message(void *owner, struct fc_link *link, uint8_t opcode, const uint8_t *payload, size_t size,
                      uint64_t now);

/* The connection is gone: nothing is expected of it any more. */
void fc_judge_leave(struct fc_worker *worker, struct fc_link *link);

/* Sees to the messages that only connections which have left meanwhile had not had.  Due after each batch of
 * events. */
void fc_judge_recount(struct fc_worker *worker);

#endif
