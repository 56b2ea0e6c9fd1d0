/* The door between Python and the shards: what is published, answered and asked goes in, events come out.
 *
 * Called from any thread. What concerns one client goes into the mailbox of its shard; what concerns a channel, into those
 * of all shards with members. Nothing here touches a client or a room, but for fc_hub_members, under the channel's lock.
 */
#include "door.h"

#include "publish.h"
#include "shard.h"
#include "topic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- events ---- */

int fc_hub_event_fd(const struct fc_hub *hub)
{
    return hub->exchange.event_fd;
}

void fc_hub_reset_event(struct fc_hub *hub)
{
    fc_exchange_reset(&hub->exchange);
}

struct fc_events *fc_hub_requests(struct fc_hub *hub)
{
    return fc_exchange_requests(&hub->exchange);
}

struct fc_events *fc_hub_replies(struct fc_hub *hub)
{
    return fc_exchange_replies(&hub->exchange);
}

bool fc_hub_unanswered(struct fc_hub *hub)
{
    return atomic_exchange(&hub->exchange.unanswered, false);
}

struct fc_events *fc_hub_events(struct fc_hub *hub)
{
    return fc_exchange_events(&hub->exchange);
}

void fc_hub_release(struct fc_hub *hub, struct fc_events *events)
{
    fc_events_free(&hub->exchange.channels, events);
}

/* Of what no shard has to be asked. */
static int tell(struct fc_exchange *exchange, const struct fc_event *event)
{
    int error = fc_exchange_tell(exchange, event);

    fc_exchange_notify(exchange);
    return error;
}

/* ---- answers ---- */

/* Gets the channels, and the address if it counts. */
static int make_admission(struct fc_exchange *exchange, const struct fc_answer *answer, struct fc_command *command)
{
    struct fc_admission *admission =
        malloc(sizeof *admission + answer->channel_count * sizeof(struct fc_channel *));

    if (!admission)
        return -ENOMEM;
    *admission = (struct fc_admission){0};
    command->admission = admission;
    admission->resume = answer->resume;
    if (answer->position_count > 0) {
        admission->positions = malloc(answer->position_count * sizeof *admission->positions);
        if (!admission->positions)
            return -ENOMEM;
        memcpy(admission->positions, answer->positions, answer->position_count * sizeof *admission->positions);
        admission->position_count = answer->position_count;
    }
    if (answer->address.length > 0) {
        int error = fc_addresses_take(&exchange->addresses, answer->address, exchange->options.max_per_address,
                                      &admission->address);
        if (error)
            return error;
    }
    for (size_t i = 0; i < answer->channel_count; i++) {
        const struct fc_span *name = &answer->channels[i];
        bool record = answer->resume != FC_RESUME_OFF && fc_channels_keep(&exchange->channels, name->bytes, name->length);
        struct fc_channel *channel = record
                                         ? fc_channels_get_record(&exchange->channels, name->bytes, name->length)
                                         : fc_channels_get(&exchange->channels, name->bytes, name->length);
        if (!channel)
            return -ENOMEM;
        admission->channels[admission->count++] = channel;
    }
    return 0;
}

/* Who has its share of connections already gets a 429 in the answer's place. */
static int refuse_address(struct fc_exchange *exchange, const struct fc_answer *answer, struct fc_command *command)
{
    const struct fc_span *response = &exchange->options.too_many;

    *command = (struct fc_command){
        .kind = FC_COMMAND_ANSWER, .code = FC_ANSWER_LIMITED, .client = answer->client};
    command->message = fc_message_raw(&exchange->account, response->bytes, response->length);
    return command->message ? 0 : -ENOMEM;
}

