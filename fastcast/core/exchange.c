/* The shared part of a hub, where the threads meet.
 *
 * Lock order: a channel's lock, then a mailbox's. The inboxes' locks and the channel table's are taken alone.
 * Under a lock nothing waits for the kernel, but memory may be allocated. Lives from before the first shard to after
 * the last.
 */
#include "exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int open_mailboxes(struct fc_exchange *exchange)
{
    exchange->mailboxes = calloc(exchange->shards, sizeof *exchange->mailboxes);
    if (!exchange->mailboxes)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++)
        fc_mailbox_init(&exchange->mailboxes[i], -1, exchange->options.max_backlog / 2 / exchange->shards);
    exchange->vacant = calloc(exchange->shards, sizeof *exchange->vacant);
    if (!exchange->vacant)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++) {
        exchange->mailboxes[i].wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (exchange->mailboxes[i].wake < 0)
            return -errno;
    }
    return 0;
}

static uint32_t share(uint32_t total, unsigned shards, uint32_t least)
{
    uint32_t each = total / shards;

    return each > least ? each : least;
}

int fc_exchange_init(struct fc_exchange *exchange, const struct fc_options *options)
{
    *exchange = (struct fc_exchange){.options = *options, .shards = options->shards, .event_fd = -1};
    exchange->asked_each = share(FC_ASKED_MAX, options->shards, 16);
    exchange->handshakes_each = share(options->max_handshakes, options->shards, 1);
    /* Twice what the shards may ask: reached only if Python is stuck for so long that the clients give up. */
    fc_inbox_init(&exchange->requests, (size_t)options->shards * exchange->asked_each * 2048);
    fc_inbox_init(&exchange->messages, options->max_backlog / 4);

    int error = fc_channels_init(&exchange->channels, options->shards);
    if (!error)
        error = open_mailboxes(exchange);
    if (!error) {
        exchange->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (exchange->event_fd < 0)
            error = -errno;
    }
    if (error)
        fc_exchange_destroy(exchange);
    return error;
}

void fc_exchange_destroy(struct fc_exchange *exchange)
{
    if (exchange->mailboxes) {
        for (unsigned i = 0; i < exchange->shards; i++) {
            struct fc_mailbox *mailbox = &exchange->mailboxes[i];
            for (uint32_t k = 0; k < mailbox->count; k++) {
                fc_channel_unref(&exchange->channels, mailbox->commands[k].channel);
                fc_message_unref(mailbox->commands[k].message);
            }
            fc_mailbox_destroy(mailbox);
        }
    }
    free(exchange->mailboxes);
    free(exchange->vacant);
    fc_inbox_destroy(&exchange->requests, &exchange->channels);
    fc_inbox_destroy(&exchange->messages, &exchange->channels);
    fc_channels_destroy(&exchange->channels);
    if (exchange->event_fd >= 0)
        close(exchange->event_fd);
}

/* One less of what keeps the shards from something; the last one wakes them. */
static void count_drained(struct fc_exchange *exchange, atomic_int *reasons)
{
    if (atomic_fetch_sub(reasons, 1) != 1)
        return;
    for (unsigned i = 0; i < exchange->shards; i++) {
        if (fc_mailbox_rouse(&exchange->mailboxes[i]))
            fc_mailbox_signal(&exchange->mailboxes[i]);
    }
}

/* Follows up what a mailbox asked for, outside of all locks. That a mailbox drained may be counted before that it
 * filled: `congested` is signed, and below zero for that moment. */
static void act_on(struct fc_exchange *exchange, unsigned shard, int flags)
{
    if (flags & FC_MAILBOX_FILLED)
        atomic_fetch_add(&exchange->congested, 1);
    if (flags & FC_MAILBOX_WAKE)
        fc_mailbox_signal(&exchange->mailboxes[shard]);
    if (flags & FC_MAILBOX_DRAINED)
        count_drained(exchange, &exchange->congested);
}

uint64_t fc_exchange_publish(struct fc_exchange *exchange, struct fc_channel *channel,
                             struct fc_message *const *messages, unsigned n)
{
    struct fc_command commands[FC_PUBLISH_MAX];
    uint8_t flags[FC_SHARD_MAX];
    size_t weight = 0;
    uint64_t lost = 0;

    for (unsigned i = 0; i < n; i++) {
        commands[i] = (struct fc_command){.kind = FC_COMMAND_PUBLISH, .channel = channel, .message = messages[i]};
        weight += fc_message_weight(messages[i]);
    }

    pthread_mutex_lock(&channel->lock);
    for (unsigned shard = 0; shard < exchange->shards; shard++) {
        flags[shard] = 0;
        if (channel->seats[shard].members == 0)
            continue;
        /* The references must be there before the shard can see the commands, and drop them. */
        for (unsigned i = 0; i < n; i++) {
            fc_channel_ref(channel);
            fc_message_ref(messages[i]);
        }
        int result = fc_mailbox_put(&exchange->mailboxes[shard], commands, n, weight);
        if (result >= 0) {
            flags[shard] = (uint8_t)result;
            continue;
        }
        lost += (uint64_t)n * channel->seats[shard].members;
        for (unsigned i = 0; i < n; i++) {
            fc_message_unref(messages[i]);
            /* Never the last one, since the caller holds one: the table's lock isn't taken under ours. */
            fc_channel_unref(&exchange->channels, channel);
        }
    }
    pthread_mutex_unlock(&channel->lock);

