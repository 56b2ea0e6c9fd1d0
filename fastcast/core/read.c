/* The receiving half of a client: request heads, frames, the end of input.
 *
 * Invariant: a client has an inbound state exactly while it is amid a frame or message; between them it costs
 * nothing but its slot, and reads go through the shard's one buffer. Owned by the shard's thread.
 */
#include "read.h"

#include "conn.h"
#include "extra.h"
#include "head.h"
#include "publish.h"
#include "remote.h"
#include "write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void fc_read_forget(struct fc_client *client)
{
    if (!client->inbound)
        return;
    fc_inbound_clear(client->inbound);
    free(client->inbound);
    client->inbound = NULL;
}

void fc_read_later(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (client->ready)
        return;
    if (client->state == FC_CLIENT_HEAD) {
        fc_waiting_add(&shard->waiting, &shard->clients, slot);
        return;
    }
    if (fc_ready_push(&shard->ready, fc_shard_id(shard, client, slot))) {
        fc_conn_drop(shard, slot); /* no memory to remember that it must be read from */
        return;
    }
    client->ready = 1;
}

bool fc_read_wanted(const struct fc_client *client)
{
    switch (client->state) {
    case FC_CLIENT_HEAD:
    case FC_CLIENT_OPEN:
    case FC_CLIENT_CLOSING:
    case FC_CLIENT_LINGER:
        return true;
    default:
        return false;
    }
}

static void drop_messages(struct fc_message **messages, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(messages[i]);
}

static void publish(struct fc_shard *shard, struct fc_channel **channels, unsigned count,
                    struct fc_message **messages, unsigned n)
{
    uint64_t lost = fc_publish(shard->exchange, channels, count, messages, n, NULL);

    fc_count(&shard->counters.sent, lost);
    fc_count(&shard->counters.dropped, lost);
}

/* The rule that the messages are under, and what tells the newest. */
static void mark(const struct fc_shard *shard, const struct fc_channel *channel, struct fc_message **messages, unsigned n)
{
    const struct fc_rule *rule = &shard->exchange->rules[channel->rule];
    const struct fc_span name = {channel->name, channel->length};

    for (unsigned i = 0; i < n; i++) {
        messages[i]->rule = channel->rule;
        if (rule->policy == FC_POLICY_LATEST)
            messages[i] = fc_message_set_key(messages[i], name, (struct fc_span){0});
    }
}

static void relay(struct fc_shard *shard, struct fc_channel *home, struct fc_message **messages, unsigned n)
{
    struct fc_exchange *exchange = shard->exchange;
    struct fc_audience audience;

    mark(shard, home, messages, n);
    if (fc_publish_is_simple(exchange, home)) {
        publish(shard, &home, 1, messages, n);
        return;
    }
    if (fc_channels_address(&exchange->channels, home->name, home->length, &audience)) {
        fc_count(&shard->counters.no_memory, 1);
        fc_count(&shard->counters.ignored, n);
        drop_messages(messages, n);
        return;
    }
    publish(shard, audience.channels, audience.count, messages, n);
    fc_channels_release(&exchange->channels, &audience);
}

/* What becomes of an OPEN client's messages. 0 or -ENOMEM. */
static int hand_on(struct fc_shard *shard, const struct fc_client *client, uint32_t slot, struct fc_message **messages,
                   unsigned n)
{
    const struct fc_options *options = &shard->exchange->options;
    struct fc_channel *home = fc_client_home(client);

    if (n == 0)
        return 0;
    if (options->handled) {
        shard->has_news = true;
        return fc_exchange_hand_over(shard->exchange, fc_shard_id(shard, client, slot), home, messages, n);
    }
    if (options->relay == FC_RELAY_ALL)
        home = shard->exchange->everyone;
    if (options->relay == FC_RELAY_OFF || !home || home->pattern) { /* nothing is published to a pattern */
        fc_count(&shard->counters.ignored, n);
        drop_messages(messages, n);
        return 0;
    }
    relay(shard, home, messages, n);
    return 0;
}

/* Microseconds between two messages, however low the limit is: some thirty years. */
#define LONGEST_GAP 1e15

/* A bucket of tokens, kept as the time at which it is full again. 0, or an error of the protocol: the client has sent too
 * much; or -ENOMEM. */
static int take_token(struct fc_shard *shard, struct fc_client *client)
{
    const struct fc_options *options = &shard->exchange->options;
    uint64_t now = shard->now * 1000;

    if (options->rate_limit <= 0)
        return 0;
    if (fc_client_extend(client))
        return -ENOMEM;
    double each = 1e6 / options->rate_limit;
    if (each > LONGEST_GAP)
        each = LONGEST_GAP;
    uint64_t full_at = (client->extra->full_at > now ? client->extra->full_at : now) + (uint64_t)each;
    if ((double)(full_at - now) > each * options->rate_burst) {
        fc_count(&shard->counters.rate_limited, 1);
        return -FC_ERR_POLICY;
    }
    client->extra->full_at = full_at;
    return 0;
}

