/* What the shards of a hub share: channels, mailboxes, the events for Python, limits. */
#ifndef FC_EXCHANGE_H
#define FC_EXCHANGE_H

#include "address.h"
#include "channel.h"
#include "client.h"
#include "fastcast.h"
#include "history.h"
#include "inbox.h"
#include "mailbox.h"
#include "message.h"

#include <pthread.h>
#include <stdatomic.h>

struct fc_exchange {
    struct fc_options options; /* not written once the shards run */
    struct fc_rule *rules; /* those of the options, and behind them the one for all other channels; see make_rules */
    unsigned rule_count;
    struct fc_account account;
    struct fc_channels channels;
    struct fc_histories histories;
    struct fc_channel *everyone; /* each open client is its member */
    struct fc_addresses addresses;
    struct fc_mailbox *mailboxes; /* one for each shard */
    int *doors;                   /* for each shard the end of a socket pair that takes fds for it */
    atomic_bool *lost;            /* for each shard, whether some of its seats are */
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
    struct fc_inbox events;
    struct fc_inbox replies; /* to its questions, which don't wait behind what its handlers have yet to do */
    atomic_bool unanswered;  /* a question won't be answered, for want of memory */
    int event_fd;
};

int fc_exchange_init(struct fc_exchange *exchange, const struct fc_options *options);
void fc_exchange_destroy(struct fc_exchange *exchange);

/* Requests of all shards together that may wait for Python: enough to keep it busy, and few enough that the last of
 * them doesn't wait for long. The others wait in their shards, where the newest comes first. */
#define FC_ASKED_MAX 1024

#define FC_PUBLISH_MAX 64 /* messages that are dealt with together */

/* Under the record's lock: its members on the shard have missed a message, and must not hear the next one. */
void fc_exchange_lose(struct fc_exchange *exchange, struct fc_channel *record, unsigned shard);

/* Bytes of messages that are alive, but for those that histories keep. */
size_t fc_exchange_alive(const struct fc_exchange *exchange);

/* Tells the client's shard to make it a member of the channel, or of its record if it has one and the client resumes: it
 * hears what is published from then on. Consumes the references. The shard says that it has taken the command, whatever
 * came of it. 0 or -ENOMEM. */
int fc_exchange_subscribe(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel,
                          struct fc_channel *record);
void fc_exchange_subscribed(unsigned shard, const struct fc_command *subscribe);

/* Follows up what a mailbox asked for with its flags, outside of all locks. */
void fc_exchange_act_on(struct fc_exchange *exchange, unsigned shard, int flags);

/* Puts commands into a shard's mailbox, `weight` of whose bytes are to be settled. Consumes their references, also on
 * failure. 0 or -ENOMEM. */
int fc_exchange_command(struct fc_exchange *exchange, unsigned shard, const struct fc_command *commands, uint32_t n,
                        size_t weight);

/* Gives back the references of a command that won't be obeyed. */
void fc_exchange_drop_command(struct fc_exchange *exchange, const struct fc_command *command);

/* A shard has dealt with `bytes` of what was published to it. */
void fc_exchange_settle(struct fc_exchange *exchange, unsigned shard, size_t bytes);

/* Hands an event to Python, which sees it after the next fc_exchange_notify. Consumes the references of the event, also
 * on failure. 0 or -ENOMEM. */
int fc_exchange_tell(struct fc_exchange *exchange, const struct fc_event *event);

/* The same for a request, with a copy of the head, and of the text that says where it's from. */
int fc_exchange_ask(struct fc_exchange *exchange, const struct fc_event *request);

/* The same for up to FC_PUBLISH_MAX messages of a client, whose home is `channel`, or NULL. Consumes the references of
 * the messages, also on failure. */
int fc_exchange_hand_over(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel,
                          struct fc_message *const *messages, unsigned n);

/* A shard can't reply to a question. */
void fc_exchange_lose_reply(struct fc_exchange *exchange);

/* For Python: takes a piece of what waits. */
struct fc_events *fc_exchange_requests(struct fc_exchange *exchange);
struct fc_events *fc_exchange_events(struct fc_exchange *exchange);
struct fc_events *fc_exchange_replies(struct fc_exchange *exchange);

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
