/* Commands into a shard: from other shards, and from Python. */
#ifndef FC_MAILBOX_H
#define FC_MAILBOX_H

#include "fastcast.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_address;
struct fc_channel;
struct fc_message;

enum fc_command_kind {
    FC_COMMAND_PUBLISH, /* message, to the members of channel; `more`: the next command has the same message */
    FC_COMMAND_ANSWER,  /* client's request: message is the response; opens as `code` says, on channel, or by `admission` */
    FC_COMMAND_SEND,    /* message, to client */
    FC_COMMAND_SUBSCRIBE,   /* client, to channel, or to its record by `subscription` */
    FC_COMMAND_UNSUBSCRIBE, /* client, from channel */
    FC_COMMAND_DISMISS, /* client: close it; message is the Close frame, with code */
    FC_COMMAND_CLOSE,   /* client is leaving: say code to it, behind all that was published before */
    FC_COMMAND_CHECK,   /* whether client is open */
    FC_COMMAND_INSPECT, /* client, by token */
    FC_COMMAND_FLUSH,   /* by token */
    FC_COMMAND_STOP,    /* deliver, close everyone, end by the deadline */
};

/* Code of an answer that opens the WebSocket; and of one that was to, but the client's address has too many. */
#define FC_ANSWER_ACCEPT 101
#define FC_ANSWER_LIMITED 429

/* How an accepted client is let in, where that's more than one channel. Channels and address are references. */
struct fc_admission {
    struct fc_address *address;
    enum fc_resume resume; /* and then channels with a history are records */
    struct fc_position *positions;
    size_t position_count;
    size_t count;
    struct fc_channel *channels[];
};

/* What a subscription to a channel with a history comes with: its record, one reference, and where that is. */
struct fc_subscription {
    struct fc_channel *record;
    struct fc_position position;
    uint64_t losses; /* of the record's seat by then */
};

/* A pointer in a command owns one reference. */
struct fc_command {
    enum fc_command_kind kind;
    uint16_t code;
    bool more;
    bool muted; /* PUBLISH: for none of the members, since they have it; and so not by another channel either */
    uint64_t client;
    struct fc_channel *channel;
    struct fc_message *message;
    union {
        struct fc_admission *admission;
        struct fc_subscription *subscription; /* NULL where the channel has no history */
        uint64_t token;
    };
};

/* Any thread puts, the shard's thread takes everything at once. */
struct fc_mailbox {
    pthread_mutex_t lock;
    struct fc_command *commands;
    uint32_t count;
    uint32_t capacity;
    bool asleep;    /* the shard waits, or is about to: it must be woken */
    bool full;      /* backlog passed `limit` and hasn't sunk to half of it since */
    size_t backlog; /* bytes published to the shard that it hasn't written or queued yet */
    size_t limit;
    int wake; /* eventfd */
};

/* What a put or a settlement asks of the caller, outside the lock. */
enum { FC_MAILBOX_WAKE = 1, FC_MAILBOX_FILLED = 2, FC_MAILBOX_DRAINED = 4 };

/* Takes over `wake`. */
void fc_mailbox_init(struct fc_mailbox *mailbox, int wake, size_t limit);
void fc_mailbox_destroy(struct fc_mailbox *mailbox);

/* Adds n commands and `bytes` to the backlog. Returns flags, or -ENOMEM and nothing added. */
int fc_mailbox_put(struct fc_mailbox *mailbox, const struct fc_command *commands, uint32_t n, size_t bytes);

/* Swaps the commands against the empty array of the caller, and counts the shard as awake. Returns their number. */
uint32_t fc_mailbox_take(struct fc_mailbox *mailbox, struct fc_command **commands, uint32_t *capacity);

/* Says that the shard is about to wait. False: there are commands, and it must not. */
bool fc_mailbox_sleep(struct fc_mailbox *mailbox);

/* `bytes` of the backlog are dealt with. Returns flags. */
int fc_mailbox_settle(struct fc_mailbox *mailbox, size_t bytes);

/* FC_MAILBOX_WAKE if the shard sleeps, and then it's the caller's to signal; else 0. */
int fc_mailbox_rouse(struct fc_mailbox *mailbox);

/* Ends the shard's wait. */
void fc_mailbox_signal(const struct fc_mailbox *mailbox);

#endif
