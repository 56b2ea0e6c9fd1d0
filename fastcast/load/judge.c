/*
 * judge.c - judging what is received: loss, order, duplicates, damage and latency.  Everything here runs on
 * the worker's own thread; other workers are reached through the ledger only.
 */
#include "judge.h"

#include "payload.h"
#include "traffic.h"
#include "wire.h"

#include <stdlib.h>

#define ALL UINT32_MAX

void fc_judge_muster(struct fc_worker *worker)
{
    enum fc_load_expect expect = worker->run->options->expect;
    worker->counted = 0;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        bool receives = expect == FC_LOAD_EXPECT_ALL
                            ? (link->role & FC_ROLE_CHURNER) == 0
                            : expect == FC_LOAD_EXPECT_SENDER && (link->role & FC_ROLE_SENDER) != 0;
        if (link->state == FC_LINK_OPEN && !link->deaf && receives) {
            link->role |= FC_ROLE_COUNTED;
            worker->counted++;
        } else if (link->state != FC_LINK_OPEN) {
            fc_traffic_leave(worker, link);
        }
    }
    worker->expected = worker->counted;
    atomic_store_explicit(&worker->receivers, worker->counted, memory_order_relaxed);
    atomic_store_explicit(&worker->present, worker->senders_used - worker->senders_done,
                          memory_order_relaxed);
}

bool fc_judge_done(const struct fc_worker *worker)
{
    return worker->finished == worker->expected;
}

/* A message has reached all of this worker's receivers. */
static void arrive_everywhere(struct fc_worker *worker, uint32_t sender, uint32_t slot, uint64_t sent_ns,
                              uint64_t now)
{
    struct fc_run *run = worker->run;
    struct fc_load_histograms *histograms = &worker->histograms;
    uint64_t first;
    if (!fc_ledger_arrived(&run->ledger, slot, &first))
        return;
    if (sent_ns != 0) {
        fc_histogram_add(&histograms->first_receiver, first > sent_ns ? first - sent_ns : 0);
        fc_histogram_add(&histograms->last_receiver, now > sent_ns ? now - sent_ns : 0);
        fc_histogram_add(&histograms->spread, now > first ? now - first : 0);
    }
    if (run->options->rate <= 0)
        fc_traffic_release(worker, sender);
}

/* A message of one of this process's own senders, at one of its receivers: it has a flight, and its time is
 * of this machine's clock. */
static void follow_flight(struct fc_worker *worker, const struct fc_payload_head *head, uint64_t now)
{
    struct fc_ledger *ledger = &worker->run->ledger;
    uint32_t sequence = (uint32_t)head->sequence;
    uint32_t slot = fc_ledger_slot(ledger, head->sender, sequence);
    struct fc_local *local = &worker->local[slot];
    fc_histogram_add(&worker->histograms.latency, now > head->sent_ns ? now - head->sent_ns : 0);
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
        fc_counter_add(&worker->counters.reordered, 1);
        return NULL;
    }
    worker->strays[index] = stray;
    link->role |= FC_ROLE_STRAYED;
    return stray;
}

/* A receiver that has been there all along.  True when the message is one that it had not had. */
static bool judge_receiver(struct fc_worker *worker, struct fc_link *link, uint32_t sender, uint32_t sequence)
{
    struct fc_ledger *ledger = &worker->run->ledger;
    if ((link->role & (FC_ROLE_STRAYED | FC_ROLE_UNTRACKED)) == 0 &&
        fc_ledger_follows(ledger, link->position, sender, sequence)) {
        return true;
    }
    struct fc_stray *stray = (link->role & FC_ROLE_UNTRACKED) == 0 ? stray_of(worker, link) : NULL;
    if (stray == NULL)
        return link->position < ledger->total;
    enum fc_stray_verdict verdict = fc_stray_take(ledger, stray, sender, sequence);
    if (verdict == FC_STRAY_LATE)
        fc_counter_add(&worker->counters.reordered, 1);
    else if (verdict == FC_STRAY_AGAIN)
        fc_counter_add(&worker->counters.duplicated, 1);
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
        if ((link->role & FC_ROLE_UNPLACED) == 0)
            fc_counter_add(&worker->counters.reordered, 1);
        link->role |= FC_ROLE_UNPLACED;
    } else if ((link->role & FC_ROLE_UNPLACED) != 0 || place >= link->position) {
        worker->lost_in_churn += (link->role & FC_ROLE_UNPLACED) == 0 ? place - link->position : 0;
        link->role &= (uint16_t)~FC_ROLE_UNPLACED;
        link->position = (uint32_t)place + 1;
    } else {
        fc_counter_add(&worker->counters.duplicated, 1);
    }
}

