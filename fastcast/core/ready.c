/* The ring behind ready.h. Ids, not slots: a client may go while its id is in the ring.
 * Owned by the shard's thread. */
#include "ready.h"

#include <errno.h>
#include <stdlib.h>

static int grow(struct fc_ready *ready)
{
    uint32_t capacity = ready->capacity ? 2 * ready->capacity : 64;
    uint64_t *ids = malloc(capacity * sizeof *ids);

    if (!ids)
        return -ENOMEM;
    for (uint32_t i = 0; i < ready->count; i++)
        ids[i] = ready->ids[(ready->first + i) & (ready->capacity - 1)];
    free(ready->ids);
    *ready = (struct fc_ready){.ids = ids, .count = ready->count, .capacity = capacity};
    return 0;
}

int fc_ready_push(struct fc_ready *ready, uint64_t id)
{
    if (ready->count == ready->capacity && grow(ready))
        return -ENOMEM;
    ready->ids[(ready->first + ready->count++) & (ready->capacity - 1)] = id;
    return 0;
}

bool fc_ready_pop(struct fc_ready *ready, uint64_t *id)
{
    if (ready->count == 0)
        return false;
    *id = ready->ids[ready->first];
    ready->first = (ready->first + 1) & (ready->capacity - 1);
    if (--ready->count == 0 && ready->capacity > 4096)
        fc_ready_free(ready); /* a storm is over */
    return true;
}

void fc_ready_free(struct fc_ready *ready)
{
    free(ready->ids);
    *ready = (struct fc_ready){0};
}
