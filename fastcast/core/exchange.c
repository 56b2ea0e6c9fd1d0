/* The shared part of a hub, where the threads meet.
 *
 * Lock order: channels' locks in the order of their addresses, then a mailbox's, or that of the histories. The inboxes'
 * locks, the addresses' and the channel table's are taken alone.
 * Under a lock nothing waits for the kernel, but memory may be allocated. Lives from before the first shard to after
 * the last.
 */
#include "exchange.h"

#include "clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
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
    exchange->lost = calloc(exchange->shards, sizeof *exchange->lost);
    if (!exchange->vacant || !exchange->lost)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++) {
        exchange->mailboxes[i].wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (exchange->mailboxes[i].wake < 0)
            return -errno;
    }
    return 0;
}

/* No name is taken in by it: see fc_rules_lossless. */
static struct fc_rule lossless(const struct fc_rule *rule)
{
    return (struct fc_rule){.channels = {"", 0}, .policy = FC_POLICY_CLOSE, .max_queue = rule->max_queue};
}

/* The options' rules, and as the last one that for the other channels. Behind each that keeps something is one for what is
 * sent to records; but before the last, which stays that. */
static int make_rules(struct fc_exchange *exchange)
{
    const struct fc_options *options = &exchange->options;
    struct fc_rule last = {
        .channels = {">", 1},
        .policy = options->policy,
        .max_queue = options->max_queue,
        .max_messages = options->max_messages,
        .keep_messages = options->keep_messages,
        .keep_time = options->keep_time,
    };
    unsigned count = 0;

    exchange->rules = malloc(2 * (options->rule_count + 1) * sizeof *exchange->rules);
    if (!exchange->rules)
        return -ENOMEM;
    for (unsigned i = 0; i < options->rule_count; i++) {
        exchange->rules[count++] = options->rules[i];
        if (fc_rule_keeps(&options->rules[i]))
            exchange->rules[count++] = lossless(&options->rules[i]);
    }
    if (fc_rule_keeps(&last))
        exchange->rules[count++] = lossless(&last);
    exchange->rules[count++] = last;
    exchange->rule_count = count;
    return count <= FC_RULES_MAX ? 0 : -EINVAL;
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
    fc_inbox_init(&exchange->events, options->max_backlog / 4);
    fc_inbox_init(&exchange->replies, SIZE_MAX); /* Python bounds its questions */

    int error = make_rules(exchange);
    fc_histories_init(&exchange->histories, options->max_history, exchange->rules, exchange->rule_count);
    if (!error)
        error = fc_channels_init(&exchange->channels, options->shards, exchange->rules, exchange->rule_count);
    if (!error)
        error = fc_addresses_init(&exchange->addresses, exchange->channels.key);
    if (!error && !(exchange->everyone = fc_channels_unlisted(&exchange->channels)))
        error = -ENOMEM;
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
            for (uint32_t k = 0; k < mailbox->count; k++)
                fc_exchange_drop_command(exchange, &mailbox->commands[k]);
            fc_mailbox_destroy(mailbox);
        }
    }
    free(exchange->mailboxes);
    free(exchange->vacant);
    free(exchange->lost);
    fc_inbox_destroy(&exchange->requests, &exchange->channels);
    fc_inbox_destroy(&exchange->events, &exchange->channels);
    fc_inbox_destroy(&exchange->replies, &exchange->channels);
    fc_channel_unref(&exchange->channels, exchange->everyone);
    fc_histories_clear(&exchange->histories, &exchange->channels);
    fc_histories_destroy(&exchange->histories);
    fc_addresses_destroy(&exchange->addresses);
    fc_channels_destroy(&exchange->channels);
    free(exchange->rules);
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

