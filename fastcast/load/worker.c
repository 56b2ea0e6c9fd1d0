/*
 * worker.c - the thread: its descriptor table, its event loop and the steps of a run.
 *
 * Invariants: sockets exist only while the thread runs, whose last act is to end them all.  The coordinating
 * thread allocates and frees a worker; between fc_worker_start() and pthread_join() all but the shared fields
 * belong to the worker's thread.
 */
#include "worker.h"

#include "closing.h"
#include "judge.h"
#include "opening.h"
#include "plan.h"
#include "traffic.h"
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define BATCH 512
#define READ_BUFFER ((size_t)256 << 10)
#define FOREIGN_FRAME ((uint64_t)64 << 10) /* one up to this size is read, and then counted as damaged */
#define TAG_WAKE UINT32_MAX
#define TAG_TIMER (UINT32_MAX - 1)
#define STACK ((size_t)256 << 10)

void fc_worker_wake(struct fc_worker *worker)
{
    uint64_t one = 1;
    /* It can only fail when the counter is full, and then the worker is awake. */
    (void)!write(worker->wake_fd, &one, sizeof one);
}

void fc_worker_note(struct fc_worker *worker, const char *what, int detail)
{
    char text[sizeof *worker->errors];
    snprintf(text, sizeof text, "%s %d", what, detail);
    for (unsigned i = 0; i < worker->errors_used; i++)
        if (strcmp(worker->errors[i], text) == 0)
            return;
    if (worker->errors_used < sizeof worker->errors / sizeof *worker->errors)
        memcpy(worker->errors[worker->errors_used++], text, sizeof text);
}

/* Sets up the roles: the first connections of the run send, the last ones are stalled, those before them
 * churn. */
static void assign_roles(struct fc_worker *worker)
{
    const struct fc_load_options *options = worker->run->options;
    uint32_t stalled_from = options->connections - options->stalled;
    uint32_t churn_from = stalled_from - worker->run->churners;
    worker->churn_first = worker->count;
    worker->churn_end = worker->count;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        uint32_t number = i * worker->run->threads + worker->id;
        link->fd = -1;
        link->deaf = number >= stalled_from;
        if (number < options->senders && options->messages > 0) {
            link->role = FC_ROLE_SENDER;
            worker->senders[i] = (struct fc_sender){.link = link, .id = options->sender_base + number};
            worker->senders_used = i + 1;
        } else if (number >= churn_from && number < stalled_from) {
            link->role = FC_ROLE_CHURNER | FC_ROLE_UNPLACED;
            worker->churn_first = i < worker->churn_first ? i : worker->churn_first;
            worker->churn_end = i + 1;
        }
    }
    worker->churn_next = worker->churn_first;
}

static int allocate(struct fc_worker *worker)
{
    const struct fc_run *run = worker->run;
    const struct fc_load_options *options = run->options;
    uint32_t senders = (options->senders + run->threads - 1) / run->threads;
    size_t flights = (size_t)run->ledger.own * run->ledger.window;
    worker->links = calloc(worker->count, sizeof *worker->links);
    worker->senders = calloc(senders + 1, sizeof *worker->senders);
    worker->local = calloc(flights + 1, sizeof *worker->local);
    worker->reopen = calloc(run->churners / run->threads + 2, sizeof *worker->reopen);
    worker->payload = malloc(options->size);
    worker->frame = malloc(options->size + FC_WIRE_MAX_CLIENT_HEAD);
    worker->io.capacity = READ_BUFFER;
    worker->io.buffer = malloc(worker->io.capacity);
    if (worker->links == NULL || worker->senders == NULL || worker->local == NULL || worker->reopen == NULL ||
        worker->payload == NULL || worker->frame == NULL || worker->io.buffer == NULL) {
        return -ENOMEM;
    }
    int code = fc_timers_init(&worker->retries, worker->count);
    return code != 0 ? code : fc_timers_init(&worker->thoughts, senders);
}

