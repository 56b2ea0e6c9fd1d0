/* Time-outs, pings, and other things that a shard looks after from time to time. */
#ifndef FC_SWEEP_H
#define FC_SWEEP_H

#include "shard.h"

/* A slice of a step over a part of the client table. shard->sweep_left says whether the step goes on, sweep_at when
 * the next is due. */
void fc_sweep_some(struct fc_shard *shard);

/* Whether there is anything to sweep. */
bool fc_sweep_wanted(const struct fc_shard *shard);

/* Prepares for many connections at once, if many come. A sweep relaxes again. */
void fc_sweep_brace(struct fc_shard *shard);

#endif