    for (unsigned shard = 0; shard < exchange->shards; shard++)
        act_on(exchange, shard, flags[shard]);
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(messages[i]);
    return lost;
}

int fc_exchange_command(struct fc_exchange *exchange, unsigned shard, const struct fc_command *commands, uint32_t n)
{
    int flags = fc_mailbox_put(&exchange->mailboxes[shard], commands, n, 0);

    if (flags < 0) {
        for (uint32_t i = 0; i < n; i++) {
            fc_channel_unref(&exchange->channels, commands[i].channel);
            fc_message_unref(commands[i].message);
        }
        return flags;
    }
    act_on(exchange, shard, flags);
    return 0;
}

void fc_exchange_settle(struct fc_exchange *exchange, unsigned shard, size_t bytes)
{
    if (bytes > 0)
        act_on(exchange, shard, fc_mailbox_settle(&exchange->mailboxes[shard], bytes));
}

void fc_exchange_reset(const struct fc_exchange *exchange)
{
    eventfd_t ignored;

    while (eventfd_read(exchange->event_fd, &ignored) && errno == EINTR)
        continue;
}

struct fc_events *fc_exchange_requests(struct fc_exchange *exchange)
{
    bool drained;
    struct fc_events *events = fc_inbox_take(&exchange->requests, &drained);

    if (drained)
        count_drained(exchange, &exchange->held);
    return events;
}

struct fc_events *fc_exchange_messages(struct fc_exchange *exchange)
{
    bool drained;
    struct fc_events *events = fc_inbox_take(&exchange->messages, &drained);

    if (drained)
        count_drained(exchange, &exchange->congested);
    return events;
}

void fc_exchange_notify(const struct fc_exchange *exchange)
{
    while (eventfd_write(exchange->event_fd, 1) && errno == EINTR)
        continue;
}

int fc_exchange_ask(struct fc_exchange *exchange, uint64_t client, const uint8_t *head, size_t length)
{
    struct fc_message *copy = fc_message_raw(&exchange->account, head, length);

    if (!copy)
        return -ENOMEM;
    struct fc_event event = {.client = client, .bytes = {fc_message_payload(copy), length}, .message = copy};
    int result = fc_inbox_put(&exchange->requests, &event, 1);
    if (result < 0) {
        fc_message_unref(copy);
        return result;
    }
    if (result > 0)
        atomic_fetch_add(&exchange->held, 1);
    return 0;
}

int fc_exchange_hand_over(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel,
                          struct fc_message *const *messages, unsigned n)
{
    struct fc_event events[FC_PUBLISH_MAX];

    if (n == 0)
        return 0;
    if (atomic_load_explicit(&exchange->stopping, memory_order_relaxed)) { /* nobody takes them any more */
        for (unsigned i = 0; i < n; i++)
            fc_message_unref(messages[i]);
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        struct fc_message *message = messages[i];
        events[i] = (struct fc_event){
            .client = client,
            .bytes = {fc_message_payload(message), message->start + message->size - FC_FRAME_HEADER_MAX},
            .channel = {channel->name, channel->length},
            .text = (fc_message_wire(message)[0] & 0x0F) == FC_OP_TEXT,
            .message = message,
            .origin = fc_channel_ref(channel),
        };
    }
    int result = fc_inbox_put(&exchange->messages, events, n);
    if (result < 0) {
        for (unsigned i = 0; i < n; i++) {
            fc_message_unref(messages[i]);
            fc_channel_unref(&exchange->channels, channel);
        }
        return result;
    }
    if (result > 0)
        atomic_fetch_add(&exchange->congested, 1);
    return 0;
}

bool fc_exchange_reserve(struct fc_exchange *exchange, unsigned shard)
{
    /* Relaxed, here and below: numbers of places, which order nothing. */
    int vacant = atomic_load_explicit(&exchange->vacant[shard], memory_order_relaxed);

    while (vacant > 0) {
        if (atomic_compare_exchange_weak_explicit(&exchange->vacant[shard], &vacant, vacant - 1,
                                                  memory_order_relaxed, memory_order_relaxed))
            return true;
    }
    return false;
}

void fc_exchange_vacate(struct fc_exchange *exchange, unsigned shard)
{
    atomic_fetch_add_explicit(&exchange->vacant[shard], 1, memory_order_relaxed);
}

int fc_exchange_reserve_any(struct fc_exchange *exchange)
{
    for (;;) {
        int best = -1;
        int most = 0;
        for (unsigned i = 0; i < exchange->shards; i++) {
            int vacant = atomic_load_explicit(&exchange->vacant[i], memory_order_relaxed);
            if (vacant > most) {
                most = vacant;
                best = (int)i;
            }
        }
        if (best < 0 || fc_exchange_reserve(exchange, (unsigned)best))
            return best;
    }
}
