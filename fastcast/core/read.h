/* Reading from a client. */
#ifndef FC_READ_H
#define FC_READ_H

#include "shard.h"

/* Whether a client in its state is read from at all. */
bool fc_read_wanted(const struct fc_client *client);

/* Puts the client in line to be read from. */
void fc_read_later(struct fc_shard *shard, struct fc_client *client, uint32_t slot);

/* Reads once, as the client's state asks for, and puts it back in line if there may be more. */
void fc_read_once(struct fc_shard *shard, uint32_t slot);

/* Takes bytes of an OPEN or CLOSING client, wherever they were read. */
void fc_read_frames(struct fc_shard *shard, uint32_t slot, const uint8_t *bytes, size_t n);

/* Frees what is kept of a frame or message that isn't complete. */
void fc_read_forget(struct fc_client *client);

#endif
