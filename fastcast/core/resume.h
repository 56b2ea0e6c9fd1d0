/* Clients that know where they are in the histories of their channels, and go on from there. */
#ifndef FC_RESUME_H
#define FC_RESUME_H

#include "shard.h"

/* Makes the client, which resumes, a member of all the channels that it was admitted to, and writes what it missed; if it's
 * open. Takes over the admission. The client may be lost. */
void fc_resume_all(struct fc_shard *shard, uint64_t client, struct fc_admission *admission);

/* Subscribes an open client to the channel; if it resumes, and the channel has a history, to its record. The client may be
 * lost. */
void fc_resume_subscribe(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                         const struct fc_subscription *subscription);

/* Something waits to be written to the client in another turn: the next piece of a history. The client may be lost. */
void fc_resume_later(struct fc_shard *shard, uint32_t slot);

/* Gives some of the shard's `writers` their turns. */
void fc_resume_some(struct fc_shard *shard);

/* Whether clients of the shard have missed a message of a record for want of memory. */
static inline bool fc_resume_has_lost(const struct fc_shard *shard)
{
    return atomic_load_explicit(&shard->exchange->lost[shard->index], memory_order_acquire);
}

/* Drops those: they come back, and get it. */
void fc_resume_drop_lost(struct fc_shard *shard);

/* Ends that, whichever of the two it was. */
void fc_resume_unsubscribe(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel);

#endif
