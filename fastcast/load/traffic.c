/*
 * traffic.c - sending and receiving.  Everything here runs on the worker's own thread; other workers are
 * reached through the ledger and through their ready lists only.
 */
#include "traffic.h"

#include "payload.h"
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL UINT32_MAX

void fc_traffic_muster(struct fc_worker *worker)
{
    worker->counted = 0;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        if (link->state == FC_LINK_OPEN && !link->deaf && (link->role & FC_ROLE_CHURNER) == 0) {
            link->role |= FC_ROLE_COUNTED;
            worker->counted++;
        }
    }
    for (uint32_t i = 0; i < worker->senders_used; i++) {
        struct fc_sender *sender = &worker->senders[i];
        if (sender->link->state != FC_LINK_OPEN && !sender->done) {
            sender->done = true;
            worker->senders_done++;
        }
    }
    worker->expected = worker->counted;
    atomic_store_explicit(&worker->receivers, worker->counted, memory_order_relaxed);
}

static void send_message(struct fc_worker *worker, struct fc_sender *sender, uint32_t slot, uint64_t time_ns)
{
    const struct fc_load_options *options = worker->run->options;
    struct fc_payload_head head = {.sender = sender->id, .sequence = sender->next, .sent_ns = time_ns};
    fc_payload_write(worker->payload, options->size, options->text, &head);
    size_t size = fc_wire_write(worker->frame, options->text ? FC_WIRE_TEXT : FC_WIRE_BINARY,
                                fc_link_mask(&worker->io), worker->payload, options->size);
    fc_ledger_depart(&worker->run->ledger, slot);
    sender->next++;
    atomic_fetch_add_explicit(&worker->sent, 1, memory_order_relaxed);
    bool alive = fc_link_send(&worker->io, sender->link, worker->frame, size);
    if (alive && sender->next == options->messages) {
        sender->done = true;
        worker->senders_done++;
    }
}

static void pump_closed_loop(struct fc_worker *worker, struct fc_sender *sender)
{
    struct fc_ledger *ledger = &worker->run->ledger;
    while (!sender->done && !fc_link_backed_up(sender->link)) {
        uint32_t slot = fc_ledger_slot(ledger, sender->id, sender->next);
        if (!fc_ledger_free_slot(ledger, slot))
            return;
        send_message(worker, sender, slot, fc_link_now());
    }
}

/* A message's time is fixed before the run: one that leaves late counts its delay as latency. */
static uint64_t due_time(const struct fc_worker *worker, const struct fc_sender *sender)
{
    const struct fc_load_options *options = worker->run->options;
    uint64_t number = (uint64_t)sender->next * options->senders + sender->id;
    return worker->run->start_ns + (uint64_t)((double)number * 1e9 / options->rate);
}

static struct fc_sender *whose_turn(const struct fc_worker *worker)
{
    for (uint32_t i = 0; i < worker->senders_used; i++) {
        struct fc_sender *sender = &worker->senders[(worker->turn + i) % worker->senders_used];
        if (!sender->done)
            return sender;
    }
    return NULL;
}

static void pump_open_loop(struct fc_worker *worker)
{
    struct fc_sender *sender;
    uint64_t now = fc_link_now();
    while ((sender = whose_turn(worker)) != NULL && !fc_link_backed_up(sender->link)) {
        uint64_t due = due_time(worker, sender);
        if (due > now)
            return;
        worker->turn = (uint32_t)(sender - worker->senders) + 1;
        send_message(worker, sender, fc_ledger_slot(&worker->run->ledger, sender->id, sender->next), due);
    }
}

void fc_traffic_pump(struct fc_worker *worker)
{
    if (worker->run->options->rate > 0) {
        pump_open_loop(worker);
        return;
    }
    for (uint32_t i = 0; i < worker->senders_used; i++)
        pump_closed_loop(worker, &worker->senders[i]);
}

uint64_t fc_traffic_due(const struct fc_worker *worker)
{
    const struct fc_sender *sender = worker->run->options->rate > 0 ? whose_turn(worker) : NULL;
    return sender == NULL || fc_link_backed_up(sender->link) ? UINT64_MAX : due_time(worker, sender);
}

bool fc_traffic_done(const struct fc_worker *worker)
{
    return worker->senders_done == worker->senders_used && worker->finished == worker->expected;
}

