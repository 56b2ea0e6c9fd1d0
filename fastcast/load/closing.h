/*
 * closing.h - how a worker's connections end, and what may not take for ever.
 */
#ifndef FC_CLOSING_H
#define FC_CLOSING_H

#include "worker.h"

/* Ends handshakes that are in progress and connections that do not read. */
void fc_closing_begin(struct fc_worker *worker);

/* Starts closing handshakes as far as the window for them lets. */
void fc_closing_continue(struct fc_worker *worker);

/* Looks at a part of the connections for those that wait too long for an answer.  When called once every
 * FC_CLOSING_SWEEP_MS it comes round in FC_CLOSING_SWEEPS turns. */
#define FC_CLOSING_SWEEP_MS 100u
#define FC_CLOSING_SWEEPS 10u
void fc_closing_sweep(struct fc_worker *worker);

/* Callback of struct fc_link_io. */
void fc_closing_closed(void *owner, struct fc_link *link, uint16_t code, bool asked);

#endif
