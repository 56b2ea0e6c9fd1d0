/* What waits for a client that lags: references to messages, never copies of them. */
#ifndef FC_QUEUE_H
#define FC_QUEUE_H

#include "channel.h"
#include "message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What the queues of a shard share. */
struct fc_queue_host {
    struct fc_channels *channels;
    /* Messages to a channel's subscriber have come to an end. */
    void (*ended)(struct fc_queue_host *host, struct fc_channel *channel, enum fc_fate fate, uint64_t frames);
};

/* Both are references; the channel is NULL for what is for this client alone. */
struct fc_entry {
    struct fc_message *message;
    struct fc_channel *channel;
};

/* Only the first entry may be partly written. A Pong overtakes everything behind that one. */
struct fc_queue {
    struct fc_queue_host *host;
    struct fc_entry *ring;
    uint32_t first;
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
    size_t offset;     /* bytes of the first entry that are written */
    size_t bytes;      /* bytes that wait, over all entries, */
    size_t replayed;   /* and those of a history among them: the client didn't let them pile up, and no limit counts them, */
    uint32_t waived;   /* nor how many messages they are; they come before all other entries that have a channel */
    uint64_t frames;   /* data frames that wait, the partly written one included */
    int8_t pong;       /* position (0 or 1) of a Pong that isn't begun, plus one; 0 if there's none */
    bool told;         /* that a policy acts here */
    bool in_line;      /* to be written from, see fc_write_queued */
};

/* Adds references to the message and the channel at the end. 0 or -ENOMEM. */
int fc_queue_push(struct fc_queue *queue, struct fc_message *message, struct fc_channel *channel);

/* Puts the message in the place of the one with its key, if there is one that isn't begun. */
bool fc_queue_replace(struct fc_queue *queue, struct fc_message *message, struct fc_channel *channel);

/* Drops the oldest entry with messages under the rule that isn't begun. Returns how many data frames it had; 0: there's
 * none. */
uint64_t fc_queue_drop_oldest(struct fc_queue *queue, uint8_t rule);

/* How many data frames wait beside those of a first entry that's begun. */
uint64_t fc_queue_unbegun(const struct fc_queue *queue);

/* Adds the message at the earliest frame boundary behind a response to the handshake, for a Pong. It takes the place of
 * one that isn't begun: RFC 6455 section 5.5.3 lets the latest answer stand for all, so that Pings can't fill memory. */
int fc_queue_push_pong(struct fc_queue *queue, struct fc_message *message);

/* Fills at most `max` vectors with what is next; returns how many. */
unsigned fc_queue_gather(const struct fc_queue *queue, struct iovec *vectors, unsigned max);

/* Forgets n bytes that were written; returns how many data frames were completed by them. */
uint64_t fc_queue_wrote(struct fc_queue *queue, size_t n);

/* Drops all but a first entry that's begun, whose rest must follow for the stream to stay readable, or that is no data.
 * Returns how many data frames are gone. */
uint64_t fc_queue_drop_unstarted(struct fc_queue *queue);

/* Drops everything, and the memory. Returns how many data frames hadn't been written completely. */
uint64_t fc_queue_clear(struct fc_queue *queue);

#endif
