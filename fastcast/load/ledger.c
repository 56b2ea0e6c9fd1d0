/*
 * ledger.c - the common order and the messages in flight.
 *
 * Invariants: `length` only grows; entry i is written under the lock before the length passes i.  A flight's
 * slot is the sender's thread's to reuse once `missing` is 0.  The coordinating thread creates and frees; all
 * workers use it.
 */
#include "ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STRAY_LIMIT ((uint64_t)1 << 30)

int fc_ledger_init(struct fc_ledger *ledger, uint32_t senders, uint32_t per_sender, uint32_t first,
                   uint32_t own, uint32_t window)
{
    memset(ledger, 0, sizeof *ledger);
    pthread_mutex_init(&ledger->lock, NULL);
    ledger->senders = senders;
    ledger->per_sender = per_sender;
    ledger->total = (uint64_t)senders * per_sender;
    ledger->first = first;
    ledger->own = own;
    ledger->window = window;
    if (ledger->total == 0)
        return 0;
    /* calloc: pages of messages that are never sent are never touched. */
    ledger->flights = calloc((size_t)own * window + 1, sizeof *ledger->flights);
    if (senders > 1) {
        ledger->order = calloc(ledger->total, sizeof *ledger->order);
        ledger->places = calloc(ledger->total, sizeof *ledger->places);
        ledger->logged = calloc(senders, sizeof *ledger->logged);
    }
    bool whole = senders == 1 || (ledger->order != NULL && ledger->places != NULL && ledger->logged != NULL);
    if (ledger->flights == NULL || !whole) {
        fc_ledger_free(ledger);
        return -ENOMEM;
    }
    return 0;
}

void fc_ledger_free(struct fc_ledger *ledger)
{
    free(ledger->flights);
    free(ledger->order);
    free(ledger->places);
    free(ledger->logged);
    pthread_mutex_destroy(&ledger->lock);
    memset(ledger, 0, sizeof *ledger);
}

static size_t number(const struct fc_ledger *ledger, uint32_t sender, uint32_t sequence)
{
    return (size_t)sender * ledger->per_sender + sequence;
}

