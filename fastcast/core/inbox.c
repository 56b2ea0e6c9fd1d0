/* The way out of the core: a mutex and an array that is taken whole.
 *
 * It's bounded by those who put: while one is full, shards don't read from clients. Events own a reference to
 * their message, and to their channel if they have one. Belongs to the exchange.
 */
#include "inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fc_inbox_init(struct fc_inbox *inbox, size_t limit)
{
    *inbox = (struct fc_inbox){.limit = limit};
    pthread_mutex_init(&inbox->lock, NULL);
}

void fc_inbox_destroy(struct fc_inbox *inbox, struct fc_channels *channels)
{
    fc_events_free(channels, inbox->events, inbox->count);
    pthread_mutex_destroy(&inbox->lock);
}

static int reserve(struct fc_inbox *inbox, size_t n)
{
    size_t capacity = inbox->capacity ? inbox->capacity : 64;

    if (inbox->count + n <= inbox->capacity)
        return 0;
    while (capacity < inbox->count + n)
        capacity *= 2;
    struct fc_event *grown = realloc(inbox->events, capacity * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    inbox->events = grown;
    inbox->capacity = capacity;
    return 0;
}

int fc_inbox_put(struct fc_inbox *inbox, const struct fc_event *events, size_t n)
{
    pthread_mutex_lock(&inbox->lock);
    int result = reserve(inbox, n);
    if (result == 0) {
        memcpy(inbox->events + inbox->count, events, n * sizeof *events);
        inbox->count += n;
        for (size_t i = 0; i < n; i++)
            inbox->weight += fc_message_weight(events[i].message);
        if (!inbox->full && inbox->weight > inbox->limit) {
            inbox->full = true;
            result = 1;
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    return result;
}

size_t fc_inbox_take(struct fc_inbox *inbox, struct fc_event **events, bool *drained)
{
    pthread_mutex_lock(&inbox->lock);
    size_t n = inbox->count;
    *events = inbox->events;
    *drained = inbox->full;
    inbox->events = NULL;
    inbox->count = 0;
    inbox->capacity = 0;
    inbox->weight = 0;
    inbox->full = false;
    pthread_mutex_unlock(&inbox->lock);
    return n;
}

void fc_events_free(struct fc_channels *channels, struct fc_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fc_message_unref(events[i].message);
        fc_channel_unref(channels, events[i].origin);
    }
    free(events);
}