static int make_answer(struct fc_exchange *exchange, const struct fc_answer *answer, struct fc_command *command)
{
    bool counts = answer->address.length > 0 && exchange->options.max_per_address > 0;
    struct fc_answer plain = *answer;
    int error = 0;

    *command = (struct fc_command){.kind = FC_COMMAND_ANSWER, .client = answer->client};
    command->message = fc_message_raw(&exchange->account, answer->response.bytes, answer->response.length);
    if (!command->message)
        return -ENOMEM;
    if (!answer->accept)
        return 0;
    command->code = FC_ANSWER_ACCEPT;
    if (!counts)
        plain.address.length = 0;
    bool plainly = !counts && answer->resume == FC_RESUME_OFF;
    if (answer->channel_count == 1 && plainly) {
        command->channel =
            fc_channels_get(&exchange->channels, answer->channels[0].bytes, answer->channels[0].length);
        error = command->channel ? 0 : -ENOMEM;
    } else if (answer->channel_count > 1 || !plainly) {
        error = make_admission(exchange, &plain, command);
    }
    if (error)
        fc_exchange_drop_command(exchange, command);
    return error == -EBUSY ? refuse_address(exchange, answer, command) : error;
}

/* For want of memory the client isn't told, and times out. Python, which has let it in, hears that it's gone. */
static void withdraw(struct fc_exchange *exchange, uint64_t client)
{
    if (exchange->options.closes)
        tell(exchange, &(struct fc_event){.kind = FC_EVENT_CLOSED, .client = client, .code = FC_CLOSE_ABNORMAL});
}

int fc_hub_answer(struct fc_hub *hub, const struct fc_answer *answers, size_t n)
{
    enum { PIECE = 64 };
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_command commands[PIECE];
    int error = 0;

    for (unsigned shard = 0; shard < exchange->shards; shard++) {
        for (size_t i = 0; i < n;) {
            uint32_t count = 0;
            for (; i < n && count < PIECE; i++) {
                if (fc_client_id_shard(answers[i].client) != shard)
                    continue;
                if (!make_answer(exchange, &answers[i], &commands[count])) {
                    count++;
                    continue;
                }
                error = -ENOMEM;
                if (answers[i].accept)
                    withdraw(exchange, answers[i].client);
            }
            if (count == 0 || !fc_exchange_command(exchange, shard, commands, count, 0))
                continue;
            error = -ENOMEM;
            for (uint32_t k = 0; k < count; k++) {
                if (commands[k].code != 0)
                    withdraw(exchange, commands[k].client);
            }
        }
    }
    return error;
}

/* ---- publishing ---- */

static bool is_stopping(const struct fc_hub *hub)
{
    return atomic_load_explicit(&hub->exchange.stopping, memory_order_relaxed);
}

static int check_payload(struct fc_hub *hub, struct fc_span payload)
{
    if (is_stopping(hub))
        return -ESHUTDOWN;
    if (payload.length > FC_PAYLOAD_MAX)
        return -EMSGSIZE;
    return fc_exchange_congested(&hub->exchange) ? -EAGAIN : 0;
}

static struct fc_message *make_message(struct fc_exchange *exchange, bool text, struct fc_span payload, uint8_t rule)
{
    struct fc_message *message = fc_message_frame(&exchange->account, text ? FC_OP_TEXT : FC_OP_BINARY,
                                                  payload.bytes, payload.length);

    if (message)
        message->rule = rule;
    return message;
}

/* The rule for what isn't published to a channel. */
static uint8_t last_rule(const struct fc_exchange *exchange)
{
    return (uint8_t)(exchange->rule_count - 1);
}

int fc_door_address(struct fc_hub *hub, struct fc_span name, struct fc_span payload, struct fc_audience *audience)
{
    int error = check_payload(hub, payload);

    if (!error && (!fc_topic_valid(name.bytes, name.length) || fc_topic_is_pattern(name.bytes, name.length)))
        error = -EINVAL;
    if (!error)
        error = fc_channels_address(&hub->exchange.channels, name.bytes, name.length, audience);
    if (!error)
        atomic_fetch_add_explicit(&hub->published, 1, memory_order_relaxed);
    return error;
}

struct fc_message *fc_door_message(struct fc_hub *hub, struct fc_span name, bool text, struct fc_span payload,
                                   struct fc_span key)
{
    struct fc_exchange *exchange = &hub->exchange;
    uint8_t rule = fc_rules_find(exchange->rules, exchange->rule_count, name.bytes, name.length);
    struct fc_message *message = make_message(exchange, text, payload, rule);

