/*
 * closing.c - closing handshakes, unexpected ends, and time-outs.  The worker's own thread.
 */
#include "closing.h"

#include "judge.h"
#include "opening.h"

#define ANSWER_NS 5000000000u /* for the server's Close */
#define LINGER_NS 1000000000u /* for the end of TCP after it: the server goes first (section 7.1.1) */

/* Closing handshakes in progress in one worker: enough to keep a server busy however many workers there are,
 * few enough for it to answer in time. */
#define WINDOW 64u

void fc_closing_closed(void *owner, struct fc_link *link, uint16_t code, bool asked)
{
    struct fc_worker *worker = owner;
    bool closing = worker->step >= FC_STEP_CLOSE;
    char name[8];
    worker->sockets--;
    fc_counter_drop(&worker->counters.open);
    if (worker->dropping)
        return;
    if (link->deaf) {
        worker->stalled_closed += !closing;
        return;
    }
    snprintf(name, sizeof name, "%u", code);
    fc_load_tally_add(&worker->closes, name, 1);
    fc_judge_leave(worker, link);
    if (closing) {
        worker->closing -= asked;
        worker->unanswered += asked && code == 1006;
    } else if (!asked) {
        /* The server broke the protocol while it was being closed: it has been lost like any other. */
        worker->reopening -= (link->role & FC_ROLE_REOPENED) != 0;
        link->role &= (uint16_t)~FC_ROLE_REOPENED;
        fc_counter_add(&worker->counters.lost, 1);
        fc_worker_note(worker, "a connection was closed unexpectedly with code", code);
        fc_opening_lost(worker, link);
    } else {
        worker->churn_closed++;
        if (worker->step == FC_STEP_MESSAGES)
            worker->reopen[worker->reopen_used++] = (uint32_t)(link - worker->links);
    }
}

void fc_closing_begin(struct fc_worker *worker)
{
    fc_opening_abandon(worker);
    worker->closing = 0;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        if (link->state == FC_LINK_CONNECTING || link->state == FC_LINK_REQUESTED)
            fc_link_abort(&worker->io, link, "no answer until the end");
        else if (link->state == FC_LINK_OPEN && link->deaf)
            fc_link_abort(&worker->io, link, "stalled");
        worker->closing += link->state == FC_LINK_CLOSING || link->state == FC_LINK_CLOSED;
    }
}

void fc_closing_continue(struct fc_worker *worker)
{
    while (worker->cursor < worker->count && worker->closing < WINDOW) {
        struct fc_link *link = &worker->links[worker->cursor++];
        if (link->state == FC_LINK_OPEN) {
            worker->closing++;
            fc_link_close(&worker->io, link, 1000);
        }
    }
    worker->step_done = worker->cursor == worker->count && worker->sockets == 0;
}

void fc_closing_sweep(struct fc_worker *worker)
{
    uint64_t now = fc_link_now();
    uint64_t handshake_ns = (uint64_t)(worker->run->options->handshake_timeout * 1e9);
    for (uint32_t looked = worker->count / FC_CLOSING_SWEEPS + 1; looked > 0; looked--) {
        struct fc_link *link = &worker->links[worker->swept];
        worker->swept = worker->swept + 1 < worker->count ? worker->swept + 1 : 0;
        if (link->state == FC_LINK_NONE || link->state == FC_LINK_OPEN)
            continue;
        uint64_t limit = link->state == FC_LINK_CLOSED    ? LINGER_NS
                         : link->state == FC_LINK_CLOSING ? ANSWER_NS
                                                          : handshake_ns;
        if (now > link->since_ns + limit)
            fc_link_abort(&worker->io, link, "handshake timed out");
    }
}
