/* The client table of a shard: one small slot for each socket, ids that outlive the client. */
#ifndef FC_CLIENT_H
#define FC_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

struct fc_extra;
struct fc_head;
struct fc_inbound;
struct fc_queue;
struct fc_room;

enum fc_client_state {
    FC_CLIENT_FREE,
    FC_CLIENT_HEAD,    /* collecting the request head */
    FC_CLIENT_ASKED,   /* Python decides on the request; not read from */
    FC_CLIENT_OPEN,    /* a member of its channels */
    FC_CLIENT_LEAVING, /* its Close or an error has come, our Close follows what was published before; not read from */
    FC_CLIENT_CLOSING, /* our Close is on its way or sent, the client's is awaited */
    FC_CLIENT_ENDING,  /* what's queued is the last: then we shut down our side; not read from */
    FC_CLIENT_LINGER,  /* our side is shut down: reads and discards until the other side is, too */
};

/* A slot. What an idle client costs is this and its place in a room: nothing else is kept for it. 40 bytes. */
struct fc_client {
    uint32_t fd : 22;
    uint32_t state : 3;
    uint32_t ready : 1;   /* in line to be read from; HEAD: in the list of fc_waiting */
    uint32_t unread : 1;  /* there may be something to read, and no further event will say so */
    uint32_t hup : 1;     /* the other side is shut down: only reading 0 bytes is the end */
    uint32_t pinged : 1;  /* a Ping is out, and nothing has come since */
    uint32_t refused : 1; /* beyond max_connections: gets a 503 once its head has come */
    uint32_t extended : 1; /* `extra` is in use, in the place of `room` and `position` */
    uint32_t late : 1;     /* may be in the `late` list of one of its rooms */
    uint32_t : 0; /* what follows is another place in memory: of members, other threads read it */
    uint32_t generation : 30; /* never 0 while in use */
    uint32_t resumes : 1;     /* of channels with a history it's a member of the record */
    uint32_t active;      /* tick of the last sign of life, of our Ping, or of entry into the state; see fc_shard */
    union {
        uint32_t position;  /* in the room's list of members, unless extended */
        uint32_t next_free; /* FREE only */
    };
    union {
        struct fc_head *head;       /* HEAD and ASKED: the bytes so far, NULL while there are none */
        struct fc_inbound *inbound; /* OPEN and CLOSING: NULL while at rest between frames */
    };
    struct fc_queue *queue; /* NULL while nothing waits */
    union {
        struct fc_room *room;   /* OPEN and LEAVING only: that of its one channel, NULL if it has none; */
        struct fc_extra *extra; /* and if it's extended, in any state */
        struct {
            uint32_t newer;
            uint32_t older;
        } line; /* HEAD, while `ready`: neighbours in fc_waiting */
    };
};

/* Fd numbers that a slot can hold, and slots that an id can name. */
#define FC_FD_MAX (UINT32_C(1) << 22)

/* Slots live in chunks, so that they never move, and that an emptied table gives memory back. */
#define FC_CHUNK_SLOTS 1024u
#define FC_NO_SLOT UINT32_MAX

struct fc_chunk {
    struct fc_client *slots; /* FC_CHUNK_SLOTS of them, or NULL */
    uint32_t used;
    uint32_t free; /* first free slot, FC_NO_SLOT if none */
};

struct fc_clients {
    struct fc_chunk *chunks;
    uint32_t chunk_count;    /* length of `chunks` */
    uint32_t first_with_room; /* no chunk before this one has a free slot */
    uint32_t count;
    uint32_t generation;
};

int fc_clients_init(struct fc_clients *clients, uint32_t max);
void fc_clients_destroy(struct fc_clients *clients);

/* A zeroed slot with its generation set, and its number in *slot. NULL: table full or no memory. */
struct fc_client *fc_clients_take(struct fc_clients *clients, uint32_t *slot);

/* Everything that the slot points to must be gone. */
void fc_clients_give(struct fc_clients *clients, uint32_t slot);

/* The slot whatever its state; NULL where no chunk is. */
static inline struct fc_client *fc_clients_at(const struct fc_clients *clients, uint32_t slot)
{
    uint32_t chunk = slot / FC_CHUNK_SLOTS;

    if (chunk >= clients->chunk_count || !clients->chunks[chunk].slots)
        return 0;
    return &clients->chunks[chunk].slots[slot % FC_CHUNK_SLOTS];
}

/* No slot at or behind this one is used. */
static inline uint32_t fc_clients_end(const struct fc_clients *clients)
{
    uint32_t chunks = clients->chunk_count;

    while (chunks > 0 && !clients->chunks[chunks - 1].slots)
        chunks--;
    return chunks * FC_CHUNK_SLOTS;
}

static inline bool fc_clients_used(const struct fc_clients *clients, uint32_t slot)
{
    const struct fc_client *client = fc_clients_at(clients, slot);

    return client && client->state != FC_CLIENT_FREE;
}

/* A client id: shard, generation and slot, 10 + 30 + 24 bits. It may be kept for ever; once the client is
 * gone it means nobody, since a generation comes back only after 2^30 clients of the shard. */
#define FC_GENERATION_MASK ((UINT32_C(1) << 30) - 1)
#define FC_SLOT_MAX (UINT32_C(1) << 24)
#define FC_SHARD_MAX 1024u

static inline uint64_t fc_client_id(uint32_t shard, const struct fc_client *client, uint32_t slot)
{
    return (uint64_t)shard << 54 | (uint64_t)client->generation << 24 | slot;
}

static inline uint32_t fc_client_id_shard(uint64_t id)
{
    return (uint32_t)(id >> 54);
}

static inline uint32_t fc_client_id_slot(uint64_t id)
{
    return (uint32_t)id & (FC_SLOT_MAX - 1);
}

/* The client that the id means, or NULL when it has gone. */
static inline struct fc_client *fc_clients_find(const struct fc_clients *clients, uint64_t id)
{
    struct fc_client *client = fc_clients_at(clients, fc_client_id_slot(id));

    if (!client || client->state == FC_CLIENT_FREE || client->generation != ((id >> 24) & FC_GENERATION_MASK))
        return 0;
    return client;
}

#endif
