/* The life of one client: HEAD → ASKED → OPEN → LEAVING or CLOSING → ENDING → LINGER, see client.h.
 *
 * Here are the steps between the states; read.c and write.c do what a state calls for. Whoever drops a client
 * counts what it had been sent and not got as gone, so that the counters add up. Owned by the shard's thread.
 */
#include "conn.h"

#include "extra.h"
#include "fanout.h"
#include "head.h"
#include "read.h"
#include "resume.h"
#include "write.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 1000

/* What a client that isn't refused has taken while it was let in. */
static void give_place_back(struct fc_shard *shard)
{
    atomic_fetch_sub_explicit(&shard->exchange->connections, 1, memory_order_relaxed);
    fc_exchange_vacate(shard->exchange, shard->index);
}

void fc_conn_start(struct fc_shard *shard, int fd, bool refused)
{
    uint32_t slot;
    struct fc_client *client = (uint32_t)fd < FC_FD_MAX ? fc_clients_take(&shard->clients, &slot) : NULL;

    if (!client) {
        if (!refused)
            give_place_back(shard);
        fc_count(&shard->counters.full, 1);
        close(fd);
        return;
    }
    client->fd = (uint32_t)fd & (FC_FD_MAX - 1);
    client->state = FC_CLIENT_HEAD;
    client->refused = refused;
    client->active = shard->tick;
    fc_count(&shard->counters.accepted, 1);
    fc_count(&shard->counters.connections, 1);
    fc_count(&shard->counters.handshakes, 1);
    if (fc_io_watch(shard->io, fd, fc_shard_id(shard, client, slot))) { /* beyond fs.epoll.max_user_watches, too */
        fc_count(&shard->counters.no_memory, 1);
        fc_conn_drop(shard, slot);
    }
}

void fc_conn_event(struct fc_shard *shard, uint32_t slot, uint32_t what)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (what & FC_IO_READABLE) {
        client->unread = 1;
        if (client->state == FC_CLIENT_OPEN) { /* a sign of life, also while we don't read */
            client->active = shard->tick;
            client->pinged = 0;
        }
    }
    if (what & FC_IO_HANGUP) {
        client->hup = 1;
        if (client->ready && fc_conn_has_given_up(shard, client)) {
            fc_conn_shed(shard, slot);
            return;
        }
    }
    if (what & FC_IO_READABLE && fc_read_wanted(client)) {
        uint64_t id = fc_shard_id(shard, client, slot);
        fc_read_later(shard, client, slot);
        if (fc_clients_find(&shard->clients, id) != client)
            return;
    }
    if (client->queue && what & (FC_IO_WRITABLE | FC_IO_HANGUP))
        fc_write_queued(shard, slot);
}

/* A client leaves HEAD or ASKED. What has come of its request stays the caller's. */
static void end_handshake(struct fc_shard *shard, struct fc_client *client, uint32_t slot)
{
    if (client->state == FC_CLIENT_ASKED)
        fc_discount(&shard->counters.asked, 1);
    else if (client->ready)
        fc_waiting_remove(&shard->waiting, &shard->clients, slot);
    fc_discount(&shard->counters.handshakes, 1);
}

void fc_conn_tell_closed(struct fc_shard *shard, uint64_t id, uint16_t code, const void *reason, size_t n)
{
    struct fc_event event = {.kind = FC_EVENT_CLOSED, .client = id, .code = code};

    if (!shard->exchange->options.closes)
        return;
    if (n > 0 && (event.message = fc_message_raw(&shard->exchange->account, reason, n)))
        event.bytes = (struct fc_span){fc_message_payload(event.message), n};
    fc_shard_tell(shard, &event);
}

/* An OPEN or LEAVING client is that no more. */
static void leave(struct fc_shard *shard, struct fc_client *client, uint32_t slot, uint16_t code, const void *reason,
                  size_t n)
{
    fc_discount(&shard->counters.clients, 1);
    fc_fanout_leave(shard, slot);
    fc_conn_tell_closed(shard, fc_shard_id(shard, client, slot), code, reason, n);
    client->active = shard->tick;
}

