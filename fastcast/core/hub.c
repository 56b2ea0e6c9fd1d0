/* The hub: makes the shards, and outlives them.
 *
 * Fds: listeners, wake-ups and doors are made in the process's table, before the threads start. A thread
 * with a table of its own has copies of those that it needs; ours of its listeners and of its end of the door are then
 * closed, so that they live exactly as long as the thread wants. Called from any thread; the functions that create,
 * start and destroy are for one thread at a time.
 */
#include "hub.h"

#include "clock.h"
#include "shard.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Enough for the events and vectors on a shard's stack, also with sanitizers. */
#define STACK_SIZE ((size_t)512 * 1024)

/* ---- making ---- */

static uint8_t *copy_span(struct fc_span *span, uint8_t *out)
{
    if (span->length > 0)
        memcpy(out, span->bytes, span->length);
    span->bytes = out;
    return out + span->length;
}

/* Everything that the options point to goes into memory of our own: listeners, rules with their names, responses. */
static int copy_options(struct fc_hub *hub, struct fc_options *options)
{
    struct fc_span *responses[] = {&options->timeout, &options->too_large, &options->full, &options->too_many};
    size_t listeners = (size_t)options->shards * options->listeners_each;
    size_t bytes = 0;

    for (unsigned i = 0; i < 4; i++)
        bytes += responses[i]->length;
    for (unsigned i = 0; i < options->rule_count; i++)
        bytes += options->rules[i].channels.length;
    hub->bytes = malloc(bytes + 1);
    hub->rules = malloc((options->rule_count + 1) * sizeof *hub->rules);
    hub->listeners = malloc((listeners + 1) * sizeof *hub->listeners);
    if (!hub->bytes || !hub->rules || !hub->listeners)
        return -ENOMEM;
    uint8_t *out = hub->bytes;
    for (unsigned i = 0; i < 4; i++)
        out = copy_span(responses[i], out);
    for (unsigned i = 0; i < options->rule_count; i++) {
        hub->rules[i] = options->rules[i];
        out = copy_span(&hub->rules[i].channels, out);
    }
    memcpy(hub->listeners, options->listeners, listeners * sizeof *hub->listeners);
    options->listeners = hub->listeners;
    options->rules = hub->rules;
    return 0;
}

static void free_copies(struct fc_hub *hub)
{
    free(hub->bytes);
    free(hub->rules);
    free(hub->listeners);
}

static int make_doors(struct fc_hub *hub)
{
    struct fc_exchange *exchange = &hub->exchange;

    exchange->doors = malloc(exchange->shards * sizeof *exchange->doors);
    if (!exchange->doors)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++)
        exchange->doors[i] = -1;
    for (unsigned i = 0; i < exchange->shards; i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends))
            return -errno;
        exchange->doors[i] = ends[0];
        hub->shards[i]->door = ends[1];
    }
    return 0;
}

static int make_shards(struct fc_hub *hub)
{
    struct fc_exchange *exchange = &hub->exchange;

    hub->shards = calloc(exchange->shards, sizeof *hub->shards);
    if (!hub->shards)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++) {
        struct fc_shard *shard = calloc(1, sizeof *shard);
        if (!shard)
            return -ENOMEM;
        shard->exchange = exchange;
        shard->index = i;
        shard->listeners = hub->listeners + (size_t)i * exchange->options.listeners_each;
        shard->door = -1;
        shard->backend = "none";
        hub->shards[i] = shard;
    }
    return make_doors(hub);
}

int fc_hub_create(struct fc_hub **created, const struct fc_options *given)
{
    struct fc_options options = *given;

    if (options.shards < 1 || options.shards > FC_SHARD_MAX || options.listeners_each < 1 ||
        options.max_message == 0 || options.max_head == 0 || options.rule_count > FC_RULES_MAX - 1)
        return -EINVAL;
    struct fc_hub *hub = calloc(1, sizeof *hub);
    if (!hub)
        return -ENOMEM;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->changed, NULL);
    int error = copy_options(hub, &options);
    if (!error)
        error = fc_exchange_init(&hub->exchange, &options);
    if (error) {
        free_copies(hub);
        free(hub);
        return error;
    }
    error = make_shards(hub);
    if (error) {
        hub->exchange.options.listeners_each = 0; /* they stay the caller's */
        fc_hub_destroy(hub);
        return error;
    }
    *created = hub;
    return 0;
}

/* ---- starting ---- */

