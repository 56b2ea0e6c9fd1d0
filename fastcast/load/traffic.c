/*
 * traffic.c - sending.  Everything here runs on the worker's own thread; other workers are reached through
 * their ready lists only.
 *
 * A message carries the time at which it was to leave, not that at which it did: in the open loop its place
 * in the schedule, in the closed loop the end of the pause before it, so that a server which holds its
 * senders up does not make itself look better.
 */
#include "traffic.h"

#include "payload.h"
#include "wire.h"

#include <math.h>

static void finish(struct fc_worker *worker, struct fc_sender *sender)
{
    worker->senders_done += !sender->done;
    sender->done = true;
}

static void send_message(struct fc_worker *worker, struct fc_sender *sender, uint64_t time_ns)
{
    const struct fc_load_options *options = worker->run->options;
    struct fc_ledger *ledger = &worker->run->ledger;
    struct fc_payload_head head = {.sender = sender->id, .sequence = sender->next, .sent_ns = time_ns};
    fc_payload_write(worker->payload, options->size, options->text, &head);
    size_t size = fc_wire_write(worker->frame, options->text ? FC_WIRE_TEXT : FC_WIRE_BINARY,
                                fc_link_mask(&worker->io), worker->payload, options->size);
    if (options->expect == FC_LOAD_EXPECT_ALL)
        fc_ledger_depart(ledger, fc_ledger_slot(ledger, sender->id, sender->next));
    sender->next++;
    fc_counter_add(&worker->counters.sent, 1);
    bool alive = fc_link_send(&worker->io, sender->link, worker->frame, size);
    if (alive && sender->next == options->messages)
        finish(worker, sender);
}

static bool window_is_open(const struct fc_worker *worker, const struct fc_sender *sender)
{
    const struct fc_load_options *options = worker->run->options;
    const struct fc_ledger *ledger = &worker->run->ledger;
    switch (options->expect) {
    case FC_LOAD_EXPECT_ALL:
        return fc_ledger_free_slot(ledger, fc_ledger_slot(ledger, sender->id, sender->next));
    case FC_LOAD_EXPECT_SENDER: return sender->next - sender->link->position < options->in_flight;
    default: return true;
    }
}

static uint64_t pause_ns(struct fc_worker *worker)
{
    const struct fc_load_options *options = worker->run->options;
    /* Above 0 and at most 1. */
    double chance = ((double)fc_link_mask(&worker->io) + 1) / 4294967296.0;
    return (uint64_t)((options->think_fixed ? options->think : -log(chance) * options->think) * 1e9);
}

static void pump_closed_loop(struct fc_worker *worker, struct fc_sender *sender)
{
    while (!sender->done && worker->step == FC_STEP_MESSAGES && !fc_link_backed_up(sender->link) &&
           window_is_open(worker, sender)) {
        uint64_t now = fc_link_now();
        uint64_t due = now;
        if (worker->run->options->think > 0) {
            if (sender->due_ns == 0) {
                sender->due_ns = now + pause_ns(worker);
                fc_timers_add(&worker->thoughts, sender->due_ns, (uint32_t)(sender - worker->senders));
            }
            if (sender->due_ns > now)
                return;
            due = sender->due_ns;
        }
        sender->due_ns = 0;
        send_message(worker, sender, due);
    }
}

static uint64_t due_time(const struct fc_worker *worker, const struct fc_sender *sender)
{
    const struct fc_load_options *options = worker->run->options;
    uint64_t number = (uint64_t)sender->next * options->senders + (sender->id - options->sender_base);
    return worker->run->start_ns + (uint64_t)((double)number * 1e9 / options->rate);
}

/* NULL: nobody can send now. */
static struct fc_sender *whose_turn(const struct fc_worker *worker)
{
    for (uint32_t passed = 0; passed < worker->senders_used; passed++) {
        struct fc_sender *sender = &worker->senders[(worker->turn + passed) % worker->senders_used];
        /* One whose socket is full holds up nobody else, and catches up when it has drained. */
        if (!sender->done && !fc_link_backed_up(sender->link))
            return sender;
    }
    return NULL;
}

static void pump_open_loop(struct fc_worker *worker)
{
    struct fc_sender *sender;
    uint64_t now = fc_link_now();
    while ((sender = whose_turn(worker)) != NULL) {
        uint64_t due = due_time(worker, sender);
        if (due > now)
            return;
        worker->turn = (uint32_t)(sender - worker->senders) + 1;
        send_message(worker, sender, due);
    }
}

/* Sends what became due while the sender's socket was full. */
static void catch_up(struct fc_worker *worker, struct fc_sender *sender)
{
    uint64_t now = fc_link_now();
    while (!sender->done && !fc_link_backed_up(sender->link)) {
        uint64_t due = due_time(worker, sender);
        if (due > now)
            return;
        send_message(worker, sender, due);
    }
}

void fc_traffic_begin(struct fc_worker *worker)
{
    if (worker->run->options->rate > 0) {
        pump_open_loop(worker);
        return;
    }
    for (uint32_t i = 0; i < worker->senders_used; i++)
        pump_closed_loop(worker, &worker->senders[i]);
}

void fc_traffic_pump(struct fc_worker *worker)
{
    uint32_t sender;
    if (worker->run->options->rate > 0)
        pump_open_loop(worker);
    /* A sender whose socket is full is pumped when it has drained, with the time from before. */
    uint64_t now = fc_link_now();
    while (fc_timers_take(&worker->thoughts, now, &sender))
        pump_closed_loop(worker, &worker->senders[sender]);
}

uint64_t fc_traffic_due(const struct fc_worker *worker)
{
    if (worker->run->options->rate <= 0)
        return fc_timers_due(&worker->thoughts);
    const struct fc_sender *sender = whose_turn(worker);
    return sender == NULL ? UINT64_MAX : due_time(worker, sender);
}

bool fc_traffic_done(const struct fc_worker *worker)
{
    return worker->senders_done == worker->senders_used;
}

void fc_traffic_drained(void *owner, struct fc_link *link)
{
    struct fc_worker *worker = owner;
    if (worker->step != FC_STEP_MESSAGES || (link->role & FC_ROLE_SENDER) == 0)
        return;
    struct fc_sender *sender = &worker->senders[link - worker->links];
    if (worker->run->options->rate > 0)
        catch_up(worker, sender);
    else
        pump_closed_loop(worker, sender);
}

void fc_traffic_release(struct fc_worker *worker, uint32_t sender_id)
{
    struct fc_run *run = worker->run;
    uint32_t number = sender_id - run->options->sender_base;
    struct fc_worker *home = &run->workers[number % run->threads];
    struct fc_sender *sender = &home->senders[number / run->threads];
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

void fc_traffic_leave(struct fc_worker *worker, const struct fc_link *link)
{
    if ((link->role & FC_ROLE_SENDER) != 0)
        finish(worker, &worker->senders[link - worker->links]);
}
