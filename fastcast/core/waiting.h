/* Clients of a shard whose requests have come, wholly or in part, and aren't read yet: the newest is read first.
 *
 * In peace nobody waits, and the order doesn't matter. When more connect than can be served, it does: served in the
 * order of their coming, each would get its answer after its patience has ended, and come again. The newest first, and
 * those who waited too long not at all, means that all the work goes to clients who are still there.
 */
#ifndef FC_WAITING_H
#define FC_WAITING_H

#include "client.h"

/* A list through the slots: whoever leaves leaves it at once, whatever its place. */
struct fc_waiting {
    uint32_t newest; /* FC_NO_SLOT: nobody waits */
    uint32_t count;
};

void fc_waiting_init(struct fc_waiting *waiting);

/* A client in the state HEAD that isn't in the list. */
void fc_waiting_add(struct fc_waiting *waiting, const struct fc_clients *clients, uint32_t slot);

/* One that is. */
void fc_waiting_remove(struct fc_waiting *waiting, const struct fc_clients *clients, uint32_t slot);

#endif
