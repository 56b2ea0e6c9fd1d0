/* Marks in what is published: who wants to know when all before one is written. Owned by the shard's thread. */
#ifndef FC_MARKS_H
#define FC_MARKS_H

#include "shard.h"

/* Tells Python by the token when all that has been added is written, or waits for clients that lag. */
void fc_marks_put(struct fc_shard *shard, uint64_t token);

/* A pass of the fan-out has ended. */
void fc_marks_end_pass(struct fc_shard *shard);

/* Nothing will be written any more: tells of all. */
void fc_marks_close(struct fc_shard *shard);

#endif
