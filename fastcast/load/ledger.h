/*
 * ledger.h - which messages exist, in which order everybody must see them, and which of them have arrived
 * everywhere.
 *
 * One ledger for all threads of a run.  With one sender the order is its sequence.  With several, the first
 * receiver to come to a place in the order writes down what it saw there, and every other receiver must see
 * the same: that proves one order for all connections, and costs a receiver one number.
 *
 * A receiver that sees anything else has strayed: from then on a struct fc_stray remembers each message it
 * has had.
 */
#ifndef FC_LEDGER_H
#define FC_LEDGER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message that has not yet reached everybody. */
struct fc_flight {
    _Atomic uint64_t first_ns; /* when the first receiver of any thread had it */
    _Atomic uint32_t missing;  /* threads not all of whose receivers have it, plus 1; 0: the flight is over */
};

struct fc_ledger {
    uint32_t senders; /* of all processes */
    uint32_t per_sender;
    uint64_t total;
    uint32_t first; /* senders from this number on are this process's own: `own` of them */
    uint32_t own;

    /* Entries below `length` never change: a reader that has seen the length needs no lock. */
    _Atomic uint64_t length;
    uint64_t *order;      /* sender << 32 | sequence */
    pthread_mutex_t lock; /* for adding to the order, and for what follows */
    uint32_t *logged;     /* for each sender, its next sequence to be written down */
    uint32_t *places;     /* for each message, its place in the order plus 1; 0: none yet */

    uint32_t window;  /* flights of one of the own senders at a time */
    uint32_t threads; /* that have receivers */
    struct fc_flight *flights;

    _Atomic uint64_t stray_bytes;
};

/* A ledger of `senders`, of which the `own` from `first` on have `window` flights each.  Returns 0 or -errno.
 */
int fc_ledger_init(struct fc_ledger *ledger, uint32_t senders, uint32_t per_sender, uint32_t first,
                   uint32_t own, uint32_t window);

void fc_ledger_free(struct fc_ledger *ledger);

/* Whether this message is what belongs at `place`; writes it there when the place is the next free one. */
bool fc_ledger_follows(struct fc_ledger *ledger, uint64_t place, uint32_t sender, uint32_t sequence);

/* Finds the place of a message; false when nobody has written it down yet. */
bool fc_ledger_place(struct fc_ledger *ledger, uint32_t sender, uint32_t sequence, uint64_t *place);

/* Whether every message has its place: with one sender, always. */
bool fc_ledger_is_whole(const struct fc_ledger *ledger);

/* A number that is the same for all whose receivers saw the same order of the same messages. */
uint64_t fc_ledger_digest(const struct fc_ledger *ledger);

static inline bool fc_ledger_owns(const struct fc_ledger *ledger, uint32_t sender)
{
    return sender - ledger->first < ledger->own;
}

/* Of one of the own senders. */
static inline uint32_t fc_ledger_slot(const struct fc_ledger *ledger, uint32_t sender, uint32_t sequence)
{
    return (sender - ledger->first) * ledger->window + sequence % ledger->window;
}

/* Whether the sender's window has room for this message. */
static inline bool fc_ledger_free_slot(const struct fc_ledger *ledger, uint32_t slot)
{
    /* Acquire: the flight that used the slot before is over in every respect. */
    return atomic_load_explicit(&ledger->flights[slot].missing, memory_order_acquire) == 0;
}

void fc_ledger_depart(struct fc_ledger *ledger, uint32_t slot);

/* The first receiver of a thread has it. */
void fc_ledger_sighted(struct fc_ledger *ledger, uint32_t slot, uint64_t now);

/* All receivers of a thread have it; true when all receivers of all threads have, with *first_ns set. */
bool fc_ledger_arrived(struct fc_ledger *ledger, uint32_t slot, uint64_t *first_ns);

/* What a receiver that left the order has had. */
struct fc_stray {
    uint64_t count;
    uint64_t floor;   /* no message still to come belongs below this place */
    uint32_t *latest; /* for each sender, the highest sequence so far plus 1 */
    uint64_t seen[];  /* one bit for each message, sender by sender */
};

enum fc_stray_verdict { FC_STRAY_NEW, FC_STRAY_LATE, FC_STRAY_AGAIN };

/* A receiver that has had the first `place` messages of the order.  NULL when memory, or what all strays
 * together may take of it, is used up. */
struct fc_stray *fc_stray_new(struct fc_ledger *ledger, uint64_t place);

/* Notes a message: new, new but after one that it should precede, or had before. */
enum fc_stray_verdict fc_stray_take(struct fc_ledger *ledger, struct fc_stray *stray, uint32_t sender,
                                    uint32_t sequence);

void fc_stray_free(struct fc_ledger *ledger, struct fc_stray *stray);

#endif
