/*
 * load.c - the coordinating thread of a run: starts the workers, leads them from step to
 * step, takes the measurements between steps and adds the results up.
 *
 * Everything of a run is allocated and freed here, by the thread that called fc_load_run().  Workers are
 * joined before their results are read.
 */
#include "load.h"

#include "plan.h"
#include "probe.h"
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 100
#define CLOSE_SECONDS 10.0
#define BUSY 0.85

/* A run and what the coordinating thread alone knows of it. */
struct conductor {
    struct fc_run run;
    const struct fc_load_options *options;
    struct fc_load_report *report;
    uint64_t deadline_ns;
    bool cancelled;
    enum fc_load_phase phase;
    uint64_t phase_ns;
    double client_before;
    uint32_t started;
    double *thread_before; /* of each worker */
    struct fc_probe_cpu *before;
    struct fc_probe_cpu *after;
};

static void add_error(struct fc_load_report *report, const char *text)
{
    for (unsigned i = 0; i < report->errors_used; i++)
        if (strcmp(report->errors[i], text) == 0)
            return;
    if (report->errors_used < FC_LOAD_ERRORS)
        snprintf(report->errors[report->errors_used++], sizeof *report->errors, "%s", text);
}

static uint64_t sum(const struct conductor *conductor, size_t offset)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < conductor->started; i++) {
        const char *worker = (const char *)&conductor->run.workers[i];
        total += atomic_load_explicit((const _Atomic uint64_t *)(const void *)(worker + offset),
                                      memory_order_relaxed);
    }
    return total;
}

static struct fc_load_progress progress_of(const struct conductor *conductor)
{
    return (struct fc_load_progress){
        .phase = conductor->phase,
        .made = sum(conductor, offsetof(struct fc_worker, made)),
        .failed = sum(conductor, offsetof(struct fc_worker, failed)),
        .sent = sum(conductor, offsetof(struct fc_worker, sent)),
        .received = sum(conductor, offsetof(struct fc_worker, received)),
    };
}

static bool all_done(const struct conductor *conductor, int step)
{
    for (uint32_t i = 0; i < conductor->started; i++) {
        /* Acquire: what the worker did before it reported. */
        if (atomic_load_explicit(&conductor->run.workers[i].done, memory_order_acquire) != step)
            return false;
    }
    return true;
}

static void announce(struct conductor *conductor, int step)
{
    /* Release: what the step needs has been prepared. */
    atomic_store_explicit(&conductor->run.step, step, memory_order_release);
    for (uint32_t i = 0; i < conductor->started; i++)
        fc_worker_wake(&conductor->run.workers[i]);
}

enum outcome { COMPLETE, TIMED_OUT, STUCK, CANCELLED };

/* Waits until all workers have done `step`, or, with a negative one, until the deadline.  With `patience` in
 * seconds it also gives up when nothing was sent or received for so long; 0 waits on. */
static enum outcome wait_for(struct conductor *conductor, int step, uint64_t deadline_ns, double patience)
{
    uint64_t moved_ns = fc_link_now();
    uint64_t moved = 0;
    for (;;) {
        uint64_t now = fc_link_now();
        if (step >= 0 && all_done(conductor, step))
            return COMPLETE;
        if (now >= deadline_ns)
            return step >= 0 ? TIMED_OUT : COMPLETE;
        struct fc_load_progress progress = progress_of(conductor);
        if (progress.sent + progress.received != moved) {
            moved = progress.sent + progress.received;
            moved_ns = now;
        } else if (patience > 0 && (double)(now - moved_ns) / 1e9 > patience) {
            return STUCK;
        }
        if (!conductor->cancelled && conductor->options->progress != NULL &&
            conductor->options->progress(conductor->options->context, &progress) != 0) {
            conductor->cancelled = true;
        }
        if (conductor->cancelled && conductor->phase != FC_LOAD_CLOSE)
            return CANCELLED;
        uint64_t left_ms = (deadline_ns - now) / 1000000u + 1;
        struct pollfd wake = {.fd = conductor->run.wake_fd, .events = POLLIN};
        uint64_t count;
        if (poll(&wake, 1, left_ms < TICK_MS ? (int)left_ms : TICK_MS) > 0)
            (void)!read(conductor->run.wake_fd, &count, sizeof count);
    }
}

