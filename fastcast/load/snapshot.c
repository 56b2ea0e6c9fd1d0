/*
 * snapshot.c - reads the workers' counters and histograms while they go on counting.  The coordinating
 * thread's.
 *
 * What is read is a moment late here and there (see counters.h), but nothing is counted twice: the gains of
 * all snapshots add up to the histograms of the report.
 */
#include "snapshot.h"

#include "conductor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fc_snapshot_init(struct fc_snapshots *snapshots)
{
    memset(snapshots, 0, sizeof *snapshots);
    snapshots->total = calloc(1, sizeof *snapshots->total);
    snapshots->latency = calloc(1, sizeof *snapshots->latency);
    snapshots->handshake = calloc(1, sizeof *snapshots->handshake);
    snapshots->cpu = calloc(1, sizeof *snapshots->cpu);
    bool whole = snapshots->total != NULL && snapshots->latency != NULL && snapshots->handshake != NULL &&
                 snapshots->cpu != NULL;
    return whole ? 0 : -ENOMEM;
}

void fc_snapshot_free(struct fc_snapshots *snapshots)
{
    free(snapshots->total);
    free(snapshots->latency);
    free(snapshots->handshake);
    free(snapshots->cpu);
}

/* `offset` is that of a histogram in struct fc_load_histograms. */
static const struct fc_histogram *gained(struct fc_conductor *conductor, struct fc_snapshot_gain *gain,
                                         size_t offset)
{
    struct fc_histogram *total = conductor->snapshots.total;
    fc_histogram_clear(total);
    for (uint32_t i = 0; i < conductor->started; i++) {
        const char *histograms = (const char *)&conductor->run.workers[i].histograms;
        fc_histogram_merge(total, (const struct fc_histogram *)(const void *)(histograms + offset));
    }
    fc_histogram_advance(&gain->since, &gain->seen, total);
    return &gain->since;
}

static void collect_tallies(struct fc_conductor *conductor, struct fc_load_tally *failures,
                            struct fc_load_tally *retried)
{
    for (uint32_t i = 0; i < conductor->started; i++) {
        struct fc_worker *worker = &conductor->run.workers[i];
        pthread_mutex_lock(&worker->tally_lock);
        fc_load_tally_merge(failures, &worker->failures);
        fc_load_tally_merge(retried, &worker->retried);
        pthread_mutex_unlock(&worker->tally_lock);
    }
}

static void measure(struct fc_conductor *conductor, struct fc_load_snapshot *snapshot)
{
    struct fc_probe_cpu *cpu = conductor->snapshots.cpu;
    struct fc_load_memory memory;
    fc_probe_cpu(conductor->options->server_pid, cpu);
    fc_probe_memory(conductor->options->server_pid, &memory);
    snapshot->server_known = cpu->known;
    snapshot->server_seconds = cpu->ticks_seconds > cpu->seconds ? cpu->ticks_seconds : cpu->seconds;
    snapshot->server_threads = cpu->threads;
    snapshot->server_pss = memory.server_pss;
    snapshot->server_rss = memory.server_rss;
    snapshot->kernel_tcp = memory.kernel_tcp;
    snapshot->kernel_slab = memory.kernel_slab;
    snapshot->client_seconds = fc_conductor_thread_seconds(pthread_self()) - conductor->client_began;
    for (uint32_t i = 0; i < conductor->started; i++)
        snapshot->client_seconds += fc_conductor_thread_seconds(conductor->run.workers[i].thread);
}

uint64_t fc_snapshot_due(const struct fc_conductor *conductor)
{
    const struct fc_load_options *options = conductor->options;
    return options->progress != NULL
               ? conductor->snapshots.told_ns + (uint64_t)(options->interval * 1e9)
               : UINT64_MAX;
}

bool fc_snapshot_tell(struct fc_conductor *conductor, bool last)
{
    const struct fc_load_options *options = conductor->options;
    struct fc_snapshots *snapshots = &conductor->snapshots;
    struct fc_load_tally failures = {.used = 0};
    struct fc_load_tally retried = {.used = 0};
    uint64_t now = fc_link_now();
    if (options->progress == NULL || (!last && now < fc_snapshot_due(conductor)))
        return true;
    snapshots->told_ns = now;
    collect_tallies(conductor, &failures, &retried);
    struct fc_load_snapshot snapshot = {
        .phase = conductor->phase,
        .seconds = (double)(now - conductor->began_ns) / 1e9,
        .made = fc_conductor_sum(conductor, offsetof(struct fc_counters, made)),
        .failed = fc_conductor_sum(conductor, offsetof(struct fc_counters, failed)),
        .open = fc_conductor_sum(conductor, offsetof(struct fc_counters, open)),
        .in_progress = fc_conductor_sum(conductor, offsetof(struct fc_counters, handshakes)),
        .waiting = fc_conductor_sum(conductor, offsetof(struct fc_counters, waiting)),
        .closed_unexpectedly = fc_conductor_sum(conductor, offsetof(struct fc_counters, lost)),
        .sent = fc_conductor_sum(conductor, offsetof(struct fc_counters, sent)),
        .received = fc_conductor_sum(conductor, offsetof(struct fc_counters, received)),
        .duplicated = fc_conductor_sum(conductor, offsetof(struct fc_counters, duplicated)),
        .reordered = fc_conductor_sum(conductor, offsetof(struct fc_counters, reordered)),
        .damaged = fc_conductor_sum(conductor, offsetof(struct fc_counters, damaged)),
        .unexpected = fc_conductor_sum(conductor, offsetof(struct fc_counters, unexpected)),
        .failures = &failures,
        .retried = &retried,
        .latency = gained(conductor, snapshots->latency, offsetof(struct fc_load_histograms, latency)),
        .handshake = gained(conductor, snapshots->handshake, offsetof(struct fc_load_histograms, handshake)),
    };
    measure(conductor, &snapshot);
    return options->progress(options->context, &snapshot) == 0;
}
