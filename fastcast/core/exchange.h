/* What the shards of a hub share: channels, mailboxes, the requests for Python, limits. */
#ifndef FC_EXCHANGE_H
#define FC_EXCHANGE_H

#include "channel.h"
#include "client.h"
#include "fastcast.h"
#include "inbox.h"
#include "mailbox.h"
#include "message.h"

#include <pthread.h>
#include <stdatomic.h>

struct fc_exchange {
    struct fc_options options; /* not written once the shards run */
    struct fc_account account;
    struct fc_channels channels;
    struct fc_mailbox *mailboxes; /* one for each shard */
    int *doors;                   /* for each shard the end of a socket pair that takes fds for it */
    atomic_int *vacant;           /* for each shard, places that no client has, and none is promised */
    unsigned shards;
    uint32_t asked_each;      /* the share of each shard in FC_ASKED_MAX, */
    uint32_t handshakes_each; /* and in max_handshakes */

    atomic_int congested;    /* full mailboxes and inboxes; while there is one nobody reads from clients */
    atomic_int held;         /* above 0: too many request heads wait; nobody reads heads */
    atomic_uint connections; /* that count against max_connections */
    atomic_uint running;     /* shards */
    atomic_bool stopping;
    atomic_ullong deadline; /* milliseconds of CLOCK_MONOTONIC; 0: none */

    struct fc_inbox requests; /* for Python */
    struct fc_inbox messages;
    int event_fd;
};

int fc_exchange_init(struct fc_exchange *exchange, const struct fc_options *options);
void fc_exchange_destroy(struct fc_exchange *exchange);

/* Requests of all shards together that may wait for Python: enough to keep it busy, and few enough that the last of
 * them doesn't wait for long. The others wait in their shards, where the newest comes first. */
#define FC_ASKED_MAX 1024

#define FC_PUBLISH_MAX 64

/* Publishes up to FC_PUBLISH_MAX messages to a channel, in this order and in one piece: all members hear them in
 * the same order, on whatever shard they are. Consumes the references of the messages. Returns how many
 * deliveries were lost because a shard could not be told for want of memory: normally 0. */
uint64_t fc_exchange_publish(struct fc_exchange *exchange, struct fc_channel *channel,
                             struct fc_message *const *messages, unsigned n);

/* Puts commands into a shard's mailbox. Consumes their references, also on failure. 0 or -ENOMEM. */
int fc_exchange_command(struct fc_exchange *exchange, unsigned shard, const struct fc_command *commands, uint32_t n);

/* A shard has dealt with `bytes` of what was published to it. */
void fc_exchange_settle(struct fc_exchange *exchange, unsigned shard, size_t bytes);

/* Hands a request head, copied, to Python, which sees it after the next fc_exchange_notify. 0 or -ENOMEM. */
int fc_exchange_ask(struct fc_exchange *exchange, uint64_t client, const uint8_t *head, size_t length);

/* The same for up to FC_PUBLISH_MAX messages that a client has sent to its channel. Consumes the references of the
 * messages, also on failure. */
int fc_exchange_hand_over(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel,
                          struct fc_message *const *messages, unsigned n);

/* For Python: takes a piece of what waits. */
struct fc_events *fc_exchange_requests(struct fc_exchange *exchange);
struct fc_events *fc_exchange_messages(struct fc_exchange *exchange);

/* Makes the event fd unreadable, until the next notification. */
void fc_exchange_reset(const struct fc_exchange *exchange);

/* Makes the event fd readable. */
void fc_exchange_notify(const struct fc_exchange *exchange);

/* Takes one of a shard's places for a client, if it has one; and gives it back. */
bool fc_exchange_reserve(struct fc_exchange *exchange, unsigned shard);
void fc_exchange_vacate(struct fc_exchange *exchange, unsigned shard);

/* Takes a place on the shard that has the most. Returns the shard, or -1 if none has any. */
int fc_exchange_reserve_any(struct fc_exchange *exchange);

static inline bool fc_exchange_held(struct fc_exchange *exchange)
{
    return atomic_load(&exchange->held) > 0; /* sequentially consistent for the same reason as the next */
}

static inline bool fc_exchange_congested(struct fc_exchange *exchange)
{
    /* Sequentially consistent, see fc_mailbox_sleep's caller: a shard that announces its sleep and then finds
     * congestion is woken by whoever ends the congestion. */
    return atomic_load(&exchange->congested) > 0;
}

#endif
