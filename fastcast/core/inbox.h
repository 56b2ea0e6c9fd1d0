/* What shards have for Python: requests, or other events, that wait to be taken, a piece at a time. */
#ifndef FC_INBOX_H
#define FC_INBOX_H

#include "channel.h"
#include "fastcast.h"
#include "message.h"

#include <pthread.h>
#include <stdbool.h>

struct fc_inbox {
    pthread_mutex_t lock;
    struct fc_events *first;
    struct fc_events *last;
    size_t weight; /* of all that waits */
    size_t limit;
    bool full; /* weight passed the limit and hasn't sunk to half of it since */
};

void fc_inbox_init(struct fc_inbox *inbox, size_t limit);
void fc_inbox_destroy(struct fc_inbox *inbox, struct fc_channels *channels);

/* Adds n events, whose references are the inbox's then. Returns 0, 1 if that has filled it, or -ENOMEM and nothing
 * is added. */
int fc_inbox_put(struct fc_inbox *inbox, const struct fc_event *events, size_t n);

/* Takes the oldest piece, NULL if there's none; it is the caller's, for fc_events_free. *drained: it was full, and
 * isn't now. */
struct fc_events *fc_inbox_take(struct fc_inbox *inbox, bool *drained);

/* NULL is allowed. */
void fc_events_free(struct fc_channels *channels, struct fc_events *events);

#endif