static void free_head(struct fc_client *client)
{
    free(client->head);
    client->head = NULL;
}

void fc_conn_drop(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    switch (client->state) {
    case FC_CLIENT_HEAD:
    case FC_CLIENT_ASKED:
        end_handshake(shard, client, slot);
        free_head(client);
        break;
    case FC_CLIENT_OPEN:
    case FC_CLIENT_LEAVING:
        leave(shard, client, slot, FC_CLOSE_ABNORMAL, NULL, 0);
        fc_read_forget(client);
        break;
    default:
        fc_read_forget(client);
    }
    fc_write_forget(shard, client);
    if (client->extended) {
        fc_addresses_give(&shard->exchange->addresses, client->extra->address);
        fc_client_free_extra(client, &shard->exchange->channels);
    }
    close((int)client->fd);
    if (!client->refused)
        give_place_back(shard);
    fc_clients_give(&shard->clients, slot);
    fc_discount(&shard->counters.connections, 1);
    fc_count(&shard->counters.closed, 1);
    shard->accept_after = 0;
}

/* Who sends a request and shuts down its side at once may still want the answer; who does so after waiting doesn't. */
bool fc_conn_has_given_up(const struct fc_shard *shard, const struct fc_client *client)
{
    return client->state == FC_CLIENT_HEAD && client->hup && fc_shard_silent_for(shard, client, PATIENCE_MS);
}

void fc_conn_shed(struct fc_shard *shard, uint32_t slot)
{
    fc_count(&shard->counters.shed, 1);
    fc_conn_drop(shard, slot);
}

void fc_conn_abort(struct fc_shard *shard, uint32_t slot)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    /* If this fails the kernel merely keeps trying to deliver for a while. */
    (void)setsockopt((int)fc_shard_client(shard, slot)->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    fc_conn_drop(shard, slot);
}

static int take_address(struct fc_shard *shard, struct fc_client *client, const struct fc_admission *admission)
{
    int error = 0;

    if (admission->address) {
        error = fc_client_extend(client);
        if (error)
            fc_addresses_give(&shard->exchange->addresses, admission->address);
        else
            client->extra->address = admission->address;
    }
    return error;
}

/* With an error, merely gives back what the admission has. */
static int join_all(struct fc_shard *shard, uint32_t slot, struct fc_admission *admission, int error)
{
    for (size_t i = 0; i < admission->count; i++) {
        if (error)
            fc_channel_unref(&shard->exchange->channels, admission->channels[i]);
        else
            error = fc_fanout_join(shard, slot, admission->channels[i]);
    }
    free(admission->positions);
    free(admission);
    return error;
}

/* Who resumes becomes a member of its channels only when it has its response, which the first messages follow. */
static int let_in(struct fc_shard *shard, uint32_t slot, const struct fc_command *answer)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_admission *admission = answer->admission;
    int error = 0;

    if (admission) {
        error = take_address(shard, client, admission);
        client->resumes = admission->resume != FC_RESUME_OFF;
    }
    if (client->resumes) {
        error = error ? error : fc_fanout_enter(shard, slot);
        return error ? join_all(shard, slot, admission, error) : 0;
    }
    if (admission)
        error = join_all(shard, slot, admission, error);
    else if (answer->channel)
        error = fc_fanout_join(shard, slot, answer->channel);
    return error ? error : fc_fanout_enter(shard, slot);
}