    if (message && exchange->rules[rule].policy == FC_POLICY_LATEST)
        message = fc_message_set_key(message, name, key);
    return message;
}

int fc_hub_publish(struct fc_hub *hub, struct fc_span name, bool text, struct fc_span payload, struct fc_span key,
                   uint64_t *reached)
{
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_audience audience;

    *reached = 0;
    int error = fc_door_address(hub, name, payload, &audience);
    if (error)
        return error;
    if (audience.count > 0) {
        struct fc_message *message = fc_door_message(hub, name, text, payload, key);
        if (!message || fc_publish(exchange, audience.channels, audience.count, &message, 1, reached) > 0)
            error = -ENOMEM;
    }
    fc_channels_release(&exchange->channels, &audience);
    return error;
}

int fc_hub_broadcast(struct fc_hub *hub, bool text, struct fc_span payload, uint64_t *reached)
{
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_channel *everyone = exchange->everyone;
    int error = check_payload(hub, payload);

    *reached = 0;
    if (error)
        return error;
    atomic_fetch_add_explicit(&hub->published, 1, memory_order_relaxed);
    struct fc_message *message = make_message(exchange, text, payload, last_rule(exchange));
    if (!message)
        return -ENOMEM;
    return fc_publish(exchange, &everyone, 1, &message, 1, reached) > 0 ? -ENOMEM : 0;
}

/* ---- one client ---- */

/* Passes a command on to the client's shard. An id that nobody ever had means nobody. */
static int command(struct fc_hub *hub, struct fc_command command, size_t weight)
{
    unsigned shard = fc_client_id_shard(command.client);

    if (shard < hub->exchange.shards)
        return fc_exchange_command(&hub->exchange, shard, &command, 1, weight);
    fc_exchange_drop_command(&hub->exchange, &command);
    return 0;
}

int fc_hub_send(struct fc_hub *hub, uint64_t client, bool text, struct fc_span payload)
{
    struct fc_exchange *exchange = &hub->exchange;
    int error = check_payload(hub, payload);

    if (error)
        return error;
    struct fc_message *message = make_message(exchange, text, payload, last_rule(exchange));
    if (!message)
        return -ENOMEM;
    return command(hub, (struct fc_command){.kind = FC_COMMAND_SEND, .client = client, .message = message},
                   fc_message_weight(message));
}

int fc_hub_subscribe(struct fc_hub *hub, uint64_t client, struct fc_span name)
{
    if (!fc_topic_valid(name.bytes, name.length))
        return -EINVAL;
    if (fc_client_id_shard(client) >= hub->exchange.shards)
        return 0;
    struct fc_channels *channels = &hub->exchange.channels;
    struct fc_channel *channel = fc_channels_get(channels, name.bytes, name.length);
    if (!channel)
        return -ENOMEM;
    struct fc_channel *record = NULL;
    if (fc_channels_keep(channels, name.bytes, name.length)) {
        record = fc_channels_get_record(channels, name.bytes, name.length);
        if (!record) {
            fc_channel_unref(channels, channel);
            return -ENOMEM;
        }
    }
    return fc_exchange_subscribe(&hub->exchange, client, channel, record);
}

int fc_hub_unsubscribe(struct fc_hub *hub, uint64_t client, struct fc_span name)
{
    if (!fc_topic_valid(name.bytes, name.length))
        return -EINVAL;
    /* Nobody is subscribed to what isn't there; but it may be on its way. */
    struct fc_channel *channel = fc_channels_find(&hub->exchange.channels, name.bytes, name.length);
    if (!channel)
        channel = fc_channels_find_record(&hub->exchange.channels, name.bytes, name.length);
    if (!channel)
        return 0;
    return command(hub, (struct fc_command){.kind = FC_COMMAND_UNSUBSCRIBE, .client = client, .channel = channel}, 0);
}