static double thread_seconds(pthread_t thread)
{
    clockid_t clock;
    struct timespec used;
    if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void begin_phase(struct conductor *conductor, enum fc_load_phase phase)
{
    conductor->phase = phase;
    fc_probe_cpu(conductor->options->server_pid, conductor->before);
    conductor->client_before = thread_seconds(pthread_self());
    for (uint32_t i = 0; i < conductor->started; i++)
        conductor->thread_before[i] = thread_seconds(conductor->run.workers[i].thread);
    conductor->phase_ns = fc_link_now();
}

static void judge_load(struct conductor *conductor, double busiest_thread)
{
    const struct fc_load_usage *usage = &conductor->report->usage[FC_LOAD_MESSAGES];
    struct fc_load_report *report = conductor->report;
    report->client_busy = busiest_thread / usage->wall;
    report->server_busy = -1;
    report->machine_busy = -1;
    if (usage->server >= 0) {
        report->server_busy = fc_probe_busiest(conductor->before, conductor->after) / usage->wall;
        report->machine_busy =
            (usage->server + usage->client) / usage->wall / (double)sysconf(_SC_NPROCESSORS_ONLN);
    }
    report->client_bound = report->client_busy > BUSY && report->server_busy < BUSY;
}

static void end_phase(struct conductor *conductor)
{
    struct fc_load_usage *usage = &conductor->report->usage[conductor->phase];
    double busiest = 0;
    usage->wall = (double)(fc_link_now() - conductor->phase_ns) / 1e9;
    usage->client = thread_seconds(pthread_self()) - conductor->client_before;
    for (uint32_t i = 0; i < conductor->started; i++) {
        double used = thread_seconds(conductor->run.workers[i].thread) - conductor->thread_before[i];
        usage->client += used;
        busiest = used > busiest ? used : busiest;
    }
    fc_probe_cpu(conductor->options->server_pid, conductor->after);
    bool known = conductor->before->known && conductor->after->known;
    usage->server = known ? conductor->after->seconds - conductor->before->seconds : -1;
    bool ticks = conductor->before->ticks_seconds >= 0 && conductor->after->ticks_seconds >= 0;
    usage->server_ticks = ticks ? conductor->after->ticks_seconds - conductor->before->ticks_seconds : -1;
    if (conductor->phase == FC_LOAD_MESSAGES)
        judge_load(conductor, busiest);
}

static void measure_memory(struct conductor *conductor, unsigned moment)
{
    fc_probe_memory(conductor->options->server_pid, &conductor->report->memory[moment]);
}

static void report_outcome(struct conductor *conductor, enum outcome outcome, const char *what)
{
    static const char *const why[] = {
        [TIMED_OUT] = "timed out",
        [STUCK] = "gave up: nothing was delivered any more",
        [CANCELLED] = "cancelled",
    };
    if (outcome != COMPLETE) {
        char text[160];
        snprintf(text, sizeof text, "%s: %s", what, why[outcome]);
        add_error(conductor->report, text);
    }
}

static uint64_t from_now(double seconds)
{
    return fc_link_now() + (uint64_t)(seconds * 1e9);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Keeps the connections alive for a while. */
static void idle(struct conductor *conductor, enum fc_load_phase phase, double seconds)
{
    announce(conductor, FC_STEP_IDLE);
    begin_phase(conductor, phase);
    if (seconds > 0) {
        report_outcome(conductor,
                       wait_for(conductor, -1, sooner(from_now(seconds), conductor->deadline_ns), 0),
                       phase == FC_LOAD_HOLD ? "hold" : "settle");
    }
    end_phase(conductor);
}

static void connect_all(struct conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    begin_phase(conductor, FC_LOAD_CONNECT);
    announce(conductor, FC_STEP_CONNECT);
    report_outcome(conductor, wait_for(conductor, FC_STEP_CONNECT, conductor->deadline_ns, 0), "connecting");
    end_phase(conductor);
    report->connections.seconds = report->usage[FC_LOAD_CONNECT].wall;
}

/* Returns false when there is nothing to send, or nobody to receive it. */
static bool muster(struct conductor *conductor)
{
    struct fc_ledger *ledger = &conductor->run.ledger;
    if (ledger->total == 0 || conductor->cancelled)
        return false;
    announce(conductor, FC_STEP_MUSTER);
    if (wait_for(conductor, FC_STEP_MUSTER, conductor->deadline_ns, 0) != COMPLETE)
        return false;
    for (uint32_t i = 0; i < conductor->started; i++) {
        uint32_t receivers = atomic_load_explicit(&conductor->run.workers[i].receivers, memory_order_relaxed);
        conductor->report->deliveries.receivers += receivers;
        ledger->threads += receivers > 0;
    }
    return ledger->threads > 0;
}

static void exchange_messages(struct conductor *conductor)
{
    if (!muster(conductor))
        return;
    begin_phase(conductor, FC_LOAD_MESSAGES);
    conductor->run.start_ns = fc_link_now() + 1000000;
    announce(conductor, FC_STEP_MESSAGES);
    report_outcome(
        conductor,
        wait_for(conductor, FC_STEP_MESSAGES, conductor->deadline_ns, conductor->options->patience),
        "messages");
    end_phase(conductor);
}

static void close_all(struct conductor *conductor)
{
    begin_phase(conductor, FC_LOAD_CLOSE);
    announce(conductor, FC_STEP_CLOSE);
    /* Closing is work, and a million connections take their time over it. */
    double seconds = CLOSE_SECONDS + conductor->options->connections / 10000.0;
    report_outcome(conductor, wait_for(conductor, FC_STEP_CLOSE, from_now(seconds), 0), "closing");
    end_phase(conductor);
    announce(conductor, FC_STEP_STOP);
}

static void conduct(struct conductor *conductor)
{
    for (unsigned i = 0; i < FC_LOAD_PHASES; i++)
        conductor->report->usage[i] = (struct fc_load_usage){.server = -1, .server_ticks = -1};
    measure_memory(conductor, FC_LOAD_BEFORE);
    connect_all(conductor);
    idle(conductor, FC_LOAD_SETTLE, conductor->options->settle);
    measure_memory(conductor, FC_LOAD_CONNECTED);
    exchange_messages(conductor);
    measure_memory(conductor, FC_LOAD_DELIVERED);
    idle(conductor, FC_LOAD_HOLD, conductor->options->hold);
    measure_memory(conductor, FC_LOAD_HELD);
    close_all(conductor);
    measure_memory(conductor, FC_LOAD_CLOSED);
}

static void summarise(struct fc_load_spread *spread, const struct fc_histogram *histogram)
{
    *spread = (struct fc_load_spread){
        .count = histogram->count,
        .p50 = (double)fc_histogram_quantile(histogram, 0.5) / 1e3,
        .p90 = (double)fc_histogram_quantile(histogram, 0.9) / 1e3,
        .p99 = (double)fc_histogram_quantile(histogram, 0.99) / 1e3,
        .p999 = (double)fc_histogram_quantile(histogram, 0.999) / 1e3,
        .max = (double)histogram->max / 1e3,
        .mean = histogram->count > 0 ? (double)histogram->sum / (double)histogram->count / 1e3 : 0,
    };
}

static void merge_tally(struct fc_load_tally *into, const struct fc_load_tally *from)
{
    for (unsigned i = 0; i < from->used; i++)
        fc_load_tally_add(into, from->rows[i].name, from->rows[i].count);
}

static void add_worker(struct fc_load_report *report, const struct fc_worker *worker)
{
    report->connections.closed_unexpectedly += worker->closed_unexpectedly;
    report->connections.stalled_closed += worker->stalled_closed;
    report->connections.own_tables = report->connections.own_tables && atomic_load(&worker->own_table);
    report->deliveries.received += worker->live_received;
    report->deliveries.lost += worker->lost_in_churn;
    report->deliveries.duplicated += worker->duplicated;
    report->deliveries.reordered += worker->reordered;
    report->deliveries.damaged += worker->damaged;
    report->deliveries.churning += worker->churn_received;
    report->churn.closed += worker->churn_closed;
    report->churn.reopened += worker->churn_reopened;
    report->churn.failed += worker->churn_failed;
    merge_tally(&report->connections.failures, &worker->failures);
    merge_tally(&report->closes, &worker->closes);
    for (unsigned i = 0; i < worker->errors_used; i++)
        add_error(report, worker->errors[i]);
}

/* The workers have ended.  Merges into the first worker's histograms. */
static void add_up(struct conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    const struct fc_load_options *options = conductor->options;
    struct fc_worker *all = &conductor->run.workers[0];
    struct fc_load_progress progress = progress_of(conductor);
    report->connections.asked = options->connections;
    report->connections.made = progress.made;
    report->connections.failed = progress.failed;
    report->connections.threads = conductor->run.threads;
    report->connections.own_tables = true;
    report->connections.rate = (double)progress.made / report->connections.seconds;
    report->messages.asked = conductor->run.ledger.total;
    report->messages.sent = progress.sent;
    report->messages.size = options->size;
    report->messages.senders = options->senders;
    report->messages.text = options->text;
    for (uint32_t i = 0; i < conductor->started; i++) {
        const struct fc_worker *worker = &conductor->run.workers[i];
        add_worker(report, worker);
        if (worker != all) {
            fc_histogram_merge(&all->handshake, &worker->handshake);
            fc_histogram_merge(&all->latency, &worker->latency);
            fc_histogram_merge(&all->first, &worker->first);
            fc_histogram_merge(&all->last, &worker->last);
            fc_histogram_merge(&all->spread, &worker->spread);
        }
    }
    summarise(&report->connections.handshake_us, &all->handshake);
    summarise(&report->latency_us, &all->latency);
    summarise(&report->first_receiver_us, &all->first);
    summarise(&report->last_receiver_us, &all->last);
    summarise(&report->spread_us, &all->spread);
    report->deliveries.expected = report->messages.sent * report->deliveries.receivers;
    report->deliveries.lost += report->deliveries.expected - report->deliveries.received;
    double seconds = report->usage[FC_LOAD_MESSAGES].wall;
    report->throughput = seconds > 0 ? (double)report->deliveries.received / seconds : 0;
    report->clean = report->errors_used == 0 && report->connections.made == options->connections &&
                    report->connections.closed_unexpectedly == 0 &&
                    report->messages.sent == report->messages.asked && report->deliveries.lost == 0 &&
                    report->deliveries.duplicated == 0 && report->deliveries.reordered == 0 &&
                    report->deliveries.damaged == 0 && report->churn.failed == 0;
}

static int start_workers(struct conductor *conductor)
{
    struct fc_run *run = &conductor->run;
    sigset_t all;
    sigset_t before;
    int code = 0;
    /* Signals are for the threads of the host program. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (conductor->started < run->threads && code == 0) {
        code = fc_worker_start(&run->workers[conductor->started]);
        conductor->started += code == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static void join_workers(struct conductor *conductor)
{
    announce(conductor, FC_STEP_STOP);
    for (uint32_t i = 0; i < conductor->started; i++)
        pthread_join(conductor->run.workers[i].thread, NULL);
}

static int prepare_workers(struct conductor *conductor, uint32_t *made)
{
    struct fc_run *run = &conductor->run;
    uint32_t connections = conductor->options->connections;
    run->workers = calloc(run->threads, sizeof *run->workers);
    conductor->thread_before = calloc(run->threads, sizeof *conductor->thread_before);
    conductor->before = calloc(1, sizeof *conductor->before);
    conductor->after = calloc(1, sizeof *conductor->after);
    if (run->workers == NULL || conductor->thread_before == NULL || conductor->before == NULL ||
        conductor->after == NULL) {
        return -ENOMEM;
    }
    int code = 0;
    run->wake_first = run->wake_last = run->wake_fd;
    for (*made = 0; *made < run->threads && code == 0; ++*made) {
        uint32_t count = connections / run->threads + (*made < connections % run->threads);
        struct fc_worker *worker = &run->workers[*made];
        code = fc_worker_init(worker, run, *made, count);
        run->wake_first = worker->wake_fd < run->wake_first ? worker->wake_fd : run->wake_first;
        run->wake_last = worker->wake_fd > run->wake_last ? worker->wake_fd : run->wake_last;
    }
    return code;
}

static int prepare_run(struct conductor *conductor, char *problem, size_t room)
{
    struct fc_run *run = &conductor->run;
    const struct fc_load_options *options = conductor->options;
    int code =
        fc_target_init(&run->target, options->url, options->sources, options->connections, problem, room);
    if (code == 0) {
        code = fc_handshake_init(&run->handshake, run->target.authority, run->target.path, options->headers,
                                 options->subprotocol);
    }
    if (code == 0) {
        uint32_t window = options->rate > 0 || options->in_flight > options->messages ? options->messages
                                                                                      : options->in_flight;
        code = fc_ledger_init(&run->ledger, options->senders, options->messages, window > 0 ? window : 1);
    }
    if (code == 0) {
        run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        code = run->wake_fd >= 0 ? 0 : -errno;
    }
    run->options = options;
    run->threads = fc_plan_threads(options);
    run->churners = fc_plan_churners(options);
    atomic_init(&run->step, FC_STEP_IDLE);
    return code;
}

static int run_all(struct conductor *conductor, char *problem, size_t room)
{
    uint32_t made = 0;
    conductor->run.wake_fd = -1;
    int code = prepare_run(conductor, problem, room);
    if (code == 0)
        code = prepare_workers(conductor, &made);
    if (code == 0) {
        conductor->deadline_ns = from_now(conductor->options->timeout);
        code = start_workers(conductor);
        if (code == 0)
            conduct(conductor);
        join_workers(conductor);
        if (code == 0)
            add_up(conductor);
    }
    for (uint32_t i = 0; i < made; i++)
        fc_worker_free(&conductor->run.workers[i]);
    free(conductor->run.workers);
    free(conductor->thread_before);
    free(conductor->before);
    free(conductor->after);
    if (conductor->run.wake_fd >= 0)
        close(conductor->run.wake_fd);
    fc_ledger_free(&conductor->run.ledger);
    fc_handshake_free(&conductor->run.handshake);
    fc_target_free(&conductor->run.target);
    return code;
}

int fc_load_run(const struct fc_load_options *options, struct fc_load_report *report, char *problem,
                size_t room)
{
    memset(report, 0, sizeof *report);
    problem[0] = '\0';
    const char *contradiction = fc_plan_contradiction(options);
    if (contradiction != NULL) {
        snprintf(problem, room, "%s", contradiction);
        return -EINVAL;
    }
    struct conductor *conductor = calloc(1, sizeof *conductor);
    if (conductor == NULL)
        return -ENOMEM;
    conductor->options = options;
    conductor->report = report;
    int code = run_all(conductor, problem, room);
    free(conductor);
    if (code != 0 && problem[0] == '\0')
        snprintf(problem, room, "the run could not start: %s", strerror(-code));
    return code;
}
