/*
 * conductor.c - the phases.  The calling thread's; workers are reached through the step that all share, their
 * wake descriptors and their counters.
 */
#include "conductor.h"

#include "plan.h"

#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 100000000u
#define CLOSE_SECONDS 10.0
#define CLOSES_PER_SECOND 10000.0
#define CLOSE_CANCELLED_SECONDS 2.0 /* somebody waits for the program to end */
#define BUSY 0.85

const char *const fc_load_phase_names[FC_LOAD_PHASES] = {"connect",  "settle", "storm",
                                                         "messages", "hold",   "close"};

uint64_t fc_conductor_sum(const struct fc_conductor *conductor, size_t offset)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < conductor->started; i++) {
        const char *counters = (const char *)&conductor->run.workers[i].counters;
        total += fc_counter_read((const _Atomic uint64_t *)(const void *)(counters + offset));
    }
    return total;
}

double fc_conductor_thread_seconds(pthread_t thread)
{
    clockid_t clock;
    struct timespec used;
    if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void add_error(struct fc_load_report *report, const char *text)
{
    if (report->errors_used < FC_LOAD_ERRORS)
        snprintf(report->errors[report->errors_used++], sizeof *report->errors, "%s", text);
}

static bool all_done(const struct fc_conductor *conductor, int step)
{
    for (uint32_t i = 0; i < conductor->started; i++) {
        /* Acquire: what the worker did before it reported. */
        int done = atomic_load_explicit(&conductor->run.workers[i].done, memory_order_acquire);
        if (done != step && done != FC_STEP_STOP)
            return false;
    }
    return true;
}

void fc_conductor_announce(struct fc_conductor *conductor, int step)
{
    /* Release: what the step needs has been prepared. */
    atomic_store_explicit(&conductor->run.step, step, memory_order_release);
    for (uint32_t i = 0; i < conductor->started; i++)
        fc_worker_wake(&conductor->run.workers[i]);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t moved_so_far(const struct fc_conductor *conductor)
{
    return fc_conductor_sum(conductor, offsetof(struct fc_counters, sent)) +
           fc_conductor_sum(conductor, offsetof(struct fc_counters, received));
}

/* One turn of waiting: has the host program look at what it wants to see, then sleeps until a worker reports,
 * but no longer than until `deadline_ns`, the next snapshot or a tick from now. */
static void wait_a_turn(struct fc_conductor *conductor, uint64_t deadline_ns)
{
    const struct fc_load_options *options = conductor->options;
    if (!fc_snapshot_tell(conductor, false))
        conductor->cancelled = true;
    if (!conductor->cancelled && options->cancelled != NULL && options->cancelled(options->context) != 0)
        conductor->cancelled = true;
    uint64_t now = fc_link_now();
    uint64_t until_ns = sooner(sooner(deadline_ns, fc_snapshot_due(conductor)), now + TICK_NS);
    uint64_t left_ms = until_ns > now ? (until_ns - now) / 1000000u + 1 : 0;
    struct pollfd wake = {.fd = conductor->run.wake_fd, .events = POLLIN};
    uint64_t count;
    if (poll(&wake, 1, (int)left_ms) > 0)
        (void)!read(conductor->run.wake_fd, &count, sizeof count);
}

enum outcome { COMPLETE, TIMED_OUT, STUCK, CANCELLED };

/* Waits until all workers have done `step`, or, with a negative one, until the deadline.  With `patience` in
 * seconds it also gives up when nothing was sent or received for so long; 0 waits on. */
static enum outcome wait_for(struct fc_conductor *conductor, int step, uint64_t deadline_ns, double patience)
{
    uint64_t moved_ns = fc_link_now();
    uint64_t moved = 0;
    for (;;) {
        uint64_t now = fc_link_now();
        if (step >= 0 && all_done(conductor, step))
            return COMPLETE;
        if (conductor->cancelled && conductor->phase != FC_LOAD_CLOSE)
            return CANCELLED;
        if (now >= deadline_ns)
            return step >= 0 ? TIMED_OUT : COMPLETE;
        uint64_t moving = patience > 0 ? moved_so_far(conductor) : 0;
        if (moving != moved) {
            moved = moving;
            moved_ns = now;
        } else if (patience > 0 && (double)(now - moved_ns) / 1e9 > patience) {
            return STUCK;
        }
        wait_a_turn(conductor, deadline_ns);
    }
}

/* Waits for leave to begin a phase.  What passes meanwhile is added to the deadline. */
static void pass_gate(struct fc_conductor *conductor, enum fc_load_phase phase)
{
    const struct fc_load_options *options = conductor->options;
    uint64_t came_ns = fc_link_now();
    while (options->gate != NULL && !conductor->cancelled) {
        int leave = options->gate(options->context, phase);
        if (leave > 0)
            break;
        if (leave < 0)
            conductor->cancelled = true;
        else
            wait_a_turn(conductor, UINT64_MAX);
    }
    conductor->deadline_ns += fc_link_now() - came_ns;
}

static void begin_phase(struct fc_conductor *conductor, enum fc_load_phase phase)
{
    pass_gate(conductor, phase);
    conductor->phase = phase;
    fc_probe_cpu(conductor->options->server_pid, conductor->before);
    conductor->client_before = fc_conductor_thread_seconds(pthread_self());
    for (uint32_t i = 0; i < conductor->started; i++)
        conductor->thread_before[i] = fc_conductor_thread_seconds(conductor->run.workers[i].thread);
    conductor->phase_ns = fc_link_now();
}

static void judge_load(struct fc_conductor *conductor, double busiest_thread)
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

static void end_phase(struct fc_conductor *conductor)
{
    struct fc_load_usage *usage = &conductor->report->usage[conductor->phase];
    double busiest = 0;
    usage->wall = (double)(fc_link_now() - conductor->phase_ns) / 1e9;
    usage->client = fc_conductor_thread_seconds(pthread_self()) - conductor->client_before;
    for (uint32_t i = 0; i < conductor->started; i++) {
        double used = fc_conductor_thread_seconds(conductor->run.workers[i].thread) -
                      conductor->thread_before[i];
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
    /* Whatever did not come to its end must not go on while others wait at the next gate. */
    if (conductor->phase != FC_LOAD_CLOSE)
        fc_conductor_announce(conductor, FC_STEP_IDLE);
}

static void measure_memory(struct fc_conductor *conductor, unsigned moment)
{
    fc_probe_memory(conductor->options->server_pid, &conductor->report->memory[moment]);
}

static void report_outcome(struct fc_conductor *conductor, enum outcome outcome, const char *what)
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

/* Keeps the connections alive for a while, which is not held against the deadline. */
static void idle(struct fc_conductor *conductor, enum fc_load_phase phase, double seconds)
{
    begin_phase(conductor, phase);
    if (seconds > 0 && !conductor->cancelled)
        report_outcome(conductor, wait_for(conductor, -1, from_now(seconds), 0), fc_load_phase_names[phase]);
    conductor->deadline_ns += fc_link_now() - conductor->phase_ns;
    end_phase(conductor);
}

static void connect_all(struct fc_conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    begin_phase(conductor, FC_LOAD_CONNECT);
    conductor->run.arrivals.start_ns = fc_link_now();
    if (!conductor->cancelled) {
        fc_conductor_announce(conductor, FC_STEP_CONNECT);
        report_outcome(conductor, wait_for(conductor, FC_STEP_CONNECT, conductor->deadline_ns, 0),
                       "connecting");
    }
    end_phase(conductor);
    report->connections.seconds = report->usage[FC_LOAD_CONNECT].wall;
}

static void storm(struct fc_conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    if (!conductor->options->storm)
        return;
    begin_phase(conductor, FC_LOAD_STORM);
    if (!conductor->cancelled) {
        report->storm.happened = true;
        fc_conductor_announce(conductor, FC_STEP_STORM);
        report_outcome(conductor, wait_for(conductor, FC_STEP_STORM, conductor->deadline_ns, 0), "storm");
    }
    end_phase(conductor);
    report->storm.seconds = report->usage[FC_LOAD_STORM].wall;
}

/* Returns false when nobody is there to take part. */
static bool muster(struct fc_conductor *conductor)
{
    struct fc_ledger *ledger = &conductor->run.ledger;
    /* Those of other processes may be there. */
    uint64_t senders = conductor->run.senders_total - conductor->options->senders;
    fc_conductor_announce(conductor, FC_STEP_MUSTER);
    if (wait_for(conductor, FC_STEP_MUSTER, conductor->deadline_ns, 0) != COMPLETE)
        return false;
    for (uint32_t i = 0; i < conductor->started; i++) {
        uint32_t receivers = atomic_load_explicit(&conductor->run.workers[i].receivers, memory_order_relaxed);
        conductor->report->deliveries.receivers += receivers;
        ledger->threads += receivers > 0;
        senders += atomic_load_explicit(&conductor->run.workers[i].present, memory_order_relaxed);
    }
    if (senders == 0)
        add_error(conductor->report, "messages: none of the senders is connected");
    return senders > 0 && (ledger->threads > 0 || conductor->options->expect == FC_LOAD_EXPECT_ANY);
}

static void exchange_messages(struct fc_conductor *conductor)
{
    const struct fc_load_options *options = conductor->options;
    if (options->messages == 0 || conductor->cancelled)
        return;
    /* Before the gate: other processes may send as soon as it opens. */
    bool there = muster(conductor);
    begin_phase(conductor, FC_LOAD_MESSAGES);
    if (there && !conductor->cancelled) {
        conductor->run.start_ns = fc_link_now() + 1000000;
        fc_conductor_announce(conductor, FC_STEP_MESSAGES);
        report_outcome(
            conductor,
            wait_for(conductor, FC_STEP_MESSAGES, conductor->deadline_ns, fc_plan_patience(options)),
            "messages");
    }
    end_phase(conductor);
}

static void close_all(struct fc_conductor *conductor)
{
    begin_phase(conductor, FC_LOAD_CLOSE);
    fc_conductor_announce(conductor, FC_STEP_CLOSE);
    /* Closing is work, and a million connections take their time over it.  What the server has not answered
     * by then is counted as that. */
    double seconds = CLOSE_CANCELLED_SECONDS;
    if (!conductor->cancelled)
        seconds = CLOSE_SECONDS + conductor->options->connections / CLOSES_PER_SECOND;
    wait_for(conductor, FC_STEP_CLOSE, from_now(seconds), 0);
    end_phase(conductor);
    fc_snapshot_tell(conductor, true);
    fc_conductor_announce(conductor, FC_STEP_STOP);
}

void fc_conductor_conduct(struct fc_conductor *conductor)
{
    for (unsigned i = 0; i < FC_LOAD_PHASES; i++)
        conductor->report->usage[i] = (struct fc_load_usage){.server = -1, .server_ticks = -1};
    measure_memory(conductor, FC_LOAD_BEFORE);
    connect_all(conductor);
    idle(conductor, FC_LOAD_SETTLE, conductor->options->settle);
    measure_memory(conductor, FC_LOAD_CONNECTED);
    storm(conductor);
    measure_memory(conductor, FC_LOAD_BACK);
    uint64_t before = fc_conductor_sum(conductor, offsetof(struct fc_counters, received));
    exchange_messages(conductor);
    measure_memory(conductor, FC_LOAD_DELIVERED);
    idle(conductor, FC_LOAD_HOLD, conductor->options->hold);
    conductor->published =
        fc_conductor_sum(conductor, offsetof(struct fc_counters, received)) - before;
    measure_memory(conductor, FC_LOAD_HELD);
    close_all(conductor);
    measure_memory(conductor, FC_LOAD_CLOSED);
}
