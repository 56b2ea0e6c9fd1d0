/* What only some clients have: several channels, a bucket of tokens, an address that is counted. */
#ifndef FC_EXTRA_H
#define FC_EXTRA_H

#include "channel.h"
#include "client.h"

#include <stdbool.h>
#include <stdint.h>

struct fc_address;

struct fc_membership {
    struct fc_room *room;
    uint32_t position;
};

/* A record whose history the client has yet to be sent, from a position on. */
struct fc_replaying {
    struct fc_replaying *next;
    struct fc_channel *record; /* one reference */
    struct fc_position position;
};

struct fc_extra {
    struct fc_channel *home;     /* where it belongs: the first that it joined. One reference, or NULL */
    struct fc_address *address;  /* one count, or NULL */
    uint64_t full_at;            /* microseconds: when its bucket of tokens is full again */
    struct fc_replaying *replays; /* one after the other */
    bool in_line;                 /* for the next piece of them */
    uint32_t count;
    uint32_t capacity;
    struct fc_membership *members; /* sorted by room */
};

/* How many rooms the client is a member of, and the i-th of them. */
static inline uint32_t fc_client_rooms(const struct fc_client *client)
{
    return client->extended ? client->extra->count : client->room != 0;
}

static inline struct fc_room *fc_client_room(const struct fc_client *client, uint32_t i)
{
    return client->extended ? client->extra->members[i].room : client->room;
}

struct fc_channel *fc_client_home(const struct fc_client *client);

/* Its place in the room; NULL if it's no member. Valid until it joins or leaves one. */
uint32_t *fc_client_position(struct fc_client *client, const struct fc_room *room);

static inline bool fc_client_is_member(struct fc_client *client, const struct fc_room *room)
{
    return room && fc_client_position(client, room);
}

/* Gives it an extra, if it has none. 0 or -ENOMEM. */
int fc_client_extend(struct fc_client *client);

/* Makes it a member of a room that it isn't in. 0 or -ENOMEM. */
int fc_client_add_room(struct fc_client *client, struct fc_room *room, uint32_t position);

void fc_client_remove_room(struct fc_client *client, const struct fc_room *room);

/* It has yet to be sent what comes after the position. 0 or -ENOMEM. */
int fc_client_add_replay(struct fc_client *client, struct fc_channel *record, const struct fc_position *position);

/* It needn't be any more, if it had to. */
void fc_client_remove_replay(struct fc_client *client, struct fc_channels *channels, const struct fc_channel *record);

/* Frees the extra; it must have left its rooms, and its address. */
void fc_client_free_extra(struct fc_client *client, struct fc_channels *channels);

#endif