static void report(void *context)
{
    struct fc_hub *hub = context;

    pthread_mutex_lock(&hub->lock);
    hub->reported++;
    pthread_cond_signal(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
}

struct start {
    struct fc_hub *hub;
    struct fc_shard *shard;
};

static void *thread_main(void *argument)
{
    struct start start = *(struct start *)argument;

    free(argument);
    fc_shard_run(start.shard, report, start.hub);
    return NULL;
}

static int start_thread(struct fc_hub *hub, struct fc_shard *shard)
{
    struct start *start = malloc(sizeof *start);
    pthread_attr_t attributes;

    if (!start)
        return -ENOMEM;
    *start = (struct start){hub, shard};
    shard->listening = true;
    atomic_fetch_add(&hub->exchange.running, 1);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    int error = pthread_create(&shard->thread, &attributes, thread_main, start);
    pthread_attr_destroy(&attributes);
    if (error) {
        atomic_fetch_sub(&hub->exchange.running, 1);
        free(start);
        return -error;
    }
    hub->threads++;
    return 0;
}

/* Ours is a copy when the thread has a table of its own; in the shared table, it's the thread's as well. */
static void close_copies(struct fc_hub *hub)
{
    for (unsigned i = 0; i < hub->threads; i++) {
        struct fc_shard *shard = hub->shards[i];
        if (!shard->private_table)
            continue;
        for (unsigned k = 0; k < hub->exchange.options.listeners_each; k++)
            close(shard->listeners[k]);
        close(shard->door);
    }
}

static void end_threads(struct fc_hub *hub)
{
    if (hub->threads > hub->joined)
        fc_hub_stop(hub, 0);
    while (hub->joined < hub->threads)
        pthread_join(hub->shards[hub->joined++]->thread, NULL);
}

int fc_hub_start(struct fc_hub *hub)
{
    sigset_t all;
    sigset_t before;
    int error = 0;

    if (hub->threads > 0)
        return -EALREADY;
    /* Signals are Python's: a thread starts with the mask of its creator. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < hub->exchange.shards && !error; i++)
        error = start_thread(hub, hub->shards[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    pthread_mutex_lock(&hub->lock);
    while (hub->reported < hub->threads)
        pthread_cond_wait(&hub->changed, &hub->lock);
    pthread_mutex_unlock(&hub->lock);

    for (unsigned i = 0; i < hub->threads && !error; i++)
        error = hub->shards[i]->start_error;
    close_copies(hub);
    if (error)
        end_threads(hub);
    return error;
}

/* ---- ending ---- */

void fc_hub_stop(struct fc_hub *hub, uint32_t timeout)
{
    static const struct fc_command stop = {.kind = FC_COMMAND_STOP};
    struct fc_exchange *exchange = &hub->exchange;
    unsigned long long deadline = fc_clock_ms() + timeout;
    unsigned long long before = atomic_load(&exchange->deadline);

    while ((before == 0 || deadline < before) &&
           !atomic_compare_exchange_weak(&exchange->deadline, &before, deadline))
        continue;
    atomic_store(&exchange->stopping, true);
    for (unsigned i = 0; i < exchange->shards; i++) {
        /* Short of memory for a command that frees everything: it must be got through. */
        while (fc_exchange_command(exchange, i, &stop, 1, 0))
            sched_yield();
    }
}

void fc_hub_destroy(struct fc_hub *hub)
{
    struct fc_exchange *exchange = &hub->exchange;

    end_threads(hub);
    for (unsigned i = 0; hub->shards && i < exchange->shards && hub->shards[i]; i++) {
        struct fc_shard *shard = hub->shards[i];
        bool ran = i < hub->threads;
        bool ran_apart = ran && shard->private_table;
        if (!ran_apart && (!ran || shard->listening)) {
            for (unsigned k = 0; k < exchange->options.listeners_each; k++)
                close(shard->listeners[k]);
        }
        if (!ran_apart && shard->door >= 0)
            close(shard->door);
        if (exchange->doors && exchange->doors[i] >= 0)
            close(exchange->doors[i]);
        free(shard);
    }
    free(hub->shards);
    free(exchange->doors);
    fc_exchange_destroy(exchange);
    free_copies(hub);
    pthread_cond_destroy(&hub->changed);
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}

/* ---- what it tells of itself ---- */

unsigned fc_hub_running(struct fc_hub *hub)
{
    return atomic_load(&hub->exchange.running);
}

unsigned fc_hub_shards(const struct fc_hub *hub)
{
    return hub->exchange.shards;
}

uint64_t fc_hub_capacity(struct fc_hub *hub)
{
    uint64_t capacity = 0;

    for (unsigned i = 0; i < hub->exchange.shards; i++)
        capacity += hub->shards[i]->capacity;
    return capacity < hub->exchange.options.max_connections ? capacity : hub->exchange.options.max_connections;
}

const char *fc_hub_backend(struct fc_hub *hub)
{
    return hub->shards[0]->backend;
}

int fc_hub_uring_error(struct fc_hub *hub)
{
    return hub->shards[0]->uring_error;
}

bool fc_hub_private_tables(struct fc_hub *hub)
{
    for (unsigned i = 0; i < hub->exchange.shards; i++) {
        if (!hub->shards[i]->private_table)
            return false;
    }
    return true;
}

void fc_hub_read_stats(struct fc_hub *hub, struct fc_hub_stats *stats)
{
    struct fc_exchange *exchange = &hub->exchange;

    pthread_mutex_lock(&exchange->channels.lock);
    stats->channels = exchange->channels.count;
    pthread_mutex_unlock(&exchange->channels.lock);
    stats->messages = atomic_load_explicit(&exchange->account.messages, memory_order_relaxed);
    stats->message_bytes = atomic_load_explicit(&exchange->account.bytes, memory_order_relaxed);
    stats->threads = atomic_load(&exchange->running);
    stats->published = atomic_load_explicit(&hub->published, memory_order_relaxed);
    stats->history_messages = atomic_load_explicit(&exchange->histories.messages, memory_order_relaxed);
    stats->history_bytes = atomic_load_explicit(&exchange->histories.bytes, memory_order_relaxed);
    pthread_mutex_lock(&exchange->histories.lock);
    stats->histories = exchange->histories.count;
    pthread_mutex_unlock(&exchange->histories.lock);
}

void fc_hub_read_shard_stats(struct fc_hub *hub, unsigned shard, struct fc_shard_stats *stats)
{
    const struct fc_counters *counters = &hub->shards[shard]->counters;

#define FC_COPY(name) stats->name = atomic_load_explicit(&counters->name, memory_order_relaxed);
    FC_COUNTERS(FC_COPY)
    FC_GAUGES(FC_COPY)
#undef FC_COPY
    stats->capacity = hub->shards[shard]->capacity;
}
