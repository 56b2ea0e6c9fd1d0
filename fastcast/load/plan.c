/*
 * plan.c - defaults, limits and what follows from the options.  Pure functions of their arguments and of the
 * process's descriptor limit, any thread.
 */
#include "plan.h"

#include "payload.h"

#include <sys/resource.h>

#define MAX_THREADS 256u
#define RESERVED_FDS (MAX_THREADS + 64u) /* the threads' wake descriptors, and the process's own */
#define MAX_WINDOW 65536u
#define MAX_SIZE ((uint32_t)256 << 20)

void fc_load_options_init(struct fc_load_options *options)
{
    *options = (struct fc_load_options){
        .connections = 1000,
        .connect_window = 256,
        .senders = 1,
        .messages = 100,
        .in_flight = 1,
        .size = 128,
        .settle = 0.2,
        .timeout = 60,
        .patience = 10,
    };
}

const char *fc_plan_contradiction(const struct fc_load_options *options)
{
    uint64_t total = (uint64_t)options->senders * options->messages;
    if (options->url == NULL)
        return "a URL is needed";
    if (options->connections == 0)
        return "at least one connection is needed";
    if (options->threads > MAX_THREADS)
        return "too many threads";
    if (options->senders == 0 || options->senders > options->connections)
        return "there must be between one and as many senders as connections";
    if (options->stalled > options->connections - options->senders)
        return "senders and stalled connections are more than the connections";
    if (total >= UINT32_MAX)
        return "senders times messages is too much";
    if (options->in_flight == 0 || options->in_flight > MAX_WINDOW || options->connect_window == 0)
        return "a window must be at least 1, and that of messages at most 65536";
    if (options->size < (options->text ? FC_PAYLOAD_MIN_TEXT : FC_PAYLOAD_MIN_BINARY) ||
        options->size > MAX_SIZE) {
        return "the size of a message is at least 32 bytes (text: 64), and at most 256 MiB";
    }
    if (!(options->rate >= 0) || !(options->connect_rate >= 0) || !(options->churn >= 0))
        return "a rate cannot be negative";
    if (!(options->hold >= 0) || !(options->settle >= 0) || !(options->timeout > 0) ||
        !(options->patience > 0)) {
        return "a time cannot be negative, and a time-out must be more than 0";
    }
    return NULL;
}

uint32_t fc_plan_churners(const struct fc_load_options *options)
{
    uint32_t free = options->connections - options->senders - options->stalled;
    uint32_t wanted = options->churn > free ? free : (uint32_t)(options->churn + 0.999);
    return wanted > free / 2 ? free / 2 : wanted;
}

uint32_t fc_plan_threads(const struct fc_load_options *options)
{
    struct rlimit limit;
    uint32_t per_thread = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < UINT32_MAX
                              ? (uint32_t)limit.rlim_cur
                              : UINT32_MAX;
    per_thread = per_thread > 2 * RESERVED_FDS ? per_thread - RESERVED_FDS : per_thread / 2 + 1;
    uint32_t needed = (options->connections - 1) / per_thread + 1;
    uint32_t threads = options->threads > 0 ? options->threads : needed > 2 ? needed : 2;
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    return threads < options->connections ? threads : options->connections;
}
