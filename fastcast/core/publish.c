/* Publishing: one critical section over the channels that hear a message, their record among them, so that all their members
 * hear the same order, on whatever shard they are.
 */
#include "publish.h"

#include "clock.h"

#include <errno.h>
#include <stdlib.h>

static int compare_channels(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)*(struct fc_channel *const *)a;
    uintptr_t right = (uintptr_t)*(struct fc_channel *const *)b;

    return left < right ? -1 : left > right;
}

/* Who hears what is put into the shard's mailbox now. */
static uint64_t hearers(const struct fc_channel *channel, unsigned shard)
{
    return (uint64_t)channel->seats[shard].members + channel->seats[shard].coming;
}

/* How many are to hear it there: who is coming is counted with the channel, and not once more with its record. */
static uint64_t audience(const struct fc_channel *channel, unsigned shard)
{
    return channel->history ? channel->seats[shard].members : hearers(channel, shard);
}

/* What the record has isn't put into the shard's mailbox. */
static void lose(struct fc_exchange *exchange, struct fc_channel *record, unsigned shard)
{
    record->seats[shard].losses++;
    fc_exchange_lose(exchange, record, shard);
}

/* Whether the shard is told of what goes to the channel. Of a record also where a pattern brings the same message: who joins
 * it meanwhile has that from its replay, and isn't to get it by the pattern as well. */
static bool is_told(struct fc_channel *const *channels, unsigned count, const struct fc_channel *channel, unsigned shard)
{
    if (hearers(channel, shard) > 0)
        return true;
    for (unsigned k = 0; channel->history && k < count; k++) {
        if (channels[k]->pattern && hearers(channels[k], shard) > 0)
            return true;
    }
    return false;
}

#define FEW_COMMANDS FC_PUBLISH_MAX

/* What is published, and what of it goes to the record among the channels, if there is one. */
struct publication {
    struct fc_message *const *messages;
    unsigned n;
    bool muted;    /* for the record */
    unsigned made; /* of `recorded`: n or 0 */
    struct fc_message *recorded[FC_PUBLISH_MAX];
};

static struct fc_message *message_for(const struct publication *publication, const struct fc_channel *channel, unsigned i)
{
    return channel->history && !publication->muted ? publication->recorded[i] : publication->messages[i];
}

/* The commands that tell a shard of the messages: for each message one for every channel with members there, side by
 * side. The locks of the channels are held. Returns flags of the mailbox, or -ENOMEM. */
static int tell_shard(struct fc_exchange *exchange, unsigned shard, struct fc_channel *const *channels, unsigned count,
                      unsigned there, const struct publication *publication)
{
    struct fc_command few[FEW_COMMANDS];
    struct fc_command *commands = few;
    size_t weight = 0;
    uint32_t total = publication->n * there;
    uint32_t made = 0;

    if (total > FEW_COMMANDS && !(commands = malloc(total * sizeof *commands)))
        return -ENOMEM;
    for (unsigned i = 0; i < publication->n; i++) {
        for (unsigned k = 0; k < count; k++) {
            if (!is_told(channels, count, channels[k], shard))
                continue;
            struct fc_message *message = message_for(publication, channels[k], i);
            /* The references must be there before the shard can see the commands, and drop them. */
            commands[made++] = (struct fc_command){
                .kind = FC_COMMAND_PUBLISH,
                .more = true,
                .muted = channels[k]->history && publication->muted,
                .channel = fc_channel_ref(channels[k]),
                .message = fc_message_ref(message),
            };
            weight += fc_message_weight(message);
        }
        commands[made - 1].more = false;
    }
    int result = fc_mailbox_put(&exchange->mailboxes[shard], commands, total, weight);
    for (unsigned k = 0; result >= 0 && k < count; k++) {
        if (channels[k]->history && !publication->muted && is_told(channels, count, channels[k], shard))
            channels[k]->seats[shard].told += publication->n;
    }
    for (uint32_t i = 0; result < 0 && i < total; i++) {
        /* Never the last ones, since the caller holds some: the table's lock isn't taken under ours. */
        fc_message_unref(commands[i].message);
        fc_channel_unref(&exchange->channels, commands[i].channel);
    }
    if (commands != few)
        free(commands);
    return result;
}

/* Has the record among the channels keep the messages, and make what goes to its members. Without memory for that it's
 * put last, and *count doesn't include it any more. The locks of the channels are held. */
static void record(struct fc_exchange *exchange, struct fc_channel **channels, unsigned *count, uint64_t offset,
                   struct publication *publication)
{
    for (unsigned k = 0; k < *count; k++) {
        struct fc_channel *channel = channels[k];
        if (!channel->history)
            continue;
        if (fc_history_append(&exchange->histories, channel->history, publication->messages, publication->n, offset,
                              fc_clock_ms(), publication->recorded)) {
            channels[k] = channels[--*count];
            channels[*count] = channel;
        } else {
            publication->made = publication->n;
        }
        return;
    }
}

