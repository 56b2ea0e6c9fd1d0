/*
 * opening.c - connecting and connecting again.  The worker's own thread.
 *
 * Invariants: a connection is FC_ROLE_WAITING exactly while it has an entry in `retries`, and has no socket
 * then.  At the end of a run each connection has been MADE or is ABANDONED, and is counted as one of the two.
 */
#include "opening.h"

/* Events get their turn after so many: a handshake over loopback may end at once. */
#define VISIT 64u

/* How often the longest pause before a retry doubles. */
#define DOUBLINGS 5u

static uint32_t number_of(const struct fc_worker *worker, uint32_t index)
{
    return index * worker->run->threads + worker->id;
}

static void attempt(struct fc_worker *worker, uint32_t index, uint64_t since_ns)
{
    worker->sockets++;
    worker->attempts++;
    worker->storm_attempts += worker->step == FC_STEP_STORM;
    fc_counter_add(&worker->counters.handshakes, 1);
    fc_link_open(&worker->io, &worker->links[index], number_of(worker, index), since_ns);
}

static void add_to(struct fc_worker *worker, struct fc_load_tally *tally, const char *reason)
{
    pthread_mutex_lock(&worker->tally_lock);
    fc_load_tally_add(tally, reason, 1);
    pthread_mutex_unlock(&worker->tally_lock);
}

/* False when the options, or the step, have no second attempt. */
static bool try_again(struct fc_worker *worker, struct fc_link *link)
{
    double longest = worker->run->options->retry;
    if (longest <= 0 || worker->step >= FC_STEP_CLOSE)
        return false;
    longest *= 1u << link->attempts;
    if (link->attempts < DOUBLINGS)
        link->attempts++;
    double pause = longest * fc_link_mask(&worker->io) / 4294967296.0;
    link->role |= FC_ROLE_WAITING;
    fc_counter_add(&worker->counters.waiting, 1);
    fc_timers_add(&worker->retries, fc_link_now() + (uint64_t)(pause * 1e9),
                  (uint32_t)(link - worker->links));
    return true;
}

static void give_up(struct fc_worker *worker, struct fc_link *link, const char *reason)
{
    link->role |= FC_ROLE_ABANDONED;
    worker->unsettled--;
    fc_counter_add(&worker->counters.failed, 1);
    add_to(worker, &worker->failures, reason);
}

void fc_opening_opened(void *owner, struct fc_link *link)
{
    struct fc_worker *worker = owner;
    uint64_t now = fc_link_now();
    uint64_t took = now - link->since_ns;
    fc_histogram_add(&worker->histograms.handshake, took);
    fc_counter_drop(&worker->counters.handshakes);
    fc_counter_add(&worker->counters.open, 1);
    link->attempts = 0;
    if ((link->role & FC_ROLE_MADE) == 0) {
        link->role |= FC_ROLE_MADE;
        worker->unsettled--;
        fc_counter_add(&worker->counters.made, 1);
    } else if ((link->role & FC_ROLE_REOPENED) != 0) {
        worker->churn_reopened++;
        worker->reopening--;
    } else if ((link->role & FC_ROLE_ABSENT) != 0) {
        worker->absent--;
        worker->storm_back++;
        fc_histogram_add(&worker->histograms.storm_handshake, took);
        fc_histogram_add(&worker->histograms.storm_back, now - worker->step_ns);
    } else {
        worker->reconnected++;
    }
    link->role &= (uint16_t) ~(FC_ROLE_REOPENED | FC_ROLE_ABSENT);
}

void fc_opening_refused(void *owner, struct fc_link *link, const char *reason)
{
    struct fc_worker *worker = owner;
    worker->sockets--;
    fc_counter_drop(&worker->counters.handshakes);
    if (worker->step == FC_STEP_STORM)
        fc_load_tally_add(&worker->storm_refused, reason, 1);
    if (try_again(worker, link)) {
        add_to(worker, &worker->retried, reason);
        return;
    }
    if ((link->role & FC_ROLE_MADE) == 0) {
        give_up(worker, link, reason);
        return;
    }
    if ((link->role & FC_ROLE_REOPENED) != 0) {
        worker->churn_failed++;
        worker->reopening--;
    }
    worker->absent -= (link->role & FC_ROLE_ABSENT) != 0;
    link->role &= (uint16_t) ~(FC_ROLE_REOPENED | FC_ROLE_ABSENT);
    add_to(worker, &worker->failures, reason);
}

void fc_opening_lost(struct fc_worker *worker, struct fc_link *link)
{
    try_again(worker, link);
}

uint64_t fc_opening_retry(struct fc_worker *worker)
{
    uint32_t index;
    for (uint32_t begun = 0; begun < VISIT; begun++) {
        if (!fc_timers_take(&worker->retries, fc_link_now(), &index))
            break;
        worker->links[index].role &= (uint16_t)~FC_ROLE_WAITING;
        fc_counter_drop(&worker->counters.waiting);
        attempt(worker, index, 0);
    }
    return fc_timers_due(&worker->retries);
}

