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

#define MOST_SECONDS 1e9 /* 31 years: what fits into nanoseconds */

/* An exponential pause is longer than so many of its means once in a billion times. */
#define LONGEST_THOUGHT 23

void fc_load_options_init(struct fc_load_options *options)
{
    *options = (struct fc_load_options){
        .connections = 1000,
        .connect_window = 256,
        .handshake_timeout = 30,
        .senders = 1,
        .messages = 100,
        .in_flight = 1,
        .size = 128,
        .settle = 0.2,
        .timeout = 60,
        .patience = 10,
        .interval = 0.5,
    };
}

static bool is_time(double seconds)
{
    return seconds >= 0 && seconds <= MOST_SECONDS;
}

static bool is_rate(double rate)
{
    return rate == 0 || (rate >= 1 / MOST_SECONDS && rate <= 1e9);
}

static const char *contradiction_in_connecting(const struct fc_load_options *options)
{
    uint64_t arriving = 0;
    for (uint32_t i = 0; i < options->arrivals_used; i++) {
        arriving += options->arrivals[i].count;
        if (options->arrivals[i].count == 0 || !is_rate(options->arrivals[i].rate))
            return "each batch of arrivals needs a count, and a rate that is not negative";
    }
    if (options->url == NULL)
        return "a URL is needed";
    if (options->connections == 0)
        return "at least one connection is needed";
    if (options->threads > MAX_THREADS)
        return "too many threads";
    if (options->arrivals_used > 0 && arriving != options->connections)
        return "the counts of the arrivals do not add up to the connections";
    if (options->arrivals_used > 0 && options->connect_rate != 0)
        return "arrivals have rates of their own: there is no connect_rate beside them";
    if (options->connect_window == 0)
        return "the window of handshakes must be at least 1";
    if (options->stalled > options->connections)
        return "stalled connections are more than the connections";
    return NULL;
}

static const char *contradiction_in_messages(const struct fc_load_options *options)
{
    uint64_t senders = fc_plan_senders(options);
    bool shared = options->senders_total != 0 || options->sender_base != 0;
    if (options->senders > options->connections - options->stalled)
        return "senders and stalled connections are more than the connections";
    if (options->senders == 0 && options->messages > 0 && !shared)
        return "without a sender there are no messages";
    if (shared && (uint64_t)options->sender_base + options->senders > options->senders_total)
        return "the numbers of this run's senders go beyond senders_total";
    if (shared && options->expect != FC_LOAD_EXPECT_ALL)
        return "senders of other processes are expected only where everybody receives everything";
    if (options->expect != FC_LOAD_EXPECT_ALL && options->churn > 0)
        return "churn is only judged where everybody receives everything";
    if (senders * options->messages >= UINT32_MAX)
        return "senders times messages is 4294967295 or more";
    if (options->in_flight == 0 || options->in_flight > MAX_WINDOW)
        return "the window of messages must be at least 1, and at most 65536";
    if (options->size < (options->text ? FC_PAYLOAD_MIN_TEXT : FC_PAYLOAD_MIN_BINARY) ||
        options->size > MAX_SIZE) {
        return "the size of a message is at least 32 bytes (text: 64), and at most 256 MiB";
    }
    if (options->think > 0 && options->rate > 0)
        return "with a rate there is no time to think: the rate says when each message is due";
    return NULL;
}

const char *fc_plan_contradiction(const struct fc_load_options *options)
{
    if (!is_rate(options->rate) || !is_rate(options->connect_rate) || !is_rate(options->churn))
        return "a rate cannot be negative";
    if (!is_time(options->hold) || !is_time(options->settle) || !is_time(options->think) ||
        !is_time(options->retry) || !is_time(options->timeout) || !is_time(options->patience) ||
        !is_time(options->handshake_timeout) || !is_time(options->interval)) {
        return "a time cannot be negative";
    }
    if (options->timeout == 0 || options->patience == 0 || options->handshake_timeout == 0 ||
        options->interval == 0) {
        return "a time-out and an interval must be more than 0";
    }
    const char *found = contradiction_in_connecting(options);
    return found != NULL ? found : contradiction_in_messages(options);
}

uint32_t fc_plan_senders(const struct fc_load_options *options)
{
    return options->senders_total > 0 ? options->senders_total : options->senders;
}

double fc_plan_patience(const struct fc_load_options *options)
{
    double pause = options->think_fixed ? options->think : LONGEST_THOUGHT * options->think;
    return options->patience + pause + (options->rate > 0 ? 1 / options->rate : 0);
}

uint32_t fc_plan_churners(const struct fc_load_options *options)
{
    uint32_t free = options->connections - options->senders - options->stalled;
    uint32_t wanted = options->churn > free ? free : (uint32_t)(options->churn + 0.999);
    return wanted > free / 2 ? free / 2 : wanted;
}

uint32_t fc_plan_table(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= UINT32_MAX)
        return UINT32_MAX;
    uint32_t places = (uint32_t)limit.rlim_cur;
    return places > 2 * RESERVED_FDS ? places - RESERVED_FDS : places / 2 + 1;
}

uint32_t fc_plan_table_reserve(void)
{
    return RESERVED_FDS;
}

uint32_t fc_plan_threads(const struct fc_load_options *options)
{
    uint32_t needed = (options->connections - 1) / fc_plan_table() + 1;
    uint32_t threads = options->threads > 0 ? options->threads : needed > 2 ? needed : 2;
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    return threads < options->connections ? threads : options->connections;
}
