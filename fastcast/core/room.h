/* A shard's members of one channel, and what is to be sent to them. */
#ifndef FC_ROOM_H
#define FC_ROOM_H

#include "channel.h"
#include "client.h"
#include "message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define FC_ROOM_VECTORS 16

/* Messages are collected in `due`. A flush takes what is due, joins small ones, and goes over the members once,
 * perhaps in several slices; what is published meanwhile becomes due, and goes out together after it. */
struct fc_room {
    struct fc_channel *channel; /* one reference */
    uint32_t *members;          /* slots; FC_NO_SLOT where one has left during a flush */
    uint32_t count;             /* places used in `members`, holes included */
    uint32_t capacity;
    uint32_t holes;

    struct fc_message **due;
    uint32_t due_count;
    uint32_t due_capacity;

    /* The flush under way. */
    struct fc_message *batch[FC_ROOM_VECTORS];
    struct iovec vector[FC_ROOM_VECTORS];
    uint32_t vectors; /* 0: no flush is under way */
    uint32_t frames;  /* messages in the batch */
    size_t bytes;     /* of the batch on the wire */
    size_t weight;    /* of the backlog that it settles */
    uint32_t audience; /* members when it began: who joins later isn't served by it */
    uint32_t start;    /* the place that it began at */
    uint32_t visited;  /* places done */
    bool more;         /* not all that was due fitted into the batch */
    uint32_t phase;    /* turns the start from flush to flush */

    bool listed; /* in one of the shard's lines, or having its turn */
    struct fc_room *next;
};

/* Takes over one reference to the channel. NULL: no memory. */
struct fc_room *fc_room_new(struct fc_channel *channel);

/* Frees what is left; no members may be. Returns the backlog's weight that will now not be sent. */
size_t fc_room_free(struct fc_room *room);

static inline uint32_t fc_room_size(const struct fc_room *room)
{
    return room->count - room->holes;
}

static inline bool fc_room_busy(const struct fc_room *room)
{
    return room->due_count > 0 || room->vectors > 0;
}

/* 0 or -ENOMEM. Sets client->room and client->position. */
int fc_room_join(struct fc_room *room, struct fc_client *client, uint32_t slot);

void fc_room_leave(struct fc_room *room, const struct fc_clients *clients, struct fc_client *client);

/* Takes over the reference. 0 or -ENOMEM, and then the reference stays the caller's. */
int fc_room_add(struct fc_room *room, struct fc_message *message);

/* Makes a batch of what is due and starts over the members. Something must be due, no flush under way. */
void fc_room_begin(struct fc_room *room);

/* The next member's slot, or FC_NO_SLOT when all are done. */
uint32_t fc_room_next(struct fc_room *room);

/* Ends the flush: drops the batch and closes the holes. Returns the weight that it settles. */
size_t fc_room_end(struct fc_room *room, const struct fc_clients *clients);

/* Whether the flush under way still has the member before it. */
bool fc_room_owes(const struct fc_room *room, const struct fc_client *client);

#endif
