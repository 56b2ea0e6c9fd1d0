/*
 * snapshot.h - what the host program gets to see while a run goes on.
 */
#ifndef FC_SNAPSHOT_H
#define FC_SNAPSHOT_H

#include "load.h"
#include "probe.h"

struct fc_conductor;

/* A histogram as it was at the last snapshot, and what came since. */
struct fc_snapshot_gain {
    struct fc_histogram seen;
    struct fc_histogram since;
};

struct fc_snapshots {
    uint64_t told_ns;           /* when the last one was */
    struct fc_histogram *total; /* scratch */
    struct fc_snapshot_gain *latency;
    struct fc_snapshot_gain *handshake;
    struct fc_probe_cpu *cpu;
};

/* Returns 0 or -ENOMEM; fc_snapshot_free() is due either way. */
int fc_snapshot_init(struct fc_snapshots *snapshots);

void fc_snapshot_free(struct fc_snapshots *snapshots);

/* When the next one is due; UINT64_MAX: never. */
uint64_t fc_snapshot_due(const struct fc_conductor *conductor);

/* Gives the host program a snapshot if it wants any and one is due, or if it is the last.  False when its
 * answer is that the run is to end. */
bool fc_snapshot_tell(struct fc_conductor *conductor, bool last);

#endif
