/*
 * opening.h - how a worker's connections come to be: the first time, after a failure, after churn, after the
 * storm.
 */
#ifndef FC_OPENING_H
#define FC_OPENING_H

#include "worker.h"

/* Each begins what is due now and returns when there is more to do without any event; UINT64_MAX: not before
 * an event. */
uint64_t fc_opening_connect(struct fc_worker *worker);
uint64_t fc_opening_churn(struct fc_worker *worker);
uint64_t fc_opening_return(struct fc_worker *worker); /* of what the storm dropped */
uint64_t fc_opening_retry(struct fc_worker *worker);

/* Drops all connections at once. */
void fc_opening_storm(struct fc_worker *worker);

/* Arranges for a connection that was lost to come back, if the options want that. */
void fc_opening_lost(struct fc_worker *worker, struct fc_link *link);

/* Counts as failed whatever has not been open by now. */
void fc_opening_abandon(struct fc_worker *worker);

/* Callbacks of struct fc_link_io. */
void fc_opening_opened(void *owner, struct fc_link *link);
void fc_opening_refused(void *owner, struct fc_link *link, const char *reason);

#endif
