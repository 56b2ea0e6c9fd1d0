/* From a message to the shards whose clients are to hear it. */
#ifndef FC_PUBLISH_H
#define FC_PUBLISH_H

#include "exchange.h"

/* Publishes up to FC_PUBLISH_MAX messages to one or more channels, in this order and in one piece: all members hear them
 * in the same order, on whatever shard they are. Consumes the references of the messages. Sorts the channels. Returns how
 * many deliveries were lost because a shard could not be told for want of memory: normally 0. *reached, if not NULL: the
 * others. */
uint64_t fc_publish(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                    struct fc_message *const *messages, unsigned n, uint64_t *reached);

/* The same for one message that has an offset from outside, in the history of the record among the channels. */
uint64_t fc_publish_record(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                           struct fc_message *message, uint64_t offset, uint64_t *reached);

/* The same for a message that the record among the channels has already, and its members with it: for all others. */
uint64_t fc_publish_others(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                           struct fc_message *message, uint64_t *reached);

/* Has the record, which is led, begin anew behind the offset, and tells its members. 0, -EINVAL or -ENOMEM. */
int fc_publish_gap(struct fc_exchange *exchange, struct fc_channel *record, uint64_t offset);

/* Whether what is published to the channel goes to just its members, and is kept nowhere. */
bool fc_publish_is_simple(struct fc_exchange *exchange, const struct fc_channel *channel);

#endif