int fc_hub_close(struct fc_hub *hub, uint64_t client, uint16_t code, struct fc_span reason)
{
    uint8_t frame[FC_FRAME_CONTROL_MAX + FC_FRAME_HEADER_MAX];
    size_t size;

    if (!fc_frame_close_code_valid(code) || reason.length > FC_FRAME_CONTROL_MAX - 2)
        return -EINVAL;
    size = fc_frame_write_header(frame, FC_OP_CLOSE, reason.length + 2);
    frame[size++] = (uint8_t)(code >> 8);
    frame[size++] = (uint8_t)code;
    if (reason.length > 0)
        memcpy(frame + size, reason.bytes, reason.length);
    struct fc_message *message = fc_message_raw(&hub->exchange.account, frame, size + reason.length);
    if (!message)
        return -ENOMEM;
    return command(hub, (struct fc_command){.kind = FC_COMMAND_DISMISS, .client = client, .message = message}, 0);
}

int fc_hub_check(struct fc_hub *hub, uint64_t client)
{
    if (fc_client_id_shard(client) < hub->exchange.shards)
        return command(hub, (struct fc_command){.kind = FC_COMMAND_CHECK, .client = client}, 0);
    return tell(&hub->exchange, &(struct fc_event){.kind = FC_EVENT_MISSING, .client = client});
}

int fc_hub_inspect(struct fc_hub *hub, uint64_t client, uint64_t token)
{
    if (fc_client_id_shard(client) < hub->exchange.shards)
        return command(hub, (struct fc_command){.kind = FC_COMMAND_INSPECT, .client = client, .token = token}, 0);
    return tell(&hub->exchange, &(struct fc_event){.kind = FC_EVENT_INFO, .client = client, .number = token});
}

int fc_hub_flush(struct fc_hub *hub, uint64_t token)
{
    const struct fc_command flush = {.kind = FC_COMMAND_FLUSH, .token = token};
    int error = 0;

    for (unsigned i = 0; i < hub->exchange.shards; i++) {
        int result = fc_exchange_command(&hub->exchange, i, &flush, 1, 0);
        error = result ? result : error;
    }
    return error;
}

/* ---- channels ---- */

/* Those whom a message to the name reaches; of a pattern, those who are subscribed to it. */
static int find_audience(struct fc_hub *hub, struct fc_span name, struct fc_audience *audience)
{
    struct fc_channels *channels = &hub->exchange.channels;

    if (!fc_topic_is_pattern(name.bytes, name.length))
        return fc_channels_resolve(channels, name.bytes, name.length, audience);
    struct fc_channel *channel = fc_channels_find(channels, name.bytes, name.length);
    *audience = (struct fc_audience){.count = channel ? 1 : 0};
    audience->few[0] = channel;
    audience->channels = audience->few;
    return 0;
}

static uint64_t count_members(const struct fc_hub *hub, struct fc_channel *channel)
{
    uint64_t members = 0;

    pthread_mutex_lock(&channel->lock);
    for (unsigned shard = 0; shard < hub->exchange.shards; shard++)
        members += channel->seats[shard].members;
    pthread_mutex_unlock(&channel->lock);
    return members;
}

int fc_hub_count(struct fc_hub *hub, struct fc_span name, uint64_t *count)
{
    struct fc_audience audience;
    int error = find_audience(hub, name, &audience);

    *count = 0;
    if (error)
        return error;
    for (unsigned i = 0; i < audience.count; i++)
        *count += count_members(hub, audience.channels[i]);
    fc_channels_release(&hub->exchange.channels, &audience);
    return 0;
}

struct ids {
    uint64_t *ids;
    size_t count;
    size_t capacity;
};