/* A Close has come, or an error: nothing more of this client's counts. What we say to it goes through the mailbox,
 * so that it follows the messages that came before, this client's own among them. */
static void begin_leaving(struct fc_shard *shard, struct fc_client *client, uint32_t slot, uint16_t code,
                          struct fc_message *reason)
{
    struct fc_command command = {
        .kind = FC_COMMAND_CLOSE, .client = fc_shard_id(shard, client, slot), .code = code, .message = reason};

    fc_read_forget(client);
    client->state = FC_CLIENT_LEAVING;
    client->active = shard->tick;
    if (fc_exchange_command(shard->exchange, shard->index, &command, 1, 0))
        fc_conn_say_close(shard, slot, code, NULL);
}

static void fail(struct fc_shard *shard, struct fc_client *client, uint32_t slot, int error)
{
    if (client->state == FC_CLIENT_CLOSING || error == -ENOMEM) {
        fc_conn_drop(shard, slot);
        return;
    }
    fc_count(&shard->counters.violations, 1);
    begin_leaving(shard, client, slot, (uint16_t)-error, NULL);
}

/* Answers to the Pings of one read. Each is answered, as long as that stays modest; else the latest answer stands for
 * those before it (section 5.5.3). */
struct pongs {
    size_t length;
    size_t last; /* where the latest begins */
    uint8_t bytes[2048];
};

static void add_pong(struct pongs *pongs, const uint8_t *payload, size_t n)
{
    if (pongs->length + FC_FRAME_HEADER_MAX + n > sizeof pongs->bytes)
        pongs->length = 0;
    pongs->last = pongs->length;
    pongs->length += fc_frame_write_header(pongs->bytes + pongs->length, FC_OP_PONG, n);
    memcpy(pongs->bytes + pongs->length, payload, n);
    pongs->length += n;
}

/* Keeps the parser's state for a client that's amid a frame or message, and only for such. */
static int keep_state(struct fc_client *client, const struct fc_inbound *state)
{
    if (state == client->inbound) {
        if (fc_inbound_at_rest(state)) {
            free(client->inbound);
            client->inbound = NULL;
        }
        return 0;
    }
    if (fc_inbound_at_rest(state))
        return 0;
    client->inbound = malloc(sizeof *client->inbound);
    if (!client->inbound)
        return -ENOMEM;
    *client->inbound = *state;
    return 0;
}

/* Parses what came from an OPEN or CLOSING client. */
void fc_read_frames(struct fc_shard *shard, uint32_t slot, const uint8_t *bytes, size_t n)
{
    const struct fc_options *options = &shard->exchange->options;
    const struct fc_inbound_limits limits = {
        .account = &shard->exchange->account,
        .max_message = options->max_message,
        .max_alive = options->max_backlog,
    };
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_inbound fresh = {0};
    struct fc_inbound *state = client->inbound ? client->inbound : &fresh;
    struct fc_message *messages[FC_PUBLISH_MAX];
    unsigned count = 0;
    struct pongs pongs;
    bool open = client->state == FC_CLIENT_OPEN;
    struct fc_message *reason = NULL;
    int close_code = 0;
    int result;

    pongs.length = 0; /* not all of it: most reads bring no Ping */

    for (;;) {
        struct fc_item item;
        size_t used;
        result = fc_inbound_next(state, &limits, bytes, n, &used, &item);
        bytes += used;
        n -= used;
        if (result <= 0)
            break;
        if (item.kind == FC_ITEM_CLOSE) {
            close_code = item.code;
            if (item.length > 2 && shard->exchange->options.closes)
                reason = fc_message_raw(limits.account, item.payload + 2, item.length - 2);
            break;
        }
        if (item.kind == FC_ITEM_MESSAGE) {
            fc_count(&shard->counters.received, 1);
            fc_count(&shard->counters.received_bytes, item.message->size);
            if (!open) { /* our Close is out: what comes now is too late */
                fc_message_unref(item.message);
                continue;
            }
            result = take_token(shard, client);
            if (result < 0) {
                fc_message_unref(item.message);
                break;
            }
            messages[count++] = item.message;
            if (count == FC_PUBLISH_MAX) {
                result = hand_on(shard, client, slot, messages, count);
                count = 0;
                if (result < 0)
                    break;
            }
        } else if (item.kind == FC_ITEM_PING) {
            add_pong(&pongs, item.payload, item.length);
        }
    }
    int error = hand_on(shard, client, slot, messages, count);
    if (error)
        result = error;
    if (result == 0)
        result = keep_state(client, state);
    if ((result < 0 || close_code) && state == &fresh)
        fc_inbound_clear(&fresh); /* else it goes with the client's */

    uint64_t id = fc_shard_id(shard, client, slot);
    if (pongs.length > 0 && open)
        fc_write_pongs(shard, slot, pongs.bytes, pongs.length, pongs.last);
    if (fc_clients_find(&shard->clients, id) != client || result < 0 || !open) {
        fc_message_unref(reason);
        reason = NULL;
    }
    if (fc_clients_find(&shard->clients, id) != client)
        return;
    if (result < 0) {
        fail(shard, client, slot, result);
    } else if (close_code && open) {
        begin_leaving(shard, client, slot, (uint16_t)close_code, reason);
    } else if (close_code) {
        fc_read_forget(client);
        client->state = FC_CLIENT_ENDING;
        if (!client->queue)
            fc_conn_shut_down(shard, slot);
    }
}

