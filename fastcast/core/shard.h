/* A shard: one thread, and all that belongs to it alone. */
#ifndef FC_SHARD_H
#define FC_SHARD_H

#include "client.h"
#include "exchange.h"
#include "inbound.h"
#include "io.h"
#include "queue.h"
#include "ready.h"
#include "room.h"
#include "waiting.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define FC_READ_BUFFER (64 * 1024)
#define FC_SEND_BATCH 512

/* A tick is a tenth of a second: fine enough for time-outs, and 32 bits of them last 13 years. */
#define FC_TICK_MS 100

/* Fds that a shard keeps free of clients: to take one more connection, and tell it that there's no room. */
#define FC_SPARE_FDS 32

struct fc_counters {
#define FC_FIELD(name) atomic_ullong name;
    FC_COUNTERS(FC_FIELD)
    FC_GAUGES(FC_FIELD)
#undef FC_FIELD
};

/* Rooms in line, linked by their `next`. */
struct fc_line {
    struct fc_room *first;
    struct fc_room *last;
};

/* Who waits for a flush, and the number of the pass whose end it is. */
struct fc_mark {
    uint64_t token;
    uint64_t pass;
};

struct fc_shard {
    /* set by the hub before the thread starts */
    struct fc_exchange *exchange;
    unsigned index;
    const int *listeners;
    int door;      /* the receiving end */
    pthread_t thread;

    /* set by the thread before it reports that it has started */
    int start_error;
    bool private_table;
    bool listening; /* the listeners are open, in the table that the thread uses */
    uint32_t capacity;   /* clients that the fd table holds */
    int uring_error;     /* errno that made it fall back to epoll */
    const char *backend; /* the name of `io`; it stays valid when that is gone */
    struct fc_io *io;

    /* the thread's own */
    struct fc_clients clients;
    struct fc_waiting waiting; /* clients to read from whose request isn't complete, */
    struct fc_ready ready;     /* and all others */
    struct fc_ready writers;   /* clients to write to without being asked: of a long queue, or a history */
    struct fc_queue_host queues;
    struct fc_room *everyone; /* the room of all open clients */
    uint32_t mixed;           /* clients with several channels */
    struct fc_line due;    /* rooms with something to send, for the next pass, */
    struct fc_line served; /* and those of the pass under way */
    uint64_t passes;       /* begun */
    struct fc_mark *marks; /* by pass */
    uint32_t mark_count;
    uint32_t mark_capacity;
    struct fc_command *commands;
    uint32_t commands_capacity;
    uint64_t now; /* milliseconds of CLOCK_MONOTONIC, as of this round of the loop */
    uint32_t tick;
    uint64_t flush_after;  /* no pass begins before, by flush_interval */
    uint64_t accept_after; /* no accepting before, for want of fds or memory */
    bool accept_pending;
    bool door_pending;
    bool has_news; /* for Python, in this round: it is told once, when all that the round has read is together */
    bool stopping;
    bool braced; /* scheduled as a batch thread, for a storm of connections */
    uint32_t stop_slot;   /* next to be told that we stop */
    uint32_t sweep_slot;  /* next to be looked at, */
    uint32_t sweep_left;  /* and how many more in this step */
    unsigned accept_turn; /* the listener that's first */
    uint64_t sweep_at;
    uint64_t trimmed_at;
    uint64_t made_trimmed; /* messages made in the hub by the last trim, */
    uint64_t made_before;  /* and by the last sweep */
    struct fc_send sends[FC_SEND_BATCH];
    uint32_t send_slots[FC_SEND_BATCH];
    uint8_t buffer[FC_READ_BUFFER];

    /* written by the thread, read by anyone */
    struct fc_counters counters;
};

/* Only the shard writes its counters, so that no read-modify-write is needed; relaxed, since each number
 * stands for itself. */
static inline void fc_count(atomic_ullong *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void fc_discount(atomic_ullong *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) - n, memory_order_relaxed);
}

/* n deliveries to subscribers of the channel have come to this. NULL: they were for one client alone. */
static inline void fc_shard_tally(const struct fc_shard *shard, struct fc_channel *channel, enum fc_fate fate, uint64_t n)
{
    struct fc_room *room = channel ? channel->seats[shard->index].room : NULL;

    if (room)
        fc_count(&room->tally.of[fate], n);
    else if (channel)
        /* Of several shards; relaxed, as above. */
        atomic_fetch_add_explicit(&channel->past.of[fate], n, memory_order_relaxed);
}

/* Tells Python, at the end of the round. Takes over the references. What there's no memory for is counted. */
static inline void fc_shard_tell(struct fc_shard *shard, const struct fc_event *event)
{
    if (fc_exchange_tell(shard->exchange, event))
        fc_count(&shard->counters.no_memory, 1);
    shard->has_news = true; /* also of a reply that won't come */
}

/* Requests that wait for Python's answer. */
static inline uint64_t fc_shard_asked(const struct fc_shard *shard)
{
    return atomic_load_explicit(&shard->counters.asked, memory_order_relaxed);
}

/* Whether Python can take more of them. Those count as well that it hasn't looked at though their clients have given
 * up. */
static inline bool fc_shard_may_ask(const struct fc_shard *shard)
{
    return fc_shard_asked(shard) < shard->exchange->asked_each && !fc_exchange_held(shard->exchange);
}

static inline struct fc_client *fc_shard_client(const struct fc_shard *shard, uint32_t slot)
{
    return fc_clients_at(&shard->clients, slot);
}

static inline uint64_t fc_shard_id(const struct fc_shard *shard, const struct fc_client *client, uint32_t slot)
{
    return fc_client_id(shard->index, client, slot);
}

/* Whether the client has given no sign of life, or been in its state, for that long. */
static inline bool fc_shard_silent_for(const struct fc_shard *shard, const struct fc_client *client, uint64_t ms)
{
    return (uint64_t)(shard->tick - client->active) * FC_TICK_MS >= ms;
}

/* The thread's main. Calls `started` once, when it listens or start_error says why it can't. */
void fc_shard_run(struct fc_shard *shard, void (*started)(void *context), void *context);

#endif