static int reserve(struct ids *list, size_t more)
{
    if (list->count + more <= list->capacity)
        return 0;
    size_t capacity = list->count + more;
    uint64_t *grown = realloc(list->ids, capacity * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    list->ids = grown;
    list->capacity = capacity;
    return 0;
}

/* While the channel is locked its members stay, and so do their slots and what is read of them here. */
static int list_members(struct fc_hub *hub, struct fc_channel *channel, struct ids *list)
{
    int error = 0;

    pthread_mutex_lock(&channel->lock);
    for (unsigned shard = 0; shard < hub->exchange.shards && !error; shard++) {
        const struct fc_room *room = channel->seats[shard].room;
        error = room ? reserve(list, room->count) : 0;
        for (uint32_t i = 0; room && !error && i < room->count; i++) {
            uint32_t slot = room->members[i];
            if (slot != FC_NO_SLOT)
                list->ids[list->count++] = fc_client_id(shard, fc_shard_client(hub->shards[shard], slot), slot);
        }
    }
    pthread_mutex_unlock(&channel->lock);
    return error;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

/* Who is a member of several has to be told once. */
static void keep_each_once(struct ids *list)
{
    size_t kept = 0;

    qsort(list->ids, list->count, sizeof *list->ids, compare_ids);
    for (size_t i = 0; i < list->count; i++) {
        if (kept == 0 || list->ids[kept - 1] != list->ids[i])
            list->ids[kept++] = list->ids[i];
    }
    list->count = kept;
}

int fc_hub_members(struct fc_hub *hub, struct fc_span name, uint64_t **ids, size_t *count)
{
    struct ids list = {0};
    struct fc_audience audience;
    int error = find_audience(hub, name, &audience);

    *ids = NULL;
    *count = 0;
    if (error)
        return error;
    for (unsigned i = 0; i < audience.count && !error; i++)
        error = list_members(hub, audience.channels[i], &list);
    if (audience.count > 1 && !error && list.count > 0)
        keep_each_once(&list);
    fc_channels_release(&hub->exchange.channels, &audience);
    if (error) {
        free(list.ids);
        return error;
    }
    *ids = list.ids;
    *count = list.count;
    return 0;
}

/* Adds what the channel has seen, and gives it back. */
static bool add_stats(struct fc_hub *hub, struct fc_channel *channel, struct fc_channel_stats *stats)
{
    uint64_t sums[FC_FATES];

    if (!channel)
        return false;
    pthread_mutex_lock(&channel->lock);
    /* What was sent is read last: it's never less than what became of it. */
    for (int fate = FC_FATES - 1; fate >= 0; fate--) {
        sums[fate] = atomic_load(&channel->past.of[fate]);
        for (unsigned shard = 0; shard < hub->exchange.shards; shard++) {
            const struct fc_room *room = channel->seats[shard].room;
            sums[fate] += room ? atomic_load(&room->tally.of[fate]) : 0;
        }
    }
    for (unsigned shard = 0; shard < hub->exchange.shards; shard++)
        stats->members += channel->seats[shard].members;
    pthread_mutex_unlock(&channel->lock);
    fc_channel_unref(&hub->exchange.channels, channel);
    stats->sent += sums[FC_SENT];
    stats->delivered += sums[FC_DELIVERED];
    stats->dropped += sums[FC_DROPPED];
    stats->gone += sums[FC_GONE];
    return true;
}

bool fc_hub_read_channel(struct fc_hub *hub, struct fc_span name, struct fc_channel_stats *stats)
{
    struct fc_channels *channels = &hub->exchange.channels;

    *stats = (struct fc_channel_stats){0};
    bool is_there = add_stats(hub, fc_channels_find(channels, name.bytes, name.length), stats);
    return add_stats(hub, fc_channels_find_record(channels, name.bytes, name.length), stats) || is_there;
}

int fc_hub_channels(struct fc_hub *hub, void (*each)(void *context, struct fc_span name, uint64_t members),
                    void *context)
{
    struct fc_channels *channels = &hub->exchange.channels;
    struct fc_channel **all;
    size_t count;
    int error = fc_channels_all(channels, &all, &count);

    for (size_t i = 0; i < count; i++) {
        uint64_t members = count_members(hub, all[i]);
        if (members > 0)
            each(context, (struct fc_span){all[i]->name, all[i]->length}, members);
        fc_channel_unref(channels, all[i]);
    }
    free(all);
    return error;
}

uint32_t fc_hub_address_count(struct fc_hub *hub, struct fc_span address)
{
    return fc_addresses_count(&hub->exchange.addresses, address);
}
