/*
 * load.c - a run from its options to its report: prepares what the workers need, starts and joins them.
 *
 * Everything of a run is allocated and freed here, by the thread that called fc_load_run().
 */
#include "load.h"

#include "capacity.h"
#include "conductor.h"
#include "plan.h"
#include "results.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int init_ledger(struct fc_run *run, const struct fc_load_options *options)
{
    uint32_t window = options->rate > 0 || options->in_flight > options->messages ? options->messages
                                                                                  : options->in_flight;
    switch (options->expect) {
    case FC_LOAD_EXPECT_ALL:
        return fc_ledger_init(&run->ledger, run->senders_total, options->messages, options->sender_base,
                              options->senders, window > 0 ? window : 1);
    case FC_LOAD_EXPECT_SENDER: return fc_ledger_init(&run->ledger, 1, options->messages, 0, 0, 1);
    default: return fc_ledger_init(&run->ledger, 0, 0, 0, 0, 1);
    }
}

static int prepare_run(struct fc_conductor *conductor, char *problem, size_t room)
{
    struct fc_run *run = &conductor->run;
    const struct fc_load_options *options = conductor->options;
    run->options = options;
    run->threads = fc_plan_threads(options);
    run->churners = fc_plan_churners(options);
    run->senders_total = fc_plan_senders(options);
    atomic_init(&run->step, FC_STEP_IDLE);
    int code =
        fc_target_init(&run->target, options->url, options->sources, options->connections, problem, room);
    if (code == 0)
        code = fc_capacity_check(options, &run->target, run->threads, problem, room);
    if (code == 0) {
        code = fc_handshake_init(&run->handshake, run->target.authority, run->target.path, options->headers,
                                 options->subprotocol);
    }
    if (code == 0)
        code = fc_arrivals_init(&run->arrivals, options, run->threads);
    if (code == 0)
        code = init_ledger(run, options);
    if (code == 0)
        code = fc_snapshot_init(&conductor->snapshots);
    if (code == 0) {
        run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        code = run->wake_fd >= 0 ? 0 : -errno;
    }
    return code;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int prepare_workers(struct fc_conductor *conductor, uint32_t *made)
{
    struct fc_run *run = &conductor->run;
    uint32_t connections = conductor->options->connections;
    run->workers = calloc(run->threads, sizeof *run->workers);
    run->wake_fds = calloc(run->threads + 1, sizeof *run->wake_fds);
    conductor->thread_before = calloc(run->threads, sizeof *conductor->thread_before);
    conductor->before = calloc(1, sizeof *conductor->before);
    conductor->after = calloc(1, sizeof *conductor->after);
    if (run->workers == NULL || run->wake_fds == NULL || conductor->thread_before == NULL ||
        conductor->before == NULL || conductor->after == NULL) {
        return -ENOMEM;
    }
    int code = 0;
    for (*made = 0; *made < run->threads && code == 0; ++*made) {
        uint32_t count = connections / run->threads + (*made < connections % run->threads);
        code = fc_worker_init(&run->workers[*made], run, *made, count);
        run->wake_fds[*made] = run->workers[*made].wake_fd;
    }
    run->wake_fds[run->threads] = run->wake_fd;
    qsort(run->wake_fds, run->threads + 1, sizeof *run->wake_fds, ascending);
    return code;
}

static int start_workers(struct fc_conductor *conductor)
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

static void join_workers(struct fc_conductor *conductor)
{
    fc_conductor_announce(conductor, FC_STEP_STOP);
    for (uint32_t i = 0; i < conductor->started; i++)
        pthread_join(conductor->run.workers[i].thread, NULL);
}

static int run_workers(struct fc_conductor *conductor)
{
    conductor->began_ns = fc_link_now();
    conductor->client_began = fc_conductor_thread_seconds(pthread_self());
    conductor->snapshots.told_ns = conductor->began_ns;
    conductor->deadline_ns = conductor->began_ns + (uint64_t)(conductor->options->timeout * 1e9);
    int code = start_workers(conductor);
    if (code == 0)
        fc_conductor_conduct(conductor);
    join_workers(conductor);
    if (code == 0)
        fc_results_add_up(conductor);
    return code;
}

static int run_all(struct fc_conductor *conductor, char *problem, size_t room)
{
    struct fc_run *run = &conductor->run;
    uint32_t made = 0;
    run->wake_fd = -1;
    int code = prepare_run(conductor, problem, room);
    if (code == 0)
        code = prepare_workers(conductor, &made);
    if (code == 0)
        code = run_workers(conductor);
    for (uint32_t i = 0; i < made; i++)
        fc_worker_free(&run->workers[i]);
    free(run->workers);
    free(run->wake_fds);
    free(conductor->thread_before);
    free(conductor->before);
    free(conductor->after);
    if (run->wake_fd >= 0)
        close(run->wake_fd);
    fc_snapshot_free(&conductor->snapshots);
    fc_ledger_free(&run->ledger);
    fc_arrivals_free(&run->arrivals);
    fc_handshake_free(&run->handshake);
    fc_target_free(&run->target);
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
    if (options->server_pid > 0 && kill(options->server_pid, 0) != 0 && errno == ESRCH) {
        snprintf(problem, room, "server_pid: there is no process %d", (int)options->server_pid);
        return -EINVAL;
    }
    struct fc_conductor *conductor = calloc(1, sizeof *conductor);
    if (conductor == NULL) {
        snprintf(problem, room, "the run could not start: out of memory");
        return -ENOMEM;
    }
    conductor->options = options;
    conductor->report = report;
    int code = run_all(conductor, problem, room);
    free(conductor);
    if (code != 0 && problem[0] == '\0')
        snprintf(problem, room, "the run could not start: %s", strerror(-code));
    return code;
}
