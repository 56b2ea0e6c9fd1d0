/* One client of a shard: the steps of its life.
 *
 * Any of these, and of read.h and write.h, may find that the client is lost and drop it: a caller that goes on
 * with the client finds it by its id again.
 */
#ifndef FC_CONN_H
#define FC_CONN_H

#include "shard.h"

/* A new connection. A refused one gets a 503 when its request has come, and doesn't count as a client. */
void fc_conn_start(struct fc_shard *shard, int fd, bool refused);

/* What the kernel tells of its socket: FC_IO_* bits. */
void fc_conn_event(struct fc_shard *shard, uint32_t slot, uint32_t what);

/* Python's answer to an ASKED client. Takes over the references. */
void fc_conn_answer(struct fc_shard *shard, uint32_t slot, const struct fc_command *answer);

/* Tells Python, if it wants to hear of it, of the end of a client that it had accepted. */
void fc_conn_tell_closed(struct fc_shard *shard, uint64_t id, uint16_t code, const void *reason, size_t n);

/* Answers a client in HEAD or ASKED with a complete HTTP response, and ends. */
void fc_conn_respond(struct fc_shard *shard, uint32_t slot, struct fc_span response);

void fc_conn_ping(struct fc_shard *shard, uint32_t slot);

/* Closes an OPEN client, and waits for its Close: 1001, behind what waits for it; or 1008, because it's slow, and then
 * only a frame that's begun still goes out. */
void fc_conn_close(struct fc_shard *shard, uint32_t slot, uint16_t code);

/* Closes an OPEN client as Python wants it, with a complete Close frame. */
void fc_conn_dismiss(struct fc_shard *shard, uint32_t slot, struct fc_message *close);

/* The last word to a LEAVING client: the answer to its Close, which had the reason (NULL: none), or the code of its
 * error. */
void fc_conn_say_close(struct fc_shard *shard, uint32_t slot, uint16_t code, struct fc_message *reason);

/* All is said to an ENDING client: shuts down our side, and waits for the client's. */
void fc_conn_shut_down(struct fc_shard *shard, uint32_t slot);

/* Whether a client whose request waits for us has hung up meanwhile; and its end, counted as shed. */
bool fc_conn_has_given_up(const struct fc_shard *shard, const struct fc_client *client);
void fc_conn_shed(struct fc_shard *shard, uint32_t slot);

/* Closes the socket and frees the slot, at once. */
void fc_conn_drop(struct fc_shard *shard, uint32_t slot);

/* The same for one that was given up: what the kernel still holds for it is thrown away (RST). */
void fc_conn_abort(struct fc_shard *shard, uint32_t slot);

#endif
