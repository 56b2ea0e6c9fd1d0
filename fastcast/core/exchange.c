/* The shared part of a hub, where the threads meet.
 *
 * Lock order: channels' locks in the order of their addresses, then a mailbox's. The inboxes' locks, the addresses' and
 * the channel table's are taken alone.
 * Under a lock nothing waits for the kernel, but memory may be allocated. Lives from before the first shard to after
 * the last.
 */
#include "exchange.h"

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
    if (!exchange->vacant)
        return -ENOMEM;
    for (unsigned i = 0; i < exchange->shards; i++) {
        exchange->mailboxes[i].wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (exchange->mailboxes[i].wake < 0)
            return -errno;
    }
    return 0;
}

/* The options' rules, and one for the other channels. */
static int make_rules(struct fc_exchange *exchange)
{
    const struct fc_options *options = &exchange->options;

    exchange->rules = malloc((options->rule_count + 1) * sizeof *exchange->rules);
    if (!exchange->rules)
        return -ENOMEM;
    if (options->rule_count > 0)
        memcpy(exchange->rules, options->rules, options->rule_count * sizeof *exchange->rules);
    exchange->rule_count = options->rule_count + 1;
    exchange->rules[options->rule_count] = (struct fc_rule){
        .channels = {">", 1},
        .policy = options->policy,
        .max_queue = options->max_queue,
        .max_messages = options->max_messages,
    };
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
    fc_inbox_init(&exchange->events, options->max_backlog / 4);
    fc_inbox_init(&exchange->replies, SIZE_MAX); /* Python bounds its questions */

    int error = make_rules(exchange);
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
    fc_inbox_destroy(&exchange->requests, &exchange->channels);
    fc_inbox_destroy(&exchange->events, &exchange->channels);
    fc_inbox_destroy(&exchange->replies, &exchange->channels);
    fc_channel_unref(&exchange->channels, exchange->everyone);
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

void fc_exchange_drop_command(struct fc_exchange *exchange, const struct fc_command *command)
{
    fc_channel_unref(&exchange->channels, command->channel);
    fc_message_unref(command->message);
    if (command->kind == FC_COMMAND_ANSWER && command->admission) {
        for (size_t i = 0; i < command->admission->count; i++)
            fc_channel_unref(&exchange->channels, command->admission->channels[i]);
        fc_addresses_give(&exchange->addresses, command->admission->address);
        free(command->admission);
    }
}

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

#define FEW_COMMANDS FC_PUBLISH_MAX

/* The commands that tell a shard of the messages: for each message one for every channel with members there, side by
 * side. The locks of the channels are held. Returns flags of the mailbox, or -ENOMEM. */
static int tell_shard(struct fc_exchange *exchange, unsigned shard, struct fc_channel *const *channels, unsigned count,
                      unsigned there, struct fc_message *const *messages, unsigned n)
{
    struct fc_command few[FEW_COMMANDS];
    struct fc_command *commands = few;
    size_t weight = 0;
    uint32_t total = n * there;
    uint32_t made = 0;

    if (total > FEW_COMMANDS && !(commands = malloc(total * sizeof *commands)))
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < count; k++) {
            if (hearers(channels[k], shard) == 0)
                continue;
            /* The references must be there before the shard can see the commands, and drop them. */
            commands[made++] = (struct fc_command){
                .kind = FC_COMMAND_PUBLISH,
                .more = true,
                .channel = fc_channel_ref(channels[k]),
                .message = fc_message_ref(messages[i]),
            };
            weight += fc_message_weight(messages[i]);
        }
        commands[made - 1].more = false;
    }
    int result = fc_mailbox_put(&exchange->mailboxes[shard], commands, total, weight);
    for (uint32_t i = 0; result < 0 && i < total; i++) {
        /* Never the last ones, since the caller holds some: the table's lock isn't taken under ours. */
        fc_message_unref(commands[i].message);
        fc_channel_unref(&exchange->channels, commands[i].channel);
    }
    if (commands != few)
        free(commands);
    return result;
}

uint64_t fc_exchange_publish(struct fc_exchange *exchange, struct fc_channel **channels, unsigned count,
                             struct fc_message *const *messages, unsigned n, uint64_t *reached)
{
    uint8_t flags[FC_SHARD_MAX];
    uint64_t members = 0;
    uint64_t lost = 0;

    if (count > 1)
        qsort(channels, count, sizeof(struct fc_channel *), compare_channels);
    for (unsigned k = 0; k < count; k++)
        pthread_mutex_lock(&channels[k]->lock);
    for (unsigned shard = 0; shard < exchange->shards; shard++) {
        uint64_t here = 0;
        unsigned there = 0;
        flags[shard] = 0;
        for (unsigned k = 0; k < count; k++) {
            uint64_t members_here = hearers(channels[k], shard);
            here += members_here;
            there += members_here > 0;
        }
        if (there == 0)
            continue;
        int result = tell_shard(exchange, shard, channels, count, there, messages, n);
        members += here;
        if (result >= 0)
            flags[shard] = (uint8_t)result;
        else
            lost += n * here;
    }
    for (unsigned k = count; k > 0; k--)
        pthread_mutex_unlock(&channels[k - 1]->lock);

    for (unsigned shard = 0; shard < exchange->shards; shard++)
        act_on(exchange, shard, flags[shard]);
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(messages[i]);
    if (reached)
        *reached = n * members - lost;
    return lost;
}

int fc_exchange_subscribe(struct fc_exchange *exchange, uint64_t client, struct fc_channel *channel)
{
    const struct fc_command command = {.kind = FC_COMMAND_SUBSCRIBE, .client = client, .channel = channel};
    unsigned shard = fc_client_id_shard(client);

    /* Publishers hold the lock as well: who finds the subscription counted comes behind it in the mailbox. The shard
     * can't have let go of the channel when we unlock: it needs the lock for that. */
    pthread_mutex_lock(&channel->lock);
    int flags = fc_mailbox_put(&exchange->mailboxes[shard], &command, 1, 0);
    if (flags >= 0)
        channel->seats[shard].coming++;
    pthread_mutex_unlock(&channel->lock);
    if (flags < 0) {
        fc_exchange_drop_command(exchange, &command);
        return flags;
    }
    act_on(exchange, shard, flags);
    return 0;
}

void fc_exchange_subscribed(unsigned shard, struct fc_channel *channel)
{
    pthread_mutex_lock(&channel->lock);
    channel->seats[shard].coming--;
    pthread_mutex_unlock(&channel->lock);
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
