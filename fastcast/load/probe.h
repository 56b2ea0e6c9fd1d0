/*
 * probe.h - what /proc says about the server under load: processor time and memory.
 *
 * Any thread may call; each call opens, reads and closes files of its own.
 */
#ifndef FC_PROBE_H
#define FC_PROBE_H

#include "load.h"

#define FC_PROBE_THREADS 1024u

/* The processor time that a process had used at one moment. */
struct fc_probe_cpu {
    bool known;
    double seconds;       /* of all living threads, from schedstat */
    double ticks_seconds; /* of the whole process, in clock ticks */
    unsigned threads;
    struct {
        pid_t id;
        double seconds;
    } thread[FC_PROBE_THREADS];
};

/* A process that does not exist, or is 0, is not known. */
void fc_probe_cpu(pid_t pid, struct fc_probe_cpu *cpu);

/* The time that the busiest single thread used from one moment to another. */
double fc_probe_busiest(const struct fc_probe_cpu *before, const struct fc_probe_cpu *after);

/* Of the process (0: none) and of the kernel. */
void fc_probe_memory(pid_t pid, struct fc_load_memory *memory);

#endif
