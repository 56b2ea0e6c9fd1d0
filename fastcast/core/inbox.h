/* What shards have for Python: events that wait to be taken, all at once. */
#ifndef FC_INBOX_H
#define FC_INBOX_H

#include "channel.h"
#include "fastcast.h"
#include "message.h"

#include <pthread.h>
#include <stdbool.h>

struct fc_inbox {
    pthread_mutex_t lock;
    struct fc_event *events;
    size_t count;
    size_t capacity;
    size_t weight; /* of the messages behind the events */
    size_t limit;
    bool full; /* weight passed the limit, and nothing has been taken since */
};

void fc_inbox_init(struct fc_inbox *inbox, size_t limit);
void fc_inbox_destroy(struct fc_inbox *inbox, struct fc_channels *channels);

/* Adds n events, whose references are the inbox's then. Returns 0, 1 if that has filled it, or -ENOMEM and nothing is
 * added. */
int fc_inbox_put(struct fc_inbox *inbox, const struct fc_event *events, size_t n);

/* Takes all events; their array is the caller's, for fc_events_free. *drained: it was full, and isn't now. */
size_t fc_inbox_take(struct fc_inbox *inbox, struct fc_event **events, bool *drained);

void fc_events_free(struct fc_channels *channels, struct fc_event *events, size_t n);

#endif