static void ask(struct fc_shard *shard, struct fc_client *client, uint32_t slot, const uint8_t *head, size_t length)
{
    struct fc_exchange *exchange = shard->exchange;
    struct fc_event request = {.client = fc_shard_id(shard, client, slot), .bytes = {head, length}};
    char remote[FC_REMOTE_MAX];

    if (client->refused) {
        fc_count(&shard->counters.full, 1);
    } else if (!shard->stopping) {
        if (exchange->options.remotes) {
            fc_remote_of(client, remote, &request.port);
            request.remote = (struct fc_span){remote, strlen(remote)};
        }
        if (fc_exchange_ask(exchange, &request) == 0) {
            client->state = FC_CLIENT_ASKED;
            fc_count(&shard->counters.asked, 1);
            fc_count(&shard->counters.requests, 1);
            shard->has_news = true;
            return;
        }
        fc_count(&shard->counters.no_memory, 1);
    }
    fc_conn_respond(shard, slot, exchange->options.full);
}

/* Where the head ends, which a PROXY header may precede; 0: further on. */
static size_t find_end(const struct fc_shard *shard, const uint8_t *bytes, size_t n, size_t seen)
{
    size_t skipped = shard->exchange->options.proxy_protocol ? fc_head_proxy(bytes, n) : 0;

    if (skipped >= n) /* also SIZE_MAX */
        return 0;
    size_t end = fc_head_end(bytes + skipped, n - skipped, seen > skipped ? seen - skipped : 0);
    return end > 0 ? skipped + end : 0;
}

/* Bytes of a HEAD client. In the usual case all of the head is in one piece, and nothing is kept. */
static void take_head(struct fc_shard *shard, uint32_t slot, const uint8_t *bytes, size_t n)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_head *rest = NULL;
    size_t seen = client->head ? client->head->length : 0;

    if (client->head) {
        if (fc_head_append(&client->head, bytes, n)) {
            fc_conn_drop(shard, slot);
            return;
        }
        bytes = client->head->bytes;
        n = client->head->length;
    }
    size_t end = find_end(shard, bytes, n, seen);
    if (end > shard->exchange->options.max_head || (end == 0 && n > shard->exchange->options.max_head)) {
        fc_conn_respond(shard, slot, shard->exchange->options.too_large);
        return;
    }
    if (end == 0) {
        if (!client->head && fc_head_append(&client->head, bytes, n))
            fc_conn_drop(shard, slot);
        return;
    }
    if (end < n && fc_head_append(&rest, bytes + end, n - end)) {
        fc_conn_drop(shard, slot);
        return;
    }
    struct fc_head *head = client->head;
    client->head = rest;
    ask(shard, client, slot, bytes, end);
    free(head);
}

/* The other side has shut down, and all it sent is read. */
static void end_of_input(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (client->state == FC_CLIENT_CLOSING && client->queue) {
        fc_read_forget(client);
        client->state = FC_CLIENT_ENDING; /* it may still be reading */
        return;
    }
    fc_conn_drop(shard, slot);
}

void fc_read_once(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    uint64_t id = fc_shard_id(shard, client, slot);
    /* Behind a head nothing is due before our answer, and what comes early must be kept. */
    size_t most = client->state == FC_CLIENT_HEAD ? shard->exchange->options.max_head + 1 : FC_READ_BUFFER;
    ssize_t n;

    client->ready = 0;
    if (!fc_read_wanted(client))
        return;
    if (most > FC_READ_BUFFER)
        most = FC_READ_BUFFER;
    do
        n = recv((int)client->fd, shard->buffer, most, 0);
    while (n < 0 && errno == EINTR);

    if (n < 0 && errno == EAGAIN) {
        client->unread = 0;
        return;
    }
    if (n == 0) {
        end_of_input(shard, client, slot);
        return;
    }
    if (n < 0) {
        fc_conn_drop(shard, slot);
        return;
    }
    /* A short read has emptied the socket, and what comes later makes an event; unless there was one
     * already that said "hang-up": then only a read of nothing is the end. */
    if ((size_t)n < most && !client->hup)
        client->unread = 0;

    if (client->state == FC_CLIENT_HEAD) {
        take_head(shard, slot, shard->buffer, (size_t)n);
    } else if (client->state != FC_CLIENT_LINGER) {
        if (client->state == FC_CLIENT_OPEN) { /* a closing client may talk on, but has its time */
            client->active = shard->tick;
            client->pinged = 0;
        }
        fc_read_frames(shard, slot, shard->buffer, (size_t)n);
    }
    if (fc_clients_find(&shard->clients, id) == client && client->unread && fc_read_wanted(client))
        fc_read_later(shard, client, slot);
}
