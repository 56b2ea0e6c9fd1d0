/* Queues without a shard: what ended is counted for each channel. */
#ifndef QUEUES_H
#define QUEUES_H

#include "channel.h"
#include "message.h"
#include "queue.h"

enum { QUEUES_SUBJECTS = 3 };

extern struct fc_account queues_account;
extern struct fc_queue_host queues_host;
extern struct fc_channel *queues_subjects[QUEUES_SUBJECTS];
extern uint64_t queues_ended[QUEUES_SUBJECTS][FC_FATES];

/* An empty queue; the channels, and nothing that has ended. */
struct fc_queue queues_open(void);

/* It must be empty. Nothing is left: no message, no reference to a channel. */
void queues_close(struct fc_queue *queue);

#endif