/* Returns false when the place was taken meanwhile, or the message is not its sender's next. */
static bool write_down(struct fc_ledger *ledger, uint64_t place, uint32_t sender, uint32_t sequence)
{
    uint64_t entry = (uint64_t)sender << 32 | sequence;
    pthread_mutex_lock(&ledger->lock);
    uint64_t length = atomic_load_explicit(&ledger->length, memory_order_relaxed);
    bool right;
    if (place < length) {
        right = ledger->order[place] == entry;
    } else {
        /* Only what continues its sender's sequence: who missed something must not set the order. */
        right = ledger->logged[sender] == sequence;
        if (right) {
            ledger->order[place] = entry;
            ledger->places[number(ledger, sender, sequence)] = (uint32_t)place + 1;
            ledger->logged[sender]++;
            /* Release: whoever sees the new length sees the entry. */
            atomic_store_explicit(&ledger->length, place + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&ledger->lock);
    return right;
}

bool fc_ledger_follows(struct fc_ledger *ledger, uint64_t place, uint32_t sender, uint32_t sequence)
{
    if (ledger->senders == 1)
        return place == sequence;
    if (place < atomic_load_explicit(&ledger->length, memory_order_acquire))
        return ledger->order[place] == ((uint64_t)sender << 32 | sequence);
    return place < ledger->total && write_down(ledger, place, sender, sequence);
}

bool fc_ledger_place(struct fc_ledger *ledger, uint32_t sender, uint32_t sequence, uint64_t *place)
{
    if (ledger->senders == 1) {
        *place = sequence;
        return true;
    }
    pthread_mutex_lock(&ledger->lock);
    uint32_t found = ledger->places[number(ledger, sender, sequence)];
    pthread_mutex_unlock(&ledger->lock);
    *place = (uint64_t)found - 1;
    return found != 0;
}

bool fc_ledger_is_whole(const struct fc_ledger *ledger)
{
    return ledger->senders == 1 || atomic_load(&ledger->length) == ledger->total;
}

uint64_t fc_ledger_digest(const struct fc_ledger *ledger)
{
    uint64_t length = ledger->senders == 1 ? ledger->total : atomic_load(&ledger->length);
    uint64_t digest = length;
    for (uint64_t i = 0; i < length; i++) {
        digest ^= ledger->senders == 1 ? i : ledger->order[i];
        /* The finalizer of MurmurHash3: it spreads each entry over all bits before the next one comes. */
        digest = (digest ^ digest >> 33) * 0xff51afd7ed558ccdu;
        digest = (digest ^ digest >> 33) * 0xc4ceb9fe1a85ec53u;
        digest ^= digest >> 33;
    }
    return digest;
}

void fc_ledger_depart(struct fc_ledger *ledger, uint32_t slot)
{
    struct fc_flight *flight = &ledger->flights[slot];
    atomic_store_explicit(&flight->first_ns, UINT64_MAX, memory_order_relaxed);
    /* Release: other threads learn of the message from the server, not from here, but must find the line
     * above done. */
    atomic_store_explicit(&flight->missing, ledger->threads + 1, memory_order_release);
}

void fc_ledger_sighted(struct fc_ledger *ledger, uint32_t slot, uint64_t now)
{
    _Atomic uint64_t *first = &ledger->flights[slot].first_ns;
    uint64_t known = atomic_load_explicit(first, memory_order_relaxed);
    /* Relaxed: the value is read after fc_ledger_arrived() has ordered all threads. */
    while (now < known && !atomic_compare_exchange_weak_explicit(first, &known, now, memory_order_relaxed,
                                                                 memory_order_relaxed)) {
    }
}

bool fc_ledger_arrived(struct fc_ledger *ledger, uint32_t slot, uint64_t *first_ns)
{
    struct fc_flight *flight = &ledger->flights[slot];
    /* Acquire and release: the last thread to arrive sees what all others did before they arrived. */
    if (atomic_fetch_sub_explicit(&flight->missing, 1, memory_order_acq_rel) != 2)
        return false;
    *first_ns = atomic_load_explicit(&flight->first_ns, memory_order_relaxed);
    /* Release: only now may the slot's next message overwrite the time. */
    atomic_store_explicit(&flight->missing, 0, memory_order_release);
    return true;
}

/* Of the bits, which stand behind the struct, and of `latest`, which stands behind the bits. */
static size_t stray_size(const struct fc_ledger *ledger)
{
    size_t words = (ledger->total + 63) / 64;
    return sizeof(struct fc_stray) + words * sizeof(uint64_t) + ledger->senders * sizeof(uint32_t);
}

static void mark(const struct fc_ledger *ledger, struct fc_stray *stray, uint32_t sender, uint32_t sequence)
{
    size_t bit = number(ledger, sender, sequence);
    stray->seen[bit / 64] |= (uint64_t)1 << (bit % 64);
    stray->count++;
    if (stray->latest[sender] <= sequence)
        stray->latest[sender] = sequence + 1;
}

struct fc_stray *fc_stray_new(struct fc_ledger *ledger, uint64_t place)
{
    size_t size = stray_size(ledger);
    /* Relaxed: a limit on memory, which orders nothing. */
    if (atomic_fetch_add_explicit(&ledger->stray_bytes, size, memory_order_relaxed) + size > STRAY_LIMIT) {
        atomic_fetch_sub_explicit(&ledger->stray_bytes, size, memory_order_relaxed);
        return NULL;
    }
    struct fc_stray *stray = calloc(1, size);
    if (stray == NULL)
        return NULL;
    stray->latest = (uint32_t *)&stray->seen[(ledger->total + 63) / 64];
    for (uint64_t i = 0; i < place; i++) {
        uint64_t entry = ledger->senders == 1 ? i : ledger->order[i];
        mark(ledger, stray, (uint32_t)(entry >> 32), (uint32_t)entry);
    }
    stray->floor = place;
    return stray;
}

enum fc_stray_verdict fc_stray_take(struct fc_ledger *ledger, struct fc_stray *stray, uint32_t sender,
                                    uint32_t sequence)
{
    size_t bit = number(ledger, sender, sequence);
    if ((stray->seen[bit / 64] >> (bit % 64) & 1) != 0)
        return FC_STRAY_AGAIN;
    bool late = sequence < stray->latest[sender];
    uint64_t place;
    if (fc_ledger_place(ledger, sender, sequence, &place)) {
        late = late || place < stray->floor;
        place++;
    } else {
        /* Not written down yet: its place is behind all that is. */
        place = atomic_load_explicit(&ledger->length, memory_order_acquire);
    }
    if (place > stray->floor)
        stray->floor = place;
    mark(ledger, stray, sender, sequence);
    return late ? FC_STRAY_LATE : FC_STRAY_NEW;
}

void fc_stray_free(struct fc_ledger *ledger, struct fc_stray *stray)
{
    if (stray != NULL) {
        free(stray);
        atomic_fetch_sub_explicit(&ledger->stray_bytes, stray_size(ledger), memory_order_relaxed);
    }
}
