/* The shared part of a hub, where the threads meet.
 *
 * Lock order: a channel's lock, then a mailbox's. The requests' lock and the channel table's are taken alone.
 * No lock is held over a system call. Lives from before the first shard to after the last.
 */
#include "exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int open_mailboxes(struct fc_exchange *exchange)
{
    exchange->mailboxes = calloc(exchange->shards, sizeof *exchange->mailboxes);
    if (!exchange->mailboxes)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++)
        fc_mailbox_init(&exchange->mailboxes[i], -1, exchange->options.max_backlog / 4);
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

int fc_exchange_init(struct fc_exchange *exchange, const struct fc_options *options)
{
    *exchange = (struct fc_exchange){.options = *options, .shards = options->shards, .event_fd = -1};
    pthread_mutex_init(&exchange->requests_lock, NULL);

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
    fc_requests_free(exchange->requests, exchange->request_count);
    fc_channels_destroy(&exchange->channels);
    pthread_mutex_destroy(&exchange->requests_lock);
    if (exchange->event_fd >= 0)
        close(exchange->event_fd);
}

/* Follows up what a mailbox asked for, outside of all locks. That a mailbox drained may be counted before that it
 * filled: `congested` is signed, and below zero for that moment. */
static void act_on(struct fc_exchange *exchange, unsigned shard, int flags)
{
    if (flags & FC_MAILBOX_FILLED)
        atomic_fetch_add(&exchange->congested, 1);
    if (flags & FC_MAILBOX_WAKE)
        fc_mailbox_signal(&exchange->mailboxes[shard]);
    if (flags & FC_MAILBOX_DRAINED && atomic_fetch_sub(&exchange->congested, 1) == 1) {
        for (unsigned i = 0; i < exchange->shards; i++) {
            if (fc_mailbox_rouse(&exchange->mailboxes[i]))
                fc_mailbox_signal(&exchange->mailboxes[i]);
        }
    }
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
    channel->sequence += n;
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

size_t fc_exchange_requests(struct fc_exchange *exchange, struct fc_request **requests)
{
    eventfd_t ignored;

    /* Reset first: what comes between here and the lock makes it readable again, for nothing but one look. */
    while (eventfd_read(exchange->event_fd, &ignored) && errno == EINTR)
        continue;
    pthread_mutex_lock(&exchange->requests_lock);
    size_t n = exchange->request_count;
    *requests = exchange->requests;
    exchange->requests = NULL;
    exchange->request_count = 0;
    exchange->request_capacity = 0;
    pthread_mutex_unlock(&exchange->requests_lock);
    return n;
}

void fc_requests_free(struct fc_request *requests, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(requests[i].head);
    free(requests);
}

void fc_exchange_notify(const struct fc_exchange *exchange)
{
    while (eventfd_write(exchange->event_fd, 1) && errno == EINTR)
        continue;
}

int fc_exchange_ask(struct fc_exchange *exchange, uint64_t client, const uint8_t *head, size_t length)
{
    uint8_t *copy = malloc(length);
    int error = copy ? 0 : -ENOMEM;

    if (error)
        return error;
    memcpy(copy, head, length);
    pthread_mutex_lock(&exchange->requests_lock);
    if (exchange->request_count == exchange->request_capacity) {
        size_t capacity = exchange->request_capacity ? 2 * exchange->request_capacity : 64;
        struct fc_request *grown = realloc(exchange->requests, capacity * sizeof *grown);
        if (grown) {
            exchange->requests = grown;
            exchange->request_capacity = capacity;
        } else {
            error = -ENOMEM;
        }
    }
    if (!error)
        exchange->requests[exchange->request_count++] =
            (struct fc_request){.client = client, .length = length, .head = copy};
    pthread_mutex_unlock(&exchange->requests_lock);
    if (error)
        free(copy);
    return error;
}

int fc_exchange_vacancy(struct fc_exchange *exchange)
{
    int best = -1;
    int most = 0;

    for (unsigned i = 0; i < exchange->shards; i++) {
        /* Relaxed: a hint; the shard that gets the client looks for itself. */
        int vacant = atomic_load_explicit(&exchange->vacant[i], memory_order_relaxed);
        if (vacant > most) {
            most = vacant;
            best = (int)i;
        }
    }
    return best;
}