int fc_worker_init(struct fc_worker *worker, struct fc_run *run, uint32_t id, uint32_t count)
{
    const struct fc_load_options *options = run->options;
    memset(worker, 0, sizeof *worker);
    pthread_mutex_init(&worker->tally_lock, NULL);
    worker->run = run;
    worker->id = id;
    worker->count = count;
    worker->unsettled = count;
    worker->step = -1;
    atomic_init(&worker->done, -1);
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake_fd < 0)
        return -errno;
    int code = allocate(worker);
    if (code != 0)
        return code;
    if (getrandom(&worker->io.random, sizeof worker->io.random, 0) != (ssize_t)sizeof worker->io.random)
        return -errno;
    worker->io.random |= 1;
    worker->io.links = worker->links;
    worker->io.target = &run->target;
    worker->io.handshake = &run->handshake;
    worker->io.frame_limit = options->size > FOREIGN_FRAME ? options->size : FOREIGN_FRAME;
    worker->io.owner = worker;
    worker->io.opened = fc_opening_opened;
    worker->io.refused = fc_opening_refused;
    worker->io.message = fc_judge_message;
    worker->io.drained = fc_traffic_drained;
    worker->io.closed = fc_closing_closed;
    assign_roles(worker);
    return 0;
}

void fc_worker_free(struct fc_worker *worker)
{
    for (uint32_t i = 0; worker->strays != NULL && i < worker->count; i++)
        fc_stray_free(&worker->run->ledger, worker->strays[i]);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    pthread_mutex_destroy(&worker->tally_lock);
    fc_timers_free(&worker->retries);
    fc_timers_free(&worker->thoughts);
    free(worker->strays);
    free(worker->links);
    free(worker->senders);
    free(worker->local);
    free(worker->reopen);
    free(worker->payload);
    free(worker->frame);
    free(worker->io.buffer);
}

static void begin_step(struct fc_worker *worker, int step)
{
    worker->step = step;
    worker->step_done = false;
    worker->step_ns = fc_link_now();
    worker->cursor = 0;
    switch (step) {
    case FC_STEP_STORM: fc_opening_storm(worker); break;
    case FC_STEP_MUSTER:
        fc_judge_muster(worker);
        worker->step_done = true;
        break;
    case FC_STEP_MESSAGES: fc_traffic_begin(worker); break;
    case FC_STEP_CLOSE: fc_closing_begin(worker); break;
    default: break;
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t exchange_messages(struct fc_worker *worker)
{
    if (fc_traffic_due(worker) <= fc_link_now())
        fc_traffic_pump(worker);
    bool exchanged = fc_traffic_done(worker) && fc_judge_done(worker);
    uint64_t due = fc_traffic_due(worker);
    /* Churn goes on until the messages are through, and ends with all connections there. */
    worker->step_done = exchanged;
    if (worker->run->churners > 0)
        due = sooner(due, fc_opening_churn(worker));
    worker->step_done = exchanged && worker->reopening == 0;
    return due;
}

/* Does what the step asks for now; returns when there is more to do without any event. */
static uint64_t advance(struct fc_worker *worker)
{
    uint64_t due = worker->step < FC_STEP_CLOSE ? fc_opening_retry(worker) : UINT64_MAX;
    switch (worker->step) {
    case FC_STEP_CONNECT: return sooner(due, fc_opening_connect(worker));
    case FC_STEP_STORM: return sooner(due, fc_opening_return(worker));
    case FC_STEP_MESSAGES: return sooner(due, exchange_messages(worker));
    case FC_STEP_CLOSE: fc_closing_continue(worker); return due;
    default: return due;
    }
}

static void set_timer(struct fc_worker *worker, uint64_t due)
{
    uint64_t at = due == UINT64_MAX ? 0 : due + (due == 0);
    if (at == worker->timer_ns)
        return;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)},
    };
    timerfd_settime(worker->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    worker->timer_ns = at;
}

static void publish(struct fc_worker *worker)
{
    if (worker->step_done && atomic_load_explicit(&worker->done, memory_order_relaxed) != worker->step) {
        uint64_t one = 1;
        /* Release: what the step produced is visible to whoever sees it done. */
        atomic_store_explicit(&worker->done, worker->step, memory_order_release);
        (void)!write(worker->run->wake_fd, &one, sizeof one);
    }
}

static void handle(struct fc_worker *worker, const struct epoll_event *event)
{
    uint64_t count;
    if (event->data.u32 == TAG_WAKE) {
        (void)!read(worker->wake_fd, &count, sizeof count);
    } else if (event->data.u32 == TAG_TIMER) {
        (void)!read(worker->timer_fd, &count, sizeof count);
        worker->timer_ns = 0;
    } else {
        fc_link_event(&worker->io, &worker->links[event->data.u32], event->events);
    }
    /* After each connection rather than after the batch: a message leaves when its window opens, not a
     * few hundred reads later. */
    fc_traffic_pump_ready(worker);
}