void fc_conn_answer(struct fc_shard *shard, uint32_t slot, const struct fc_command *answer)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    struct fc_head *rest = client->head;
    uint64_t id = fc_shard_id(shard, client, slot);

    client->head = NULL;
    client->active = shard->tick;
    if (answer->code != FC_ANSWER_ACCEPT) {
        end_handshake(shard, client, slot);
        fc_count(&shard->counters.refused, 1);
        if (answer->code == FC_ANSWER_LIMITED) {
            fc_count(&shard->counters.address_limited, 1);
            fc_conn_tell_closed(shard, id, FC_CLOSE_ABNORMAL, NULL, 0);
        }
        client->state = FC_CLIENT_ENDING;
        fc_write_own(shard, slot, answer->message);
        free(rest);
        return;
    }
    client->room = NULL; /* the place was used for the list of those who wait */
    if (let_in(shard, slot, answer)) {
        fc_fanout_leave(shard, slot);
        fc_message_unref(answer->message);
        fc_conn_tell_closed(shard, id, FC_CLOSE_ABNORMAL, NULL, 0);
        fc_conn_respond(shard, slot, shard->exchange->options.full);
        free(rest);
        return;
    }
    end_handshake(shard, client, slot);
    client->state = FC_CLIENT_OPEN;
    fc_count(&shard->counters.opened, 1);
    fc_count(&shard->counters.clients, 1);
    bool resumes = client->resumes;
    fc_write_own(shard, slot, answer->message);
    if (resumes)
        fc_resume_all(shard, id, answer->admission);
    if (fc_clients_find(&shard->clients, id) == client && rest)
        fc_read_frames(shard, slot, rest->bytes, rest->length);
    free(rest);
    if (fc_clients_find(&shard->clients, id) == client && client->unread)
        fc_read_later(shard, client, slot);
}

void fc_conn_respond(struct fc_shard *shard, uint32_t slot, struct fc_span response)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    end_handshake(shard, client, slot);
    free_head(client);
    client->state = FC_CLIENT_ENDING;
    client->active = shard->tick;
    fc_write_own(shard, slot, fc_message_raw(&shard->exchange->account, response.bytes, response.length));
}

static void write_close(struct fc_shard *shard, uint32_t slot, uint16_t code)
{
    uint8_t bytes[4];
    size_t n = fc_frame_write_close(bytes, code);

    fc_write_own(shard, slot, fc_message_raw(&shard->exchange->account, bytes, n));
}

void fc_conn_close(struct fc_shard *shard, uint32_t slot, uint16_t code)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (code == FC_ERR_POLICY)
        fc_write_drop_unstarted(shard, client);
    leave(shard, client, slot, code, NULL, 0);
    client->state = FC_CLIENT_CLOSING;
    write_close(shard, slot, code);
}

void fc_conn_dismiss(struct fc_shard *shard, uint32_t slot, struct fc_message *close)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    const uint8_t *frame = fc_message_wire(close);

    leave(shard, client, slot, (uint16_t)(frame[2] << 8 | frame[3]), frame + 4, close->size - 4);
    client->state = FC_CLIENT_CLOSING;
    fc_write_own(shard, slot, close);
}

void fc_conn_say_close(struct fc_shard *shard, uint32_t slot, uint16_t code, struct fc_message *reason)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    leave(shard, client, slot, code, reason ? fc_message_wire(reason) : NULL, reason ? reason->size : 0);
    client->state = FC_CLIENT_ENDING;
    write_close(shard, slot, code);
}

void fc_conn_ping(struct fc_shard *shard, uint32_t slot)
{
    static const uint8_t ping[] = {0x80 | FC_OP_PING, 0};
    struct fc_client *client = fc_shard_client(shard, slot);

    client->pinged = 1;
    client->active = shard->tick; /* from here on it's to answer */
    fc_count(&shard->counters.pings, 1);
    fc_write_own(shard, slot, fc_message_raw(&shard->exchange->account, ping, sizeof ping));
}

void fc_conn_shut_down(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    /* Closing now would make unread input turn into a reset, which can overtake what we wrote: shut down our
     * side, and wait for the other one (RFC 9112 section 9.6, RFC 6455 section 7.1.1). */
    if (shutdown((int)client->fd, SHUT_WR)) {
        fc_conn_drop(shard, slot);
        return;
    }
    client->state = FC_CLIENT_LINGER;
    client->active = shard->tick;
    client->unread = 1;
    fc_read_later(shard, client, slot);
}
