/* What a shard looks after from time to time: time-outs, pings, memory, its own scheduling.
 *
 * The table is swept in steps, so that no step takes long, and no client needs a timer. Owned by the shard's
 * thread.
 */
#include "sweep.h"

#include "conn.h"
#include "write.h"

#include <sched.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define STEPS 4
#define LINGER_MS 1000
#define STORM 4           /* requests that wait for Python */
#define SLICE 512         /* slots in a round */
#define TRIM_WORTH 256    /* messages */
#define TRIM_QUIET_MS 2000
#define TRIM_BUSY_MS 10000

/* Only between these two, so that a policy that somebody has chosen stays. It's a matter of efficiency, and may be
 * refused. */
static bool change_policy(int from, int to)
{
    const struct sched_param none = {0};

    return sched_getscheduler(0) == from && sched_setscheduler(0, to, &none) == 0;
}

/* When many connect at once, each answer of Python's would wake us at once and take the processor from it, to deal with
 * a single client. As a batch thread we don't preempt, and answers gather: a third less CPU for each connection. In
 * quieter times we'd rather be quick. */
void fc_sweep_brace(struct fc_shard *shard)
{
    if (!shard->braced && fc_shard_asked(shard) >= STORM)
        shard->braced = change_policy(SCHED_OTHER, SCHED_BATCH);
}

static void relax(struct fc_shard *shard)
{
    if (shard->braced && fc_shard_asked(shard) < STORM)
        shard->braced = !change_policy(SCHED_BATCH, SCHED_OTHER);
}

static void give_up(struct fc_shard *shard, uint32_t slot)
{
    fc_count(&shard->counters.dead, 1);
    fc_conn_abort(shard, slot);
}

/* Nobody is given up who hasn't been pinged: after a standstill of the whole machine, everyone looks silent. */
static void sweep_open(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    const struct fc_options *options = &shard->exchange->options;

    if (options->ping_interval == 0)
        return;
    if (client->pinged) {
        if (fc_shard_silent_for(shard, client, options->ping_timeout))
            give_up(shard, slot);
    } else if (!client->queue) {
        if (fc_shard_silent_for(shard, client, options->ping_interval))
            fc_conn_ping(shard, slot);
    } else if (fc_shard_silent_for(shard, client, (uint64_t)options->ping_interval + options->ping_timeout)) {
        /* Who lags shows life by taking what waits; a Ping would wait like everything else. */
        give_up(shard, slot);
    }
}

/* Too late: by its fault, or because there are too many for us, and those who came after it go first. */
static void end_head(struct fc_shard *shard, const struct fc_client *client, uint32_t slot)
{
    bool ours = client->ready;

    fc_count(ours ? &shard->counters.shed : &shard->counters.handshake_timeouts, 1);
    fc_conn_respond(shard, slot, ours ? shard->exchange->options.full : shard->exchange->options.timeout);
}

static void sweep_closing(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    /* Its Close may be among what we don't read for now. */
    if (client->unread && fc_exchange_congested(shard->exchange))
        return;
    if (fc_shard_silent_for(shard, client, shard->exchange->options.close_timeout))
        give_up(shard, slot);
}

static void sweep_client(struct fc_shard *shard, uint32_t slot)
{
    const struct fc_options *options = &shard->exchange->options;
    struct fc_client *client = fc_shard_client(shard, slot);

    /* A write that met a want of memory isn't followed by an event. */
    if (client->queue) {
        uint64_t id = fc_shard_id(shard, client, slot);
        fc_write_queued(shard, slot);
        if (fc_clients_find(&shard->clients, id) != client)
            return;
    }
    switch (client->state) {
    case FC_CLIENT_HEAD:
        if (client->ready && fc_conn_has_given_up(shard, client)) /* at first it might have been a habit */
            fc_conn_shed(shard, slot);
        else if (fc_shard_silent_for(shard, client, options->handshake_timeout))
            end_head(shard, client, slot);
        break;
    case FC_CLIENT_ASKED:
        if (fc_shard_silent_for(shard, client, 2 * (uint64_t)options->handshake_timeout)) {
            fc_count(&shard->counters.handshake_timeouts, 1);
            fc_conn_respond(shard, slot, options->full);
        }
        break;
    case FC_CLIENT_OPEN:
        sweep_open(shard, client, slot);
        break;
    case FC_CLIENT_LINGER:
        /* All is said, and the client's end of TCP is but a courtesy: not worth a long wait. */
        if (fc_shard_silent_for(shard, client, options->close_timeout < LINGER_MS ? options->close_timeout : LINGER_MS))
            fc_conn_drop(shard, slot);
        break;
    default:
        sweep_closing(shard, client, slot);
    }
}

/* Each slot is looked at four times within the shortest time-out, and at least once a second. */
static uint64_t sweep_step_ms(const struct fc_shard *shard)
{
    const struct fc_options *options = &shard->exchange->options;
    uint64_t shortest = 4000;

    if (options->handshake_timeout < shortest)
        shortest = options->handshake_timeout;
    if (options->ping_interval > 0 && options->ping_interval < shortest)
        shortest = options->ping_interval;
    if (options->ping_interval > 0 && options->ping_timeout < shortest)
        shortest = options->ping_timeout;
    if (options->close_timeout < shortest)
        shortest = options->close_timeout;
    uint64_t step = shortest / 4 / STEPS;
    return step < FC_TICK_MS / 4 ? FC_TICK_MS / 4 : step;
}

/* After a burst of messages or connections glibc keeps what was freed, in an arena for each thread. One shard gives it
 * back to the system when the hub has fallen quiet, and if it never does, now and then. */
static void trim_memory(struct fc_shard *shard)
{
#ifdef __GLIBC__
    uint64_t made = atomic_load_explicit(&shard->exchange->account.made, memory_order_relaxed);
    bool quiet = made == shard->made_before;

    shard->made_before = made;
    if (shard->index != 0 || made - shard->made_trimmed < TRIM_WORTH)
        return;
    if (shard->now - shard->trimmed_at < (quiet ? TRIM_QUIET_MS : TRIM_BUSY_MS))
        return;
    malloc_trim(0);
    shard->made_trimmed = made;
    shard->trimmed_at = shard->now;
#else
    (void)shard;
#endif
}

/* The sweep goes on without clients, until what they have left behind is given back. */
bool fc_sweep_wanted(const struct fc_shard *shard)
{
    return shard->clients.count > 0 ||
           (shard->index == 0 &&
            atomic_load_explicit(&shard->exchange->account.made, memory_order_relaxed) - shard->made_trimmed >=
                TRIM_WORTH);
}

static void begin_step(struct fc_shard *shard, uint32_t end)
{
    uint32_t chunks = end / FC_CHUNK_SLOTS;

    shard->sweep_left = (chunks + STEPS - 1) / STEPS * FC_CHUNK_SLOTS;
    shard->sweep_at = shard->now + sweep_step_ms(shard);
    relax(shard);
    trim_memory(shard);
}

void fc_sweep_some(struct fc_shard *shard)
{
    uint32_t end = fc_clients_end(&shard->clients);

    if (shard->sweep_left == 0)
        begin_step(shard, end);
    for (unsigned budget = SLICE; budget > 0 && shard->sweep_left > 0; budget--, shard->sweep_left--) {
        if (shard->sweep_slot >= end)
            shard->sweep_slot = 0;
        if (fc_clients_used(&shard->clients, shard->sweep_slot))
            sweep_client(shard, shard->sweep_slot);
        shard->sweep_slot++;
    }
}