void fc_traffic_drained(void *owner, struct fc_link *link)
{
    struct fc_worker *worker = owner;
    if (worker->step != FC_STEP_MESSAGES || (link->role & FC_ROLE_SENDER) == 0)
        return;
    if (worker->run->options->rate > 0)
        pump_open_loop(worker);
    else
        pump_closed_loop(worker, &worker->senders[link - worker->links]);
}

/* Tells the sender's worker that one of the sender's messages has reached everybody. */
static void make_ready(struct fc_worker *worker, uint32_t id)
{
    struct fc_run *run = worker->run;
    struct fc_worker *home = &run->workers[id % run->threads];
    struct fc_sender *sender = &home->senders[id / run->threads];
    /* Acquire and release: either this push is seen, or the worker that clears the flag sees the flight's
     * end. */
    if (atomic_exchange_explicit(&sender->queued, true, memory_order_acq_rel))
        return;
    struct fc_sender *top = atomic_load_explicit(&home->ready, memory_order_relaxed);
    do {
        sender->next_ready = top;
        /* Release: the link above is visible to the worker that takes the list. */
    } while (!atomic_compare_exchange_weak_explicit(&home->ready, &top, sender, memory_order_release,
                                                    memory_order_relaxed));
    if (home != worker && top == NULL)
        fc_worker_wake(home);
}

void fc_traffic_pump_ready(struct fc_worker *worker)
{
    if (atomic_load_explicit(&worker->ready, memory_order_relaxed) == NULL)
        return;
    struct fc_sender *sender = atomic_exchange_explicit(&worker->ready, NULL, memory_order_acquire);
    while (sender != NULL) {
        struct fc_sender *next = sender->next_ready;
        atomic_exchange_explicit(&sender->queued, false, memory_order_acq_rel);
        pump_closed_loop(worker, sender);
        sender = next;
    }
}

static void arrive_everywhere(struct fc_worker *worker, uint32_t sender, uint32_t slot, uint64_t sent_ns,
                              uint64_t now)
{
    struct fc_run *run = worker->run;
    uint64_t first;
    if (!fc_ledger_arrived(&run->ledger, slot, &first))
        return;
    if (sent_ns != 0) {
        fc_histogram_add(&worker->first, first > sent_ns ? first - sent_ns : 0);
        fc_histogram_add(&worker->last, now > sent_ns ? now - sent_ns : 0);
        fc_histogram_add(&worker->spread, now > first ? now - first : 0);
    }
    if (run->options->rate <= 0)
        make_ready(worker, sender);
}

static void count_delivery(struct fc_worker *worker, const struct fc_payload_head *head, uint64_t now)
{
    struct fc_ledger *ledger = &worker->run->ledger;
    uint32_t sequence = (uint32_t)head->sequence;
    uint32_t slot = fc_ledger_slot(ledger, head->sender, sequence);
    struct fc_local *local = &worker->local[slot];
    fc_histogram_add(&worker->latency, now > head->sent_ns ? now - head->sent_ns : 0);
    worker->live_received++;
    if (local->tag != sequence + 1) {
        local->tag = sequence + 1;
        local->count = 0;
        fc_ledger_sighted(ledger, slot, now);
    }
    if (local->count != ALL && ++local->count >= worker->counted) {
        local->count = ALL;
        arrive_everywhere(worker, head->sender, slot, head->sent_ns, now);
    }
}

static struct fc_stray *stray_of(struct fc_worker *worker, struct fc_link *link)
{
    size_t index = (size_t)(link - worker->links);
    if ((link->role & FC_ROLE_STRAYED) != 0)
        return worker->strays[index];
    if (worker->strays == NULL)
        worker->strays = calloc(worker->count, sizeof(struct fc_stray *));
    struct fc_stray *stray =
        worker->strays != NULL ? fc_stray_new(&worker->run->ledger, link->position) : NULL;
    if (stray == NULL) {
        link->role |= FC_ROLE_UNTRACKED;
        worker->reordered++;
        return NULL;
    }
    worker->strays[index] = stray;
    link->role |= FC_ROLE_STRAYED;
    return stray;
}

