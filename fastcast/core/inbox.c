/* The way out of the core: a mutex and a list of pieces.
 *
 * Pieces, so that whoever takes them has a bounded piece of work, and what it hasn't taken still counts. It's bounded
 * by those who put: while one is full, shards don't read from clients. Events own a reference to their message and
 * to their channel, if they have one. Belongs to the exchange.
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
    while (inbox->first) {
        struct fc_events *piece = inbox->first;
        inbox->first = piece->next;
        fc_events_free(channels, piece);
    }
    pthread_mutex_destroy(&inbox->lock);
}

static size_t weight_of(const struct fc_event *event)
{
    return (event->message ? fc_message_weight(event->message) : 0) + sizeof *event;
}

/* Room for n more events, at most FC_EVENTS, in the last piece. */
static int reserve(struct fc_inbox *inbox, size_t n)
{
    if (inbox->last && inbox->last->count + n <= FC_EVENTS)
        return 0;
    struct fc_events *piece = malloc(sizeof *piece);
    if (!piece)
        return -ENOMEM;
    piece->next = NULL;
    piece->count = 0;
    if (inbox->last)
        inbox->last->next = piece;
    else
        inbox->first = piece;
    inbox->last = piece;
    return 0;
}

int fc_inbox_put(struct fc_inbox *inbox, const struct fc_event *events, size_t n)
{
    pthread_mutex_lock(&inbox->lock);
    int result = reserve(inbox, n);
    if (result == 0) {
        memcpy(inbox->last->events + inbox->last->count, events, n * sizeof *events);
        inbox->last->count += n;
        for (size_t i = 0; i < n; i++)
            inbox->weight += weight_of(&events[i]);
        if (!inbox->full && inbox->weight > inbox->limit) {
            inbox->full = true;
            result = 1;
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    return result;
}

struct fc_events *fc_inbox_take(struct fc_inbox *inbox, bool *drained)
{
    *drained = false;
    pthread_mutex_lock(&inbox->lock);
    struct fc_events *piece = inbox->first;
    if (piece) {
        inbox->first = piece->next;
        if (!inbox->first)
            inbox->last = NULL;
        for (size_t i = 0; i < piece->count; i++)
            inbox->weight -= weight_of(&piece->events[i]);
        *drained = inbox->full && inbox->weight <= inbox->limit / 2;
        if (*drained)
            inbox->full = false;
    }
    pthread_mutex_unlock(&inbox->lock);
    return piece;
}

void fc_events_free(struct fc_channels *channels, struct fc_events *events)
{
    for (size_t i = 0; events && i < events->count; i++) {
        fc_message_unref(events->events[i].message);
        fc_channel_unref(channels, events->events[i].origin);
    }
    free(events);
}
