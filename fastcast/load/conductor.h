/*
 * conductor.h - leads the workers of a run from phase to phase and takes the measurements between them.
 *
 * A conductor belongs to the thread that called fc_load_run(), which fills it in, frees it, and is the only
 * one to touch it.
 */
#ifndef FC_CONDUCTOR_H
#define FC_CONDUCTOR_H

#include "probe.h"
#include "snapshot.h"
#include "worker.h"

struct fc_conductor {
    struct fc_run run;
    const struct fc_load_options *options;
    struct fc_load_report *report;
    struct fc_snapshots snapshots;
    uint32_t started;     /* workers */
    uint64_t began_ns;    /* when the run did */
    double client_began;  /* processor time of this thread then */
    uint64_t deadline_ns; /* of all phases but hold and close */
    bool cancelled;
    enum fc_load_phase phase;
    uint64_t phase_ns;
    double client_before;
    double *thread_before; /* of each worker */
    uint64_t published;    /* received by the end of the hold phase since the message phase began */
    struct fc_probe_cpu *before;
    struct fc_probe_cpu *after;
};

/* Takes the workers, which are running, through all phases.  They are told to stop at the end. */
void fc_conductor_conduct(struct fc_conductor *conductor);

/* Tells the workers to begin a step. */
void fc_conductor_announce(struct fc_conductor *conductor, int step);

/* Seconds of processor time that a thread has used. */
double fc_conductor_thread_seconds(pthread_t thread);

/* Adds up one of the workers' counters, named by its offset in struct fc_counters. */
uint64_t fc_conductor_sum(const struct fc_conductor *conductor, size_t offset);

#endif
