/* What a channel keeps of its last messages, for clients that come back and want what they missed.
 *
 * A channel with a history is two: the one of its name, and its record, whose members know where they are. A message
 * to a record has a head that says so, "\x1emsg EPOCH:OFFSET CHANNEL\n" before the payload; it's built once, and what
 * is sent is what is kept. An epoch is one run of offsets without a gap.
 */
#ifndef FC_HISTORY_H
#define FC_HISTORY_H

#include "channel.h"
#include "fastcast.h"
#include "message.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_kept {
    struct fc_message *message;
    uint64_t offset;
    uint64_t at; /* milliseconds of fc_clock_ms */
};

/* Of one record, and under its lock, but for what says otherwise. */
struct fc_history {
    char epoch[FC_EPOCH_SIZE];
    bool led;       /* offsets are given from outside: what has none isn't kept */
    uint64_t last;  /* the newest offset there was; in an epoch of its own the first is 1 */
    uint64_t floor; /* all that came after this one is kept */
    struct fc_kept *ring;
    uint32_t first;
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
    uint8_t rule;      /* of its messages: who lags is closed, and comes back, rather than miss some */
    uint64_t most;     /* messages to keep at most */
    uint64_t time;     /* and milliseconds to keep them */

    /* Under the lock of all histories. Listed while something is kept, or it's led, and otherwise for as long as it would be
     * kept: so that nothing that's missing can be told from nothing that was said. That's one reference to the record. */
    struct fc_channel *record;
    struct fc_history_line *line; /* NULL: it isn't listed */
    struct fc_history *newer;
    struct fc_history *older;
    size_t weight;
    uint64_t at; /* when it got its newest message, or somebody came or left */
};

struct fc_history_line {
    struct fc_history *newest;
    struct fc_history *oldest;
};

/* Those of a hub, by the time of their last message. */
struct fc_histories {
    pthread_mutex_t lock;          /* taken inside of channels' locks */
    struct fc_history_line giving; /* who has something to give when there's too much, messages or its place, */
    struct fc_history_line bare;   /* and who is led and has none */
    size_t count;                  /* of both */
    size_t weight;                 /* bytes of those that may give their place, without messages */
    atomic_size_t messages;        /* kept, over all, */
    atomic_size_t bytes;           /* and the memory that they take */
    size_t limit;
    uint64_t least_time; /* milliseconds: no record keeps its messages for less */
    struct fc_account account; /* of messages that are kept, or were and are still on their way */
};

/* A replay is sent in pieces of so many messages, or bytes, at most: so it holds up nobody, and little waits for a client
 * that doesn't read. */
#define FC_REPLAY_MESSAGES 256
#define FC_REPLAY_BYTES ((size_t)256 << 10)

/* What a client that comes back gets, or the next piece of it. */
struct fc_replay {
    bool gap;        /* something is missing before the messages */
    bool more;       /* of them is to come, */
    uint64_t end;    /* after this offset */
    uint64_t offset; /* where the messages begin: the first one comes after it */
    char epoch[FC_EPOCH_SIZE];
    struct fc_message **messages; /* one reference each, in an array for free() */
    uint32_t count;
};

/* From where on it wants messages. */
struct fc_since {
    enum fc_resume from;
    const struct fc_position *positions; /* FC_RESUME_SINCE: that of the record's epoch counts. FC_RESUME_HERE: the only one */
    size_t count;
    uint64_t losses; /* FC_RESUME_HERE: of its seat, by then */
};

void fc_histories_init(struct fc_histories *histories, size_t limit, const struct fc_rule *rules, unsigned rule_count);

/* Nothing may be listed any more. */
void fc_histories_destroy(struct fc_histories *histories);

/* A history with an epoch of its own for a new record under the rule. NULL: no memory. */
struct fc_history *fc_history_new(struct fc_channel *record, unsigned shards, const struct fc_rule *rule,
                                  uint8_t its_messages);

/* Nothing may be listed. */
void fc_history_free(struct fc_history *history);

/* Under the record's lock: makes of each message one with a head, keeps it, and returns it in `made`, with one reference.
 * The offsets follow each other; or it's led, and that of the only message is `offset`, 0 for one that isn't kept.
 * 0, or -ENOMEM and none made: then nothing is kept, and the offsets have been used. */
int fc_history_append(struct fc_histories *histories, struct fc_history *history, struct fc_message *const *messages,
                      unsigned n, uint64_t offset, uint64_t now, struct fc_message **made);

/* Under the record's lock: what is to be sent to a client that becomes a member now, or has got a piece. 0 or -ENOMEM. */
int fc_history_replay(struct fc_histories *histories, struct fc_history *history, const struct fc_since *since,
                      uint64_t now, struct fc_replay *replay);

/* Under the record's lock: its epoch and newest offset. */
struct fc_position fc_history_position(const struct fc_history *history);

/* Under the record's lock: its last member of a shard leaves, and may come back. */
void fc_history_touch(struct fc_histories *histories, struct fc_history *history, uint64_t now);

/* The head alone, as a text frame that nobody counts: "at", or "gap", and where the replay begins. NULL: no memory. */
struct fc_message *fc_history_notice(struct fc_histories *histories, const struct fc_channel *record,
                                     const struct fc_replay *replay);

/* Has the record led from outside, and forgets what it kept: an epoch whose last message so far was `offset`. */
void fc_history_lead(struct fc_histories *histories, struct fc_history *history, const struct fc_position *position);

/* Forgets what it kept, and goes on behind the offset. Returns a notice of the gap; NULL: no memory. */
struct fc_message *fc_history_skip(struct fc_histories *histories, struct fc_history *history, uint64_t offset);

/* Ends that; it has an epoch of its own again. The caller has a reference to the record. */
void fc_history_release(struct fc_histories *histories, struct fc_channels *channels, struct fc_history *history);

/* Outside of all locks: drops the oldest of those that were quiet for longest, until what is kept is within the limit. */
void fc_histories_trim(struct fc_histories *histories, struct fc_channels *channels);

/* Outside of all locks: drops what is out of time in records where nothing is published any more. */
void fc_histories_expire(struct fc_histories *histories, struct fc_channels *channels, uint64_t now);

/* Releases all that there are, listed or not. 0, or -ENOMEM and nothing done. */
int fc_histories_release(struct fc_histories *histories, struct fc_channels *channels);

/* Releases all that are listed; at the end, when nobody uses any. */
void fc_histories_clear(struct fc_histories *histories, struct fc_channels *channels);

#endif
