/*
 * worker.c - the thread: its descriptor table, its event loop and the steps of a run.
 *
 * Invariants: sockets exist only while the thread runs, whose last act is to end them all.  The coordinating
 * thread allocates and frees a worker; between fc_worker_start() and pthread_join() all but the atomic fields
 * belong to the worker's thread.
 */
#include "worker.h"

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
#define FOREIGN_FRAME                                                                                        \
    ((uint64_t)64 << 10) /* a frame up to this size is read, and then counted as damaged                     \
                          */
#define TAG_WAKE UINT32_MAX
#define TAG_TIMER (UINT32_MAX - 1)
#define SWEEP_MS 100
#define ANSWER_NS 5000000000u /* for the server's Close */
#define LINGER_NS 1000000000u /* for the end of TCP after it: the server goes first (section 7.1.1) */
#define STACK ((size_t)256 << 10)

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

void fc_worker_wake(struct fc_worker *worker)
{
    uint64_t one = 1;
    /* It can only fail when the counter is full, and then the worker is awake. */
    (void)!write(worker->wake_fd, &one, sizeof one);
}

static uint32_t number_of(const struct fc_worker *worker, uint32_t index)
{
    return index * worker->run->threads + worker->id;
}

/* Each different one once: what happens to one connection tends to happen to many. */
static void note_error(struct fc_worker *worker, const char *what, int detail)
{
    char text[sizeof *worker->errors];
    snprintf(text, sizeof text, "%s %d", what, detail);
    for (unsigned i = 0; i < worker->errors_used; i++)
        if (strcmp(worker->errors[i], text) == 0)
            return;
    if (worker->errors_used < sizeof worker->errors / sizeof *worker->errors)
        memcpy(worker->errors[worker->errors_used++], text, sizeof text);
}

static void on_opened(void *owner, struct fc_link *link)
{
    struct fc_worker *worker = owner;
    fc_histogram_add(&worker->handshake, fc_link_now() - link->since_ns);
    if ((link->role & FC_ROLE_REOPENED) != 0) {
        worker->churn_reopened++;
        worker->reopening--;
    } else {
        atomic_fetch_add_explicit(&worker->made, 1, memory_order_relaxed);
        worker->in_progress--;
    }
}

static void on_refused(void *owner, struct fc_link *link, const char *reason)
{
    struct fc_worker *worker = owner;
    worker->sockets--;
    fc_load_tally_add(&worker->failures, reason, 1);
    if ((link->role & FC_ROLE_REOPENED) != 0) {
        worker->churn_failed++;
        worker->reopening--;
    } else {
        atomic_fetch_add_explicit(&worker->failed, 1, memory_order_relaxed);
        worker->in_progress--;
    }
}

static void on_closed(void *owner, struct fc_link *link, uint16_t code, bool asked)
{
    struct fc_worker *worker = owner;
    bool closing = worker->step == FC_STEP_CLOSE || worker->step == FC_STEP_STOP;
    char name[8];
    worker->sockets--;
    if (link->deaf) {
        worker->stalled_closed += !closing;
        return;
    }
    snprintf(name, sizeof name, "%u", code);
    fc_load_tally_add(&worker->closes, name, 1);
    fc_traffic_leave(worker, link);
    if (closing) {
        worker->in_progress -= asked;
    } else if (!asked) {
        worker->closed_unexpectedly++;
        note_error(worker, "a connection was closed unexpectedly with code", code);
    } else {
        worker->churn_closed++;
        if (worker->step == FC_STEP_MESSAGES)
            worker->reopen[worker->reopen_used++] = (uint32_t)(link - worker->links);
    }
}

static uint32_t share(const struct fc_worker *worker, uint32_t total)
{
    uint32_t threads = worker->run->threads;
    uint32_t mine = total / threads + (worker->id < total % threads);
    return mine > 0 ? mine : 1;
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
        uint32_t number = number_of(worker, i);
        link->fd = -1;
        link->deaf = number >= stalled_from;
        if (number < options->senders && options->messages > 0) {
            link->role = FC_ROLE_SENDER;
            worker->senders[i] = (struct fc_sender){.link = link, .id = number};
            worker->senders_used = i + 1;
        } else if (number >= churn_from && number < stalled_from) {
            link->role = FC_ROLE_CHURNER | FC_ROLE_UNPLACED;
            worker->churn_first = i < worker->churn_first ? i : worker->churn_first;
            worker->churn_end = i + 1;
        }
    }
    worker->churn_next = worker->churn_first;
}