/* Tells the shards whose members are to hear it. Returns how many deliveries were lost. */
static uint64_t spread(struct fc_exchange *exchange, struct fc_channel *const *channels, unsigned count,
                       const struct publication *publication, uint8_t *flags, uint64_t *members)
{
    uint64_t lost = 0;

    for (unsigned shard = 0; shard < exchange->shards; shard++) {
        uint64_t here = 0;
        unsigned there = 0;
        flags[shard] = 0;
        for (unsigned k = 0; k < count; k++) {
            here += channels[k]->history && publication->muted ? 0 : audience(channels[k], shard);
            there += is_told(channels, count, channels[k], shard);
        }
        if (there == 0)
            continue;
        int result = tell_shard(exchange, shard, channels, count, there, publication);
        *members += here;
        if (result >= 0) {
            flags[shard] = (uint8_t)result;
            continue;
        }
        lost += publication->n * here;
        for (unsigned k = 0; k < count; k++) {
            if (channels[k]->history && !publication->muted)
                lose(exchange, channels[k], shard);
        }
    }
    return lost;
}

static uint64_t publish(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                        struct fc_message *const *messages, unsigned n, uint64_t offset, bool muted, uint64_t *reached)
{
    struct publication publication;
    uint8_t flags[FC_SHARD_MAX];
    unsigned hearing = count;
    uint64_t members = 0;
    uint64_t lost = 0;

    publication.messages = messages;
    publication.n = n;
    publication.muted = muted;
    publication.made = 0;
    if (count > 1)
        qsort(channels, count, sizeof(struct fc_channel *), compare_channels);
    for (unsigned k = 0; k < count; k++)
        pthread_mutex_lock(&channels[k]->lock);
    if (exchange->channels.keeps && !muted)
        record(exchange, channels, &hearing, offset, &publication);
    for (unsigned shard = 0; hearing < count && shard < exchange->shards; shard++) { /* before anybody hears it by a pattern */
        members += audience(channels[hearing], shard);
        lost += n * audience(channels[hearing], shard);
        lose(exchange, channels[hearing], shard);
    }
    lost += spread(exchange, channels, hearing, &publication, flags, &members);
    for (unsigned i = 0; i < publication.made; i++)
        fc_message_unref(publication.recorded[i]);
    for (unsigned k = count; k > 0; k--)
        pthread_mutex_unlock(&channels[k - 1]->lock);

    for (unsigned shard = 0; shard < exchange->shards; shard++)
        fc_exchange_act_on(exchange, shard, flags[shard]);
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(messages[i]);
    fc_histories_trim(&exchange->histories, &exchange->channels);
    if (reached)
        *reached = n * members - lost;
    return lost;
}

uint64_t fc_publish(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                    struct fc_message *const *messages, unsigned n, uint64_t *reached)
{
    return publish(exchange, channels, count, messages, n, 0, false, reached);
}

uint64_t fc_publish_record(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                           struct fc_message *message, uint64_t offset, uint64_t *reached)
{
    return publish(exchange, channels, count, &message, 1, offset, false, reached);
}

uint64_t fc_publish_others(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                           struct fc_message *message, uint64_t *reached)
{
    return publish(exchange, channels, count, &message, 1, 0, true, reached);
}

int fc_publish_gap(struct fc_exchange *exchange, struct fc_channel *record, uint64_t offset)
{
    struct publication publication = {.n = 1};
    uint8_t flags[FC_SHARD_MAX] = {0};
    uint64_t members = 0;
    int error = -EINVAL;

    pthread_mutex_lock(&record->lock);
    if (record->history->led) {
        publication.recorded[0] = fc_history_skip(&exchange->histories, record->history, offset);
        error = !publication.recorded[0] || spread(exchange, &record, 1, &publication, flags, &members) > 0 ? -ENOMEM : 0;
        for (unsigned shard = 0; !publication.recorded[0] && shard < exchange->shards; shard++)
            lose(exchange, record, shard);
        fc_message_unref(publication.recorded[0]);
    }
    pthread_mutex_unlock(&record->lock);
    for (unsigned shard = 0; shard < exchange->shards; shard++)
        fc_exchange_act_on(exchange, shard, flags[shard]);
    return error;
}

bool fc_publish_is_simple(struct fc_exchange *exchange, const struct fc_channel *channel)
{
    return channel == exchange->everyone ||
           (!fc_channels_have_patterns(&exchange->channels) && !fc_rule_keeps(&exchange->rules[channel->rule]));
}