/* A receiver that has been there all along.  True when the message is one that it had not had. */
static bool judge_receiver(struct fc_worker *worker, struct fc_link *link, uint32_t sender, uint32_t sequence)
{
    if ((link->role & (FC_ROLE_STRAYED | FC_ROLE_UNTRACKED)) == 0 &&
        fc_ledger_follows(&worker->run->ledger, link->position, sender, sequence)) {
        return true;
    }
    struct fc_stray *stray = (link->role & FC_ROLE_UNTRACKED) == 0 ? stray_of(worker, link) : NULL;
    if (stray == NULL)
        return link->position < worker->run->ledger.total;
    enum fc_stray_verdict verdict = fc_stray_take(&worker->run->ledger, stray, sender, sequence);
    worker->reordered += verdict == FC_STRAY_LATE;
    worker->duplicated += verdict == FC_STRAY_AGAIN;
    return verdict != FC_STRAY_AGAIN;
}

/* A connection that comes and goes.  What it misses while it is away is not lost, but from its first message
 * on it must follow the order.  Its first messages may not have a place yet, since others may not have read
 * as far. */
static void judge_churner(struct fc_worker *worker, struct fc_link *link, uint32_t sender, uint32_t sequence)
{
    struct fc_ledger *ledger = &worker->run->ledger;
    uint64_t place;
    worker->churn_received++;
    if ((link->role & FC_ROLE_UNPLACED) == 0 && fc_ledger_follows(ledger, link->position, sender, sequence)) {
        link->position++;
    } else if (!fc_ledger_place(ledger, sender, sequence, &place)) {
        worker->reordered += (link->role & FC_ROLE_UNPLACED) == 0;
        link->role |= FC_ROLE_UNPLACED;
    } else if ((link->role & FC_ROLE_UNPLACED) != 0 || place >= link->position) {
        worker->lost_in_churn += (link->role & FC_ROLE_UNPLACED) == 0 ? place - link->position : 0;
        link->role &= (uint8_t)~FC_ROLE_UNPLACED;
        link->position = (uint32_t)place + 1;
    } else {
        worker->duplicated++;
    }
}

void fc_traffic_message(void *owner, struct fc_link *link, uint8_t opcode, const uint8_t *payload,
                        size_t size, uint64_t now)
{
    struct fc_worker *worker = owner;
    const struct fc_load_options *options = worker->run->options;
    struct fc_payload_head head;
    bool right = opcode == (options->text ? FC_WIRE_TEXT : FC_WIRE_BINARY) && size == options->size &&
                 fc_payload_check(payload, size, options->text, !options->check_heads_only, &head) &&
                 head.sender < options->senders && head.sequence < options->messages;
    if (!right) {
        worker->damaged++;
        return;
    }
    if ((link->role & FC_ROLE_CHURNER) != 0) {
        judge_churner(worker, link, head.sender, (uint32_t)head.sequence);
        return;
    }
    if ((link->role & FC_ROLE_COUNTED) == 0 ||
        !judge_receiver(worker, link, head.sender, (uint32_t)head.sequence)) {
        return;
    }
    link->position++;
    count_delivery(worker, &head, now);
    if (link->position == worker->run->ledger.total) {
        link->role |= FC_ROLE_FINISHED;
        worker->finished++;
    }
}

/* Messages that only the departed receiver had not had are now everywhere: without this their senders would
 * wait for ever.  What no receiver of this worker has had is left to the run's patience. */
static void recount(struct fc_worker *worker)
{
    const struct fc_ledger *ledger = &worker->run->ledger;
    uint64_t now = fc_link_now();
    for (uint32_t slot = 0; slot < ledger->senders * ledger->window; slot++) {
        struct fc_local *local = &worker->local[slot];
        if (local->tag != 0 && local->count != ALL && local->count >= worker->counted) {
            local->count = ALL;
            arrive_everywhere(worker, slot / ledger->window, slot, 0, now);
        }
    }
}

void fc_traffic_leave(struct fc_worker *worker, struct fc_link *link)
{
    if ((link->role & FC_ROLE_SENDER) != 0) {
        struct fc_sender *sender = &worker->senders[link - worker->links];
        worker->senders_done += !sender->done;
        sender->done = true;
    }
    if ((link->role & FC_ROLE_COUNTED) != 0) {
        worker->counted--;
        worker->finished += (link->role & FC_ROLE_FINISHED) == 0;
        link->role &= (uint8_t)~FC_ROLE_COUNTED;
        /* In the open loop nobody waits, and the flights are as many as the messages. */
        if (worker->step == FC_STEP_MESSAGES && worker->run->options->rate <= 0)
            recount(worker);
    }
}