/* Whether anything is under way that may take too long. */
static bool has_deadlines(const struct fc_worker *worker)
{
    return fc_counter_read(&worker->counters.handshakes) > 0 || worker->step == FC_STEP_CLOSE ||
           worker->churn_first < worker->churn_end;
}

static void loop(struct fc_worker *worker)
{
    struct epoll_event events[BATCH];
    for (;;) {
        /* Acquire: what the coordinating thread prepared for the step. */
        int step = atomic_load_explicit(&worker->run->step, memory_order_acquire);
        if (step == FC_STEP_STOP)
            return;
        if (step != worker->step)
            begin_step(worker, step);
        uint64_t due = advance(worker);
        publish(worker);
        set_timer(worker, due);
        bool sweeps = has_deadlines(worker);
        int n = epoll_wait(worker->io.epoll, events, BATCH, sweeps ? (int)FC_CLOSING_SWEEP_MS : -1);
        for (int i = 0; i < n; i++)
            handle(worker, &events[i]);
        fc_judge_recount(worker);
        uint64_t now = fc_link_now();
        if (sweeps && now - worker->swept_ns > FC_CLOSING_SWEEP_MS * 1000000u) {
            fc_closing_sweep(worker);
            worker->swept_ns = now;
        }
    }
}

/* Gives the thread a descriptor table of its own, so that the limit on descriptors counts for each thread.
 * Without the kernel's consent it goes on in the process's table, and the limit shows as failed connections.
 * Only the descriptors by which threads wake each other stay: a copy of anything else would keep open what
 * the process closes. */
static bool own_table(const struct fc_run *run)
{
#ifdef __SANITIZE_THREAD__
    /* The sanitizer believes in one table for all threads: with several it sees races where there are none,
     * and, what is worse, order where there is none. */
    (void)run;
    return false;
#endif
    uint32_t last = run->threads;
    /* The first call unshares; only then are the others, which would hurt the process, made. */
    if (syscall(SYS_close_range, (unsigned)run->wake_fds[last] + 1, ~0u, FC_PLAN_UNSHARE) != 0)
        return false;
    /* Standard error and its like stay, too, for what may have to be said there. */
    int next = STDERR_FILENO + 1;
    for (uint32_t i = 0; i <= last; i++) {
        if (run->wake_fds[i] > next)
            syscall(SYS_close_range, (unsigned)next, (unsigned)run->wake_fds[i] - 1, 0);
        if (run->wake_fds[i] >= next)
            next = run->wake_fds[i] + 1;
    }
    return true;
}

static int watch(int epoll, int fd, uint32_t tag)
{
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.u32 = tag});
}

static void *run_thread(void *argument)
{
    struct fc_worker *worker = argument;
    atomic_store_explicit(&worker->own_table, own_table(worker->run), memory_order_relaxed);
    worker->io.epoll = epoll_create1(EPOLL_CLOEXEC);
    worker->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (worker->io.epoll >= 0 && worker->timer_fd >= 0 &&
        watch(worker->io.epoll, worker->wake_fd, TAG_WAKE) == 0 &&
        watch(worker->io.epoll, worker->timer_fd, TAG_TIMER) == 0) {
        loop(worker);
    } else {
        fc_worker_note(worker, "a thread could not set up its event loop: errno", errno);
        fc_opening_abandon(worker);
        /* Nobody need wait for it. */
        atomic_store_explicit(&worker->done, FC_STEP_STOP, memory_order_release);
    }
    worker->step = FC_STEP_STOP;
    for (uint32_t i = 0; i < worker->count; i++)
        if (worker->links[i].state != FC_LINK_NONE)
            fc_link_abort(&worker->io, &worker->links[i], "run ended");
    if (worker->timer_fd >= 0)
        close(worker->timer_fd);
    if (worker->io.epoll >= 0)
        close(worker->io.epoll);
    return NULL;
}

int fc_worker_start(struct fc_worker *worker)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int code = pthread_create(&worker->thread, &attributes, run_thread, worker);
    pthread_attr_destroy(&attributes);
    return -code;
}