/* That a mailbox drained may be counted before that it filled: `congested` is signed, and below zero for that moment. */
void fc_exchange_act_on(struct fc_exchange *exchange, unsigned shard, int flags)
{
    if (flags & FC_MAILBOX_FILLED)
        atomic_fetch_add(&exchange->congested, 1);
    if (flags & FC_MAILBOX_WAKE)
        fc_mailbox_signal(&exchange->mailboxes[shard]);
    if (flags & FC_MAILBOX_DRAINED)
        count_drained(exchange, &exchange->congested);
}

void fc_exchange_drop_command(struct fc_exchange *exchange, const struct fc_command *command)
{
    fc_channel_unref(&exchange->channels, command->channel);
    fc_message_unref(command->message);
    if (command->kind == FC_COMMAND_SUBSCRIBE && command->subscription) {
        fc_channel_unref(&exchange->channels, command->subscription->record);
        free(command->subscription);
    }
    if (command->kind == FC_COMMAND_ANSWER && command->admission) {
        for (size_t i = 0; i < command->admission->count; i++)
            fc_channel_unref(&exchange->channels, command->admission->channels[i]);
        free(command->admission->positions);
        fc_addresses_give(&exchange->addresses, command->admission->address);
        free(command->admission);
    }
}

void fc_exchange_lose(struct fc_exchange *exchange, struct fc_channel *record, unsigned shard)
{
    if (record->seats[shard].members == 0)
        return;
    record->seats[shard].lost = true;
    atomic_store(&exchange->lost[shard], true);
}

size_t fc_exchange_alive(const struct fc_exchange *exchange)
{
    const struct fc_histories *histories = &exchange->histories;
    /* Relaxed: gauges. What is kept is read first, since all of it is alive, give or take what comes and goes meanwhile. */
    size_t kept = atomic_load_explicit(&histories->bytes, memory_order_relaxed);
    size_t recorded = atomic_load_explicit(&histories->account.bytes, memory_order_relaxed);

    return atomic_load_explicit(&exchange->account.bytes, memory_order_relaxed) + (recorded > kept ? recorded - kept : 0);
}

int fc_exchange_subscribe(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel,
                          struct fc_channel *record)
{
    struct fc_command command = {.kind = FC_COMMAND_SUBSCRIBE, .client = client, .channel = channel};
    struct fc_channel *both[] = {channel, record};
    unsigned count = record ? 2 : 1;
    unsigned shard = fc_client_id_shard(client);
    int flags = 0;

    if (record && !(command.subscription = malloc(sizeof *command.subscription))) {
        fc_channel_unref(&exchange->channels, record);
        fc_exchange_drop_command(exchange, &command);
        return -ENOMEM;
    }
    if (record)
        command.subscription->record = record;
    /* Publishers hold the locks as well: who finds the subscription counted comes behind it in the mailbox. The shard
     * can't have let go of the channels when we unlock: it needs the locks for that. */
    if (record && (uintptr_t)record < (uintptr_t)channel) {
        both[0] = record;
        both[1] = channel;
    }
    for (unsigned k = 0; k < count; k++)
        pthread_mutex_lock(&both[k]->lock);
    if (record) {
        command.subscription->position = fc_history_position(record->history);
        command.subscription->losses = record->seats[shard].losses;
    }
    flags = fc_mailbox_put(&exchange->mailboxes[shard], &command, 1, 0);
    for (unsigned k = count; k > 0; k--) {
        both[k - 1]->seats[shard].coming += flags >= 0;
        pthread_mutex_unlock(&both[k - 1]->lock);
    }
    if (flags < 0) {
        fc_exchange_drop_command(exchange, &command);
        return flags;
    }
    fc_exchange_act_on(exchange, shard, flags);
    return 0;
}

static void come(unsigned shard, struct fc_channel *channel)
{
    pthread_mutex_lock(&channel->lock);
    channel->seats[shard].coming--;
    pthread_mutex_unlock(&channel->lock);
}

void fc_exchange_subscribed(unsigned shard, const struct fc_command *subscribe)
{
    come(shard, subscribe->channel);
    if (subscribe->subscription)
        come(shard, subscribe->subscription->record);
}

