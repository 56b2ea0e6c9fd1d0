/* The links behind waiting.h. Owned by the shard's thread. */
#include "waiting.h"

#include <stddef.h>

void fc_waiting_init(struct fc_waiting *waiting)
{
    *waiting = (struct fc_waiting){.newest = FC_NO_SLOT};
}

void fc_waiting_add(struct fc_waiting *waiting, const struct fc_clients *clients, uint32_t slot)
{
    struct fc_client *client = fc_clients_at(clients, slot);

    client->line.newer = FC_NO_SLOT;
    client->line.older = waiting->newest;
    if (waiting->newest != FC_NO_SLOT)
        fc_clients_at(clients, waiting->newest)->line.newer = slot;
    waiting->newest = slot;
    waiting->count++;
    client->ready = 1;
}

void fc_waiting_remove(struct fc_waiting *waiting, const struct fc_clients *clients, uint32_t slot)
{
    struct fc_client *client = fc_clients_at(clients, slot);
    uint32_t newer = client->line.newer;
    uint32_t older = client->line.older;

    if (newer != FC_NO_SLOT)
        fc_clients_at(clients, newer)->line.older = older;
    else
        waiting->newest = older;
    if (older != FC_NO_SLOT)
        fc_clients_at(clients, older)->line.newer = newer;
    waiting->count--;
    client->ready = 0;
    client->room = NULL; /* where the links were */
}