int fc_worker_init(struct fc_worker *worker, struct fc_run *run, uint32_t id, uint32_t count)
{
    const struct fc_load_options *options = run->options;
    memset(worker, 0, sizeof *worker);
    worker->run = run;
    worker->id = id;
    worker->count = count;
    worker->step = -1;
    atomic_init(&worker->done, -1);
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake_fd < 0)
        return -errno;
    uint32_t senders = (options->senders + run->threads - 1) / run->threads;
    size_t flights = (size_t)run->ledger.senders * run->ledger.window;
    worker->links = calloc(count, sizeof *worker->links);
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
    if (getrandom(&worker->io.random, sizeof worker->io.random, 0) != (ssize_t)sizeof worker->io.random)
        return -errno;
    worker->io.random |= 1;
    worker->io.links = worker->links;
    worker->io.target = &run->target;
    worker->io.handshake = &run->handshake;
    worker->io.frame_limit = options->size > FOREIGN_FRAME ? options->size : FOREIGN_FRAME;
    worker->io.owner = worker;
    worker->io.opened = on_opened;
    worker->io.refused = on_refused;
    worker->io.message = fc_traffic_message;
    worker->io.drained = fc_traffic_drained;
    worker->io.closed = on_closed;
    assign_roles(worker);
    return 0;
}

void fc_worker_free(struct fc_worker *worker)
{
    for (uint32_t i = 0; worker->strays != NULL && i < worker->count; i++)
        fc_stray_free(&worker->run->ledger, worker->strays[i]);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    free(worker->strays);
    free(worker->links);
    free(worker->senders);
    free(worker->local);
    free(worker->reopen);
    free(worker->payload);
    free(worker->frame);
    free(worker->io.buffer);
}

static void open_at(struct fc_worker *worker, uint32_t index)
{
    worker->sockets++;
    fc_link_open(&worker->io, &worker->links[index], number_of(worker, index));
}

static uint64_t connect_due(const struct fc_worker *worker)
{
    double rate = worker->run->options->connect_rate / worker->run->threads;
    return rate > 0 ? worker->step_ns + (uint64_t)(worker->cursor * 1e9 / rate) : 0;
}

/* Returns when the next connection is due; UINT64_MAX: not before something else happens. */
static uint64_t connect_some(struct fc_worker *worker)
{
    uint32_t window = share(worker, worker->run->options->connect_window);
    /* A handshake may end at once, so it is not the window that bounds one visit; events must get their turn.
     */
    for (uint32_t begun = 0; worker->cursor < worker->count && worker->in_progress < window; begun++) {
        uint64_t due = connect_due(worker);
        if (begun == window || due > fc_link_now())
            return due;
        worker->in_progress++;
        open_at(worker, worker->cursor++);
    }
    worker->step_done = worker->cursor == worker->count && worker->in_progress == 0;
    return UINT64_MAX;
}

/* Returns when the next connection is to be closed and reopened. */
static uint64_t churn_some(struct fc_worker *worker)
{
    double rate = worker->run->options->churn / worker->run->threads;
    uint64_t now = fc_link_now();
    while (worker->reopen_used > 0) {
        uint32_t index = worker->reopen[--worker->reopen_used];
        worker->links[index].role |= FC_ROLE_REOPENED | FC_ROLE_UNPLACED;
        worker->reopening++;
        open_at(worker, index);
    }
    if (rate <= 0 || worker->churn_first == worker->churn_end || fc_traffic_done(worker))
        return UINT64_MAX;
    if (worker->churn_due == 0)
        worker->churn_due = now;
    for (uint32_t looked = worker->churn_first; looked < worker->churn_end && worker->churn_due <= now;
         looked++) {
        struct fc_link *link = &worker->links[worker->churn_next++];
        if (worker->churn_next == worker->churn_end)
            worker->churn_next = worker->churn_first;
        if (link->state == FC_LINK_OPEN) {
            fc_link_close(&worker->io, link, 1000);
            worker->churn_due += (uint64_t)(1e9 / rate);
        }
    }
    /* When all churning connections are on their way, there is none to wait for but by looking again. */
    return worker->churn_due > now ? worker->churn_due : now + 1000000;
}