static void deliver(struct fc_worker *worker, struct fc_link *link)
{
    link->position++;
    fc_counter_add(&worker->counters.received, 1);
    if (link->position == worker->run->ledger.total) {
        link->role |= FC_ROLE_FINISHED;
        worker->finished++;
    }
}

static void judge_relayed(struct fc_worker *worker, struct fc_link *link, const struct fc_payload_head *head,
                          uint64_t now)
{
    const struct fc_ledger *ledger = &worker->run->ledger;
    uint32_t sequence = (uint32_t)head->sequence;
    if ((link->role & FC_ROLE_CHURNER) != 0) {
        judge_churner(worker, link, head->sender, sequence);
    } else if ((link->role & FC_ROLE_COUNTED) != 0 && judge_receiver(worker, link, head->sender, sequence)) {
        deliver(worker, link);
        if (fc_ledger_owns(ledger, head->sender))
            follow_flight(worker, head, now);
    }
}

/* From an echo server.  The ledger has one sender, since each connection's order is its own. */
static void judge_echoed(struct fc_worker *worker, struct fc_link *link, const struct fc_payload_head *head,
                         uint64_t now)
{
    bool own = (link->role & FC_ROLE_SENDER) != 0 && worker->senders[link - worker->links].id == head->sender;
    if (!own) {
        fc_counter_add(&worker->counters.unexpected, 1);
    } else if ((link->role & FC_ROLE_COUNTED) != 0 &&
               judge_receiver(worker, link, 0, (uint32_t)head->sequence)) {
        deliver(worker, link);
        fc_histogram_add(&worker->histograms.latency, now > head->sent_ns ? now - head->sent_ns : 0);
        if (worker->run->options->rate <= 0)
            fc_traffic_release(worker, head->sender);
    }
}

void fc_judge_message(void *owner, struct fc_link *link, uint8_t opcode, const uint8_t *payload, size_t size,
                      uint64_t now)
{
    struct fc_worker *worker = owner;
    const struct fc_run *run = worker->run;
    const struct fc_load_options *options = run->options;
    struct fc_payload_head head;
    if (options->expect == FC_LOAD_EXPECT_ANY) {
        fc_counter_add(&worker->counters.received, 1);
        return;
    }
    bool right = opcode == (options->text ? FC_WIRE_TEXT : FC_WIRE_BINARY) && size == options->size &&
                 fc_payload_check(payload, size, options->text, !options->check_heads_only, &head) &&
                 head.sender < run->senders_total && head.sequence < options->messages;
    if (!right)
        fc_counter_add(&worker->counters.damaged, 1);
    else if (options->expect == FC_LOAD_EXPECT_ALL)
        judge_relayed(worker, link, &head, now);
    else
        judge_echoed(worker, link, &head, now);
}

void fc_judge_leave(struct fc_worker *worker, struct fc_link *link)
{
    fc_traffic_leave(worker, link);
    if ((link->role & FC_ROLE_COUNTED) == 0)
        return;
    worker->counted--;
    worker->finished += (link->role & FC_ROLE_FINISHED) == 0;
    /* Should it come back, it is one that comes and goes. */
    link->role &= (uint16_t)~FC_ROLE_COUNTED;
    link->role |= FC_ROLE_CHURNER | FC_ROLE_UNPLACED;
    worker->recount = true;
}

void fc_judge_recount(struct fc_worker *worker)
{
    const struct fc_ledger *ledger = &worker->run->ledger;
    bool relay = worker->run->options->expect == FC_LOAD_EXPECT_ALL;
    if (!worker->recount)
        return;
    worker->recount = false;
    /* Without this their senders would wait for ever.  In the open loop nobody waits, and the flights are as
     * many as the messages.  What no receiver of this worker has had is left to the run's patience. */
    if (!relay || worker->step != FC_STEP_MESSAGES || worker->run->options->rate > 0)
        return;
    uint64_t now = fc_link_now();
    for (uint32_t slot = 0; slot < ledger->own * ledger->window; slot++) {
        struct fc_local *local = &worker->local[slot];
        if (local->tag != 0 && local->count != ALL && local->count >= worker->counted) {
            local->count = ALL;
            arrive_everywhere(worker, ledger->first + slot / ledger->window, slot, 0, now);
        }
    }
}