static void wake_all(struct fc_worker *worker)
{
    for (uint32_t i = 0; i < worker->run->threads; i++)
        fc_worker_wake(&worker->run->workers[i]);
}

static uint32_t window_share(const struct fc_worker *worker)
{
    uint32_t window = worker->run->options->connect_window;
    uint32_t threads = worker->run->threads;
    uint32_t mine = window / threads + (worker->id < window % threads);
    return mine > 0 ? mine : 1;
}

uint64_t fc_opening_connect(struct fc_worker *worker)
{
    struct fc_arrivals *arrivals = &worker->run->arrivals;
    uint32_t window = window_share(worker);
    uint64_t now = fc_link_now();
    for (uint32_t begun = 0; worker->cursor < worker->count; begun++) {
        uint32_t number = number_of(worker, worker->cursor);
        if (fc_arrivals_pass(arrivals, &worker->batch, number, now))
            wake_all(worker);
        uint64_t due = fc_arrivals_due(arrivals, worker->batch, number);
        /* A rate is kept whatever becomes of those on their way: the window is for those without. */
        bool rated = arrivals->batches[worker->batch].rate > 0;
        if (!rated && fc_counter_read(&worker->counters.handshakes) >= window)
            return UINT64_MAX;
        if (begun == VISIT || due > now)
            return due;
        /* In time, not when this thread came to it: a late start is part of what a client has to wait. */
        attempt(worker, worker->cursor++, rated ? due : 0);
    }
    if (fc_arrivals_pass(arrivals, &worker->batch, UINT32_MAX, now))
        wake_all(worker);
    worker->step_done = worker->unsettled == 0;
    return UINT64_MAX;
}

uint64_t fc_opening_churn(struct fc_worker *worker)
{
    double rate = worker->run->options->churn / worker->run->threads;
    uint64_t now = fc_link_now();
    while (worker->reopen_used > 0) {
        uint32_t index = worker->reopen[--worker->reopen_used];
        worker->links[index].role |= FC_ROLE_UNPLACED;
        attempt(worker, index, 0);
    }
    if (rate <= 0 || worker->churn_first == worker->churn_end || worker->step_done)
        return UINT64_MAX;
    if (worker->churn_due == 0)
        worker->churn_due = now;
    for (uint32_t looked = worker->churn_first; looked < worker->churn_end && worker->churn_due <= now;
         looked++) {
        struct fc_link *link = &worker->links[worker->churn_next++];
        if (worker->churn_next == worker->churn_end)
            worker->churn_next = worker->churn_first;
        if (link->state == FC_LINK_OPEN) {
            link->role |= FC_ROLE_REOPENED;
            worker->reopening++;
            fc_link_close(&worker->io, link, 1000);
            worker->churn_due += (uint64_t)(1e9 / rate);
        }
    }
    /* When all churning connections are on their way, there is none to wait for but by looking again. */
    return worker->churn_due > now ? worker->churn_due : now + 1000000;
}

void fc_opening_storm(struct fc_worker *worker)
{
    bool reset = worker->run->options->storm_reset;
    worker->dropping = true;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        if (link->state != FC_LINK_OPEN)
            continue;
        link->role |= FC_ROLE_ABSENT;
        worker->absent++;
        worker->storm_dropped++;
        if (reset)
            fc_link_reset(&worker->io, link, "dropped");
        else
            fc_link_abort(&worker->io, link, "dropped");
    }
    worker->dropping = false;
}

uint64_t fc_opening_return(struct fc_worker *worker)
{
    /* No window: those who lost their server do not queue up to come back. */
    for (uint32_t begun = 0; worker->cursor < worker->count; worker->cursor++) {
        const struct fc_link *link = &worker->links[worker->cursor];
        if ((link->role & FC_ROLE_ABSENT) == 0 || (link->role & FC_ROLE_WAITING) != 0 ||
            link->state != FC_LINK_NONE) {
            continue;
        }
        if (begun++ == VISIT)
            return 0;
        attempt(worker, worker->cursor, 0);
    }
    worker->step_done = worker->absent == 0;
    return UINT64_MAX;
}

void fc_opening_abandon(struct fc_worker *worker)
{
    for (uint32_t i = 0; i < worker->count && worker->unsettled > 0; i++) {
        struct fc_link *link = &worker->links[i];
        if (link->state == FC_LINK_NONE && (link->role & (FC_ROLE_MADE | FC_ROLE_ABANDONED)) == 0)
            give_up(worker, link,
                    (link->role & FC_ROLE_WAITING) != 0 ? "still waiting to try again" : "never begun");
    }
}