static void begin_closing(struct fc_worker *worker)
{
    uint32_t closing = 0;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        if (link->state == FC_LINK_CONNECTING || link->state == FC_LINK_REQUESTED)
            fc_link_abort(&worker->io, link, "timed out");
        else if (link->state == FC_LINK_OPEN && link->deaf)
            fc_link_abort(&worker->io, link, "stalled");
        closing += link->state == FC_LINK_CLOSING || link->state == FC_LINK_CLOSED;
    }
    worker->in_progress = closing;
}

static void close_some(struct fc_worker *worker)
{
    uint32_t window = share(worker, worker->run->options->connect_window);
    while (worker->cursor < worker->count && worker->in_progress < window) {
        struct fc_link *link = &worker->links[worker->cursor++];
        if (link->state == FC_LINK_OPEN) {
            worker->in_progress++;
            fc_link_close(&worker->io, link, 1000);
        }
    }
    worker->step_done = worker->cursor == worker->count && worker->sockets == 0;
}

/* Ends what has waited too long for the server's part of closing. */
static void sweep(struct fc_worker *worker)
{
    uint64_t now = fc_link_now();
    for (uint32_t i = 0; i < worker->count; i++) {
        struct fc_link *link = &worker->links[i];
        uint64_t limit = link->state == FC_LINK_CLOSED ? LINGER_NS : ANSWER_NS;
        if (link->state >= FC_LINK_CLOSING && now - link->since_ns > limit)
            fc_link_abort(&worker->io, link, "not answered");
    }
}

static void begin_step(struct fc_worker *worker, int step)
{
    worker->step = step;
    worker->step_done = false;
    worker->step_ns = fc_link_now();
    worker->cursor = 0;
    if (step == FC_STEP_MUSTER) {
        fc_traffic_muster(worker);
        worker->step_done = true;
    } else if (step == FC_STEP_MESSAGES) {
        fc_traffic_pump(worker);
    } else if (step == FC_STEP_CLOSE) {
        begin_closing(worker);
    }
}

/* Does what the step asks for now; returns when there is more to do without any event. */
static uint64_t advance(struct fc_worker *worker)
{
    uint64_t due;
    uint64_t churn;
    switch (worker->step) {
    case FC_STEP_CONNECT: return connect_some(worker);
    case FC_STEP_MESSAGES:
        if (fc_traffic_due(worker) <= fc_link_now())
            fc_traffic_pump(worker);
        due = fc_traffic_due(worker);
        churn = worker->run->churners > 0 ? churn_some(worker) : UINT64_MAX;
        worker->step_done = fc_traffic_done(worker) && worker->reopening == 0;
        return due < churn ? due : churn;
    case FC_STEP_CLOSE: close_some(worker); return UINT64_MAX;
    default: return UINT64_MAX;
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
    atomic_store_explicit(&worker->received, worker->live_received, memory_order_relaxed);
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

static void loop(struct fc_worker *worker)
{
    struct epoll_event events[BATCH];
    bool churns = worker->churn_first < worker->churn_end;
    uint64_t swept = 0;
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
        bool sweeps = churns || step == FC_STEP_CLOSE;
        int n = epoll_wait(worker->io.epoll, events, BATCH, sweeps ? SWEEP_MS : -1);
        for (int i = 0; i < n; i++)
            handle(worker, &events[i]);
        uint64_t now = fc_link_now();
        if (sweeps && now - swept > SWEEP_MS * 1000000u) {
            sweep(worker);
            swept = now;
        }
    }
}

/* Gives the thread a descriptor table of its own, so that the limit on descriptors counts for each thread.
 * Without the kernel's consent it goes on in the process's table, and the limit shows as failed connections.
 * The descriptors by which threads wake each other stay, with whatever little the process has between them.
 */
static bool own_table(const struct fc_run *run)
{
#ifdef __SANITIZE_THREAD__
    /* The sanitizer believes in one table for all threads: with several it sees races where there are none,
     * and, what is worse, order where there is none. */
    (void)run;
    return false;
#endif
    /* The first call unshares; only then is the other, which would hurt the process, made. */
    return syscall(SYS_close_range, (unsigned)run->wake_last + 1, ~0u, CLOSE_RANGE_UNSHARE) == 0 &&
           (run->wake_first <= 3 || syscall(SYS_close_range, 3, (unsigned)run->wake_first - 1, 0) == 0);
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
        note_error(worker, "a thread could not set up its event loop: errno", errno);
        fc_load_tally_add(&worker->failures, "no event loop", worker->count);
        atomic_store_explicit(&worker->failed, worker->count, memory_order_relaxed);
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