int fc_exchange_command(struct fc_exchange *exchange, unsigned shard, const struct fc_command *commands, uint32_t n,
                        size_t weight)
{
    int flags = fc_mailbox_put(&exchange->mailboxes[shard], commands, n, weight);

    if (flags < 0) {
        for (uint32_t i = 0; i < n; i++)
            fc_exchange_drop_command(exchange, &commands[i]);
        return flags;
    }
    fc_exchange_act_on(exchange, shard, flags);
    return 0;
}

void fc_exchange_settle(struct fc_exchange *exchange, unsigned shard, size_t bytes)
{
    if (bytes > 0)
        fc_exchange_act_on(exchange, shard, fc_mailbox_settle(&exchange->mailboxes[shard], bytes));
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

struct fc_events *fc_exchange_events(struct fc_exchange *exchange)
{
    bool drained;
    struct fc_events *events = fc_inbox_take(&exchange->events, &drained);

    if (drained)
        count_drained(exchange, &exchange->congested);
    return events;
}

struct fc_events *fc_exchange_replies(struct fc_exchange *exchange)
{
    bool drained; /* it's never full */

    return fc_inbox_take(&exchange->replies, &drained);
}

void fc_exchange_notify(const struct fc_exchange *exchange)
{
    while (eventfd_write(exchange->event_fd, 1) && errno == EINTR)
        continue;
}

/* Puts events into an inbox, and counts it among the reasons not to read if that has filled it. */
static int put(struct fc_exchange *exchange, struct fc_inbox *inbox, atomic_int *reasons, const struct fc_event *events,
               unsigned n)
{
    int result = fc_inbox_put(inbox, events, n);

    if (result > 0)
        atomic_fetch_add(reasons, 1);
    for (unsigned i = 0; result < 0 && i < n; i++) {
        fc_message_unref(events[i].message);
        fc_channel_unref(&exchange->channels, events[i].origin);
    }
    return result < 0 ? result : 0;
}

int fc_exchange_tell(struct fc_exchange *exchange, const struct fc_event *event)
{
    bool reply = event->kind == FC_EVENT_FLUSHED || event->kind == FC_EVENT_INFO;

    int error = put(exchange, reply ? &exchange->replies : &exchange->events, &exchange->congested, event, 1);
    if (error && reply)
        fc_exchange_lose_reply(exchange);
    return error;
}

void fc_exchange_lose_reply(struct fc_exchange *exchange)
{
    atomic_store(&exchange->unanswered, true);
}

int fc_exchange_ask(struct fc_exchange *exchange, const struct fc_event *request)
{
    struct fc_event event = *request;
    size_t head = request->bytes.length;
    size_t remote = request->remote.length;

    event.message = fc_message_new(&exchange->account, head + remote);
    if (!event.message)
        return -ENOMEM;
    uint8_t *copy = fc_message_payload(event.message);
    memcpy(copy, request->bytes.bytes, head);
    if (remote > 0)
        memcpy(copy + head, request->remote.bytes, remote);
    event.message->size = head + remote;
    event.kind = FC_EVENT_REQUEST;
    event.bytes.bytes = copy;
    event.remote.bytes = copy + head;
    return put(exchange, &exchange->requests, &exchange->held, &event, 1);
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
            .kind = FC_EVENT_MESSAGE,
            .client = client,
            .bytes = {fc_message_payload(message), message->start + message->size - FC_FRAME_HEADER_MAX},
            .text = (fc_message_wire(message)[0] & 0x0F) == FC_OP_TEXT,
            .message = message,
        };
        if (channel) {
            events[i].channel = (struct fc_span){channel->name, channel->length};
            events[i].origin = fc_channel_ref(channel);
        }
    }
    return put(exchange, &exchange->events, &exchange->congested, events, n);
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
