/* A shard's members of one channel, and what is to be sent to them. */
#ifndef FC_ROOM_H
#define FC_ROOM_H

#include "channel.h"
#include "client.h"
#include "late.h"
#include "message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define FC_ROOM_VECTORS 16

/* One going over the members, perhaps in several slices, to write them all that was due when it began. */
struct fc_flush {
    struct fc_message *batch[FC_ROOM_VECTORS]; /* pieces: small messages are joined */
    struct iovec vector[FC_ROOM_VECTORS];
    uint32_t vectors;
    uint32_t frames;   /* messages in the batch */
    size_t bytes;      /* of the batch on the wire */
    size_t weight;     /* of the backlog that it settles */
    uint64_t first;    /* the number of its first message in the room */
    uint32_t audience; /* places when it began: who joins later isn't served by it */
    uint32_t start;    /* the place that it began at */
    uint32_t visited;  /* places done */
    struct fc_message **singly; /* the messages before they were joined, for those who don't get all; or NULL */
};

/* Messages are collected in `due`. A flush takes what is due, joins small ones, and goes over the members once; what is
 * published meanwhile becomes due, and goes out together after it. */
struct fc_room {
    struct fc_channel *channel; /* one reference */
    uint32_t *members;          /* slots; FC_NO_SLOT where one has left during a flush. NULL if everyone is one */
    uint32_t count;             /* places used in `members`, holes included; of everyone: the open clients */
    uint32_t capacity;
    uint32_t holes;
    bool everyone;    /* the members are the shard's open clients: their slots are the places */
    bool picky;       /* something due, or in the batch, isn't to be joined for a client that lags: see its rule */
    bool listed;      /* in one of the shard's lines, or having its turn */
    uint32_t phase;   /* turns the start from flush to flush */
    struct fc_room *next;

    struct fc_message **due;
    uint32_t due_count;
    uint32_t due_capacity;
    uint64_t given;         /* messages that it ever got: the number of the next one */
    uint64_t goal;          /* the number of the first one that isn't for the shard's pass under way */
    struct fc_flush *flush; /* NULL: none is under way */

    struct fc_late late; /* of who has messages that are due, or in the flush, or yet to come: nearly always empty */

    struct fc_tally tally;
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
    return room->due_count > 0 || room->flush;
}

/* The client, which isn't a member, hears what the room gets from now on. 0 or -ENOMEM. */
int fc_room_join(struct fc_room *room, struct fc_client *client, uint32_t slot);

/* The same, but without the next `had` that the room will get. */
int fc_room_join_behind(struct fc_room *room, struct fc_client *client, uint32_t slot, uint64_t had);

/* A member that was to get nothing yet hears what the room gets from now on, without the next `had`. 0 or -ENOMEM. */
int fc_room_go_live(struct fc_room *room, struct fc_client *client, uint32_t slot, uint64_t had);

void fc_room_leave(struct fc_room *room, const struct fc_clients *clients, struct fc_client *client, uint32_t slot);

/* Notes that the member has got, or isn't to get, all that the room has so far. 0 or -ENOMEM. */
int fc_room_skip(struct fc_room *room, struct fc_client *client, uint32_t slot);

/* Takes over the reference. 0 or -ENOMEM, and then the reference stays the caller's. `picky`: see above. */
int fc_room_add(struct fc_room *room, struct fc_message *message, bool picky);

/* Makes a batch of what is due and starts over the members. Something must be due, no flush under way. 0 or -ENOMEM. */
int fc_room_begin(struct fc_room *room, const struct fc_clients *clients);

/* Drops what is due; no flush may be under way. Returns how many messages, and *weight. */
uint32_t fc_room_drop_due(struct fc_room *room, size_t *weight);

/* The next member's slot, or FC_NO_SLOT when all are done. */
uint32_t fc_room_next(struct fc_room *room, const struct fc_clients *clients);

/* How many of the n messages that begin with number `first` the member isn't to get. */
uint32_t fc_room_missed(const struct fc_room *room, const struct fc_client *client, uint32_t slot, uint64_t first,
                        uint32_t n);

/* Ends the flush: drops the batch and closes the holes. Returns the weight that it settles. */
size_t fc_room_end(struct fc_room *room, const struct fc_clients *clients);

/* Whether the flush under way still has the member before it. */
bool fc_room_owes(const struct fc_room *room, struct fc_client *client, uint32_t slot);

#endif
