/* Writing to a client, and what waits when it lags. */
#ifndef FC_WRITE_H
#define FC_WRITE_H

#include "shard.h"

#include <sys/types.h>

/* Delivers data messages to a subscriber of the channel, or to this client alone if that's NULL: writes them, or lets
 * them wait as their rules say. */
void fc_write_messages(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                       struct fc_message *const *messages, unsigned n);

/* The same for an open client and n > 0 messages of a history, however many: no limit counts them while they wait. */
void fc_write_replay(struct fc_shard *shard, uint32_t slot, struct fc_channel *record,
                     struct fc_message *const *messages, unsigned n);

/* The two halves of that, for the fan-out, which counts what is sent for itself and writes to many clients at once: let
 * the messages wait, for a client with a queue; and for the others, what a write of them all has given. */
void fc_write_behind(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                     struct fc_message *const *messages, unsigned n);
void fc_write_done(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                   struct fc_message *const *messages, unsigned n, ssize_t result);

/* What the shard's queues tell when a message of theirs ends. */
void fc_write_ended(struct fc_queue_host *host, struct fc_channel *channel, enum fc_fate fate, uint64_t frames);

/* Writes what is for this client only, under no limit. NULL stands for missing memory. Takes over the reference. */
void fc_write_own(struct fc_shard *shard, uint32_t slot, struct fc_message *message);

/* Answers Pings: n bytes of Pongs, the latest of which begins at `last`. To a client for whom something waits only
 * that one goes out, ahead of the rest. */
void fc_write_pongs(struct fc_shard *shard, uint32_t slot, const uint8_t *pongs, size_t n, size_t last);

/* Writes what waits, until nothing does, the socket is full, or its turn is over: then the rest follows in another one. */
void fc_write_queued(struct fc_shard *shard, uint32_t slot);

/* Drops what waits, but for a frame that's begun. */
void fc_write_drop_unstarted(struct fc_shard *shard, struct fc_client *client);

/* Drops all that waits. */
void fc_write_forget(struct fc_shard *shard, struct fc_client *client);

#endif
