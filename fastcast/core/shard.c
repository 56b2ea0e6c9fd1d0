/* A shard's thread: mailbox → accept → read → append and flush → sweep, round and round.
 *
 * Every step does a bounded piece of work, so that none holds up the others for long; a round waits for the kernel
 * only when no step has anything left. The thread has an fd table of its own where the system allows it: then
 * RLIMIT_NOFILE counts for each shard by itself, and no other thread's work with fds is in the way.
 * All that the struct points to is the thread's own, but for the exchange.
 */
#include "shard.h"

#include "accept.h"
#include "clock.h"
#include "conn.h"
#include "fanout.h"
#include "inspect.h"
#include "marks.h"
#include "read.h"
#include "resume.h"
#include "sweep.h"
#include "write.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What events name that isn't a client: a client's id has a generation, and is larger. */
enum { TOKEN_WAKE = 0, TOKEN_DOOR = 1, TOKEN_LISTENER = 2 };

#define EVENTS 256
#define READS_IN_A_ROUND 256
#define STOP_SLICE 1024

static void read_clock(struct fc_shard *shard)
{
    shard->now = fc_clock_ms();
    shard->tick = (uint32_t)(shard->now / FC_TICK_MS);
}

/* ---- the fd table ---- */

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Closes all fds of the (unshared) table but those that the shard needs, and standard error, where sanitizers and
 * libc write. Returns 0 or -errno; on the first error nothing has changed. */
static int keep_only(int *fds, unsigned n)
{
    unsigned first = 0;

    qsort(fds, n, sizeof *fds, compare_fds);
    for (unsigned i = 0; i <= n; i++) {
        unsigned last = i < n ? (unsigned)fds[i] : ~0u;
        if (i == n || first < last) {
            unsigned upto = i < n ? last - 1 : last;
            if (syscall(SYS_close_range, first, upto, CLOSE_RANGE_UNSHARE))
                return -errno;
        }
        first = last + 1;
    }
    return 0;
}

static int own_table(const struct fc_shard *shard)
{
    const struct fc_exchange *exchange = shard->exchange;
    unsigned n = 0;
    int *fds = malloc((2 * exchange->shards + exchange->options.listeners_each + 3) * sizeof *fds);

    if (!fds)
        return -ENOMEM;
    fds[n++] = STDERR_FILENO;
    fds[n++] = exchange->event_fd;
    fds[n++] = shard->door;
    for (unsigned i = 0; i < exchange->options.listeners_each; i++)
        fds[n++] = shard->listeners[i];
    for (unsigned i = 0; i < exchange->shards; i++) {
        fds[n++] = exchange->mailboxes[i].wake;
        fds[n++] = exchange->doors[i];
    }
    int error = keep_only(fds, n);
    free(fds);
    return error;
}

/* How many clients fit: what the limit leaves, less what the table holds already. In a shared
 * table all shards, and whatever else the process does, live on one limit. */
static uint32_t count_room(const struct fc_shard *shard)
{
    const struct fc_exchange *exchange = shard->exchange;
    struct rlimit limit;
    uint64_t used = 2 * (uint64_t)exchange->shards + exchange->options.listeners_each + 8 + FC_SPARE_FDS;
    uint64_t room;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > FC_FD_MAX - 2 * FC_SPARE_FDS)
        limit.rlim_cur = FC_FD_MAX - 2 * FC_SPARE_FDS;
    if (!shard->private_table) {
        used += (uint64_t)exchange->shards * (exchange->options.listeners_each + 1 + FC_SPARE_FDS) + 64;
        room = limit.rlim_cur > used ? (limit.rlim_cur - used) / exchange->shards : 1;
    } else {
        room = limit.rlim_cur > used ? limit.rlim_cur - used : 1;
    }
    return (uint32_t)room;
}

static int open_io(struct fc_shard *shard)
{
    enum fc_io_choice choice = shard->exchange->options.io;

    if (choice != FC_IO_EPOLL) {
        int error = fc_io_open_uring(&shard->io);
        if (!error || choice == FC_IO_URING)
            return error;
        shard->uring_error = -error;
    }
    return fc_io_open_epoll(&shard->io);
}

static int set_up(struct fc_shard *shard)
{
    const struct fc_exchange *exchange = shard->exchange;
    int error = exchange->options.shared_table ? -ENOSYS : own_table(shard);

    shard->private_table = error == 0;
    shard->capacity = count_room(shard);
    if ((error = fc_clients_init(&shard->clients, shard->capacity + FC_SPARE_FDS)))
        return error;
    fc_waiting_init(&shard->waiting);
    shard->queues = (struct fc_queue_host){&shard->exchange->channels, fc_write_ended};
    if ((error = fc_fanout_open(shard)))
        return error;
    if ((error = open_io(shard)))
        return error;
    shard->backend = shard->io->ops->name;
    if ((error = fc_io_watch(shard->io, exchange->mailboxes[shard->index].wake, TOKEN_WAKE)))
        return error;
    if ((error = fc_io_watch(shard->io, shard->door, TOKEN_DOOR)))
        return error;
    for (unsigned i = 0; i < exchange->options.listeners_each; i++) {
        if ((error = fc_io_watch(shard->io, shard->listeners[i], TOKEN_LISTENER)))
            return error;
    }
    atomic_store(&exchange->vacant[shard->index], (int)shard->capacity);
    shard->accept_pending = true; /* what came before we watched makes no event */
    return 0;
}

/* ---- commands ---- */

static void begin_stop(struct fc_shard *shard)
{
    if (shard->stopping)
        return;
    shard->stopping = true;
    shard->listening = false;
    for (unsigned i = 0; i < shard->exchange->options.listeners_each; i++)
        close(shard->listeners[i]);
    shard->accept_pending = false;
}

static void answer(struct fc_shard *shard, const struct fc_command *command)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, command->client);

    if (client && client->state == FC_CLIENT_ASKED) {
        fc_conn_answer(shard, fc_client_id_slot(command->client), command);
        return;
    }
    if (command->code != 0)
        fc_conn_tell_closed(shard, command->client, FC_CLOSE_ABNORMAL, NULL, 0);
    fc_exchange_drop_command(shard->exchange, command);
}

/* What Python wants of one client, which must be open. */
static void serve_client(struct fc_shard *shard, const struct fc_command *command)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, command->client);
    uint32_t slot = fc_client_id_slot(command->client);

    if (!client || client->state != FC_CLIENT_OPEN) {
        if (command->kind == FC_COMMAND_SEND) { /* too late: sent, and gone */
            fc_count(&shard->counters.sent, 1);
            fc_count(&shard->counters.gone, 1);
        }
    } else if (command->kind == FC_COMMAND_SUBSCRIBE) {
        fc_resume_subscribe(shard, slot, command->channel, command->subscription);
    } else if (command->kind == FC_COMMAND_UNSUBSCRIBE) {
        fc_resume_unsubscribe(shard, slot, command->channel);
    } else if (command->kind == FC_COMMAND_SEND) {
        if (fc_fanout_catch_up(shard, slot)) {
            fc_write_messages(shard, slot, NULL, &command->message, 1);
        } else {
            fc_count(&shard->counters.sent, 1);
            fc_count(&shard->counters.gone, 1);
        }
    } else if (fc_fanout_catch_up(shard, slot)) {
        fc_conn_dismiss(shard, slot, fc_message_ref(command->message));
    }
    if (command->kind == FC_COMMAND_SEND)
        fc_exchange_settle(shard->exchange, shard->index, fc_message_weight(command->message));
    if (command->kind == FC_COMMAND_SUBSCRIBE)
        fc_exchange_subscribed(shard->index, command);
    fc_exchange_drop_command(shard->exchange, command);
}

static void say_close(struct fc_shard *shard, const struct fc_command *command)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, command->client);
    uint32_t slot = fc_client_id_slot(command->client);

    if (client && client->state == FC_CLIENT_LEAVING) {
        fc_fanout_catch_up(shard, slot);
        if (fc_clients_find(&shard->clients, command->client) == client && client->state == FC_CLIENT_LEAVING)
            fc_conn_say_close(shard, slot, command->code, command->message);
    }
    fc_exchange_drop_command(shard->exchange, command);
}

/* Commands for several channels with one message stand side by side. Returns how many they are. */
static uint32_t publish(struct fc_shard *shard, const struct fc_command *commands)
{
    uint32_t n = 1;

    while (commands[n - 1].more)
        n++;
    fc_fanout_add(shard, commands, n);
    if (fc_resume_has_lost(shard)) /* before anybody hears what comes after that */
        fc_resume_drop_lost(shard);
    return n;
}

static void obey(struct fc_shard *shard)
{
    uint32_t n = fc_mailbox_take(&shard->exchange->mailboxes[shard->index], &shard->commands,
                                 &shard->commands_capacity);

    if (fc_resume_has_lost(shard))
        fc_resume_drop_lost(shard);
    for (uint32_t i = 0, used; i < n; i += used) {
        const struct fc_command *command = &shard->commands[i];
        used = 1;
        switch (command->kind) {
        case FC_COMMAND_PUBLISH:
            used = publish(shard, command);
            break;
        case FC_COMMAND_ANSWER:
            answer(shard, command);
            break;
        case FC_COMMAND_CLOSE:
            say_close(shard, command);
            break;
        case FC_COMMAND_CHECK:
            fc_inspect_check(shard, command->client);
            break;
        case FC_COMMAND_INSPECT:
            fc_inspect(shard, command->client, command->token);
            break;
        case FC_COMMAND_FLUSH:
            fc_marks_put(shard, command->token);
            break;
        case FC_COMMAND_STOP:
            begin_stop(shard);
            break;
        default:
            serve_client(shard, command);
        }
    }
    if (shard->commands_capacity > 16384) { /* a burst is over */
        free(shard->commands);
        shard->commands = NULL;
        shard->commands_capacity = 0;
    }
}

/* ---- stopping ---- */

static void stop_client(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    uint64_t id = fc_shard_id(shard, client, slot);

    switch (client->state) {
    case FC_CLIENT_HEAD:
    case FC_CLIENT_ASKED:
        fc_conn_respond(shard, slot, shard->exchange->options.full);
        break;
    case FC_CLIENT_OPEN:
        fc_fanout_catch_up(shard, slot);
        client = fc_clients_find(&shard->clients, id);
        if (client && client->state == FC_CLIENT_OPEN)
            fc_conn_close(shard, slot, FC_CLOSE_GOING_AWAY);
        break;
    default:
        break;
    }
}

static void stop_some(struct fc_shard *shard)
{
    uint32_t end = fc_clients_end(&shard->clients);

    for (unsigned budget = STOP_SLICE; budget > 0 && shard->stop_slot < end; budget--, shard->stop_slot++) {
        if (fc_clients_used(&shard->clients, shard->stop_slot))
            stop_client(shard, shard->stop_slot);
    }
    if (shard->stop_slot >= end)
        shard->stop_slot = FC_NO_SLOT;
}

/* True when the thread may end. Past the deadline nobody is waited for. */
static bool is_over(struct fc_shard *shard)
{
    uint64_t deadline = atomic_load(&shard->exchange->deadline);

    if (!shard->stopping)
        return false;
    if (deadline <= shard->now) {
        uint32_t end = fc_clients_end(&shard->clients);
        for (uint32_t slot = 0; slot < end; slot++) {
            if (fc_clients_used(&shard->clients, slot))
                fc_conn_abort(shard, slot);
        }
    }
    return shard->clients.count == 0;
}

static void tear_down(struct fc_shard *shard)
{
    obey(shard); /* so that nobody waits for what came too late to be settled */
    fc_fanout_close(shard);
    if (shard->io)
        fc_io_close(shard->io);
    fc_clients_destroy(&shard->clients);
    fc_ready_free(&shard->ready);
    fc_ready_free(&shard->writers);
    free(shard->commands);
    atomic_fetch_sub(&shard->exchange->running, 1);
    fc_exchange_notify(shard->exchange);
    /* The table goes with the thread, but not before the thread does. What is in the process's table the hub closes. */
    if (shard->private_table)
        syscall(SYS_close_range, 0, ~0u, 0);
}

/* ---- the round ---- */

static bool may_read_heads(const struct fc_shard *shard)
{
    return shard->waiting.count > 0 && fc_shard_may_ask(shard);
}

static void read_newest_head(struct fc_shard *shard)
{
    uint32_t slot = shard->waiting.newest;

    if (fc_conn_has_given_up(shard, fc_shard_client(shard, slot))) {
        fc_conn_shed(shard, slot);
        return;
    }
    fc_waiting_remove(&shard->waiting, &shard->clients, slot);
    fc_read_once(shard, slot);
}

static void read_some(struct fc_shard *shard)
{
    uint64_t id;

    for (unsigned budget = READS_IN_A_ROUND; budget > 0 && may_read_heads(shard); budget--)
        read_newest_head(shard);
    for (uint32_t budget = shard->ready.count < READS_IN_A_ROUND ? shard->ready.count : READS_IN_A_ROUND;
         budget > 0 && !fc_exchange_congested(shard->exchange) && fc_ready_pop(&shard->ready, &id); budget--) {
        if (fc_clients_find(&shard->clients, id))
            fc_read_once(shard, fc_client_id_slot(id));
    }
}

static void tell_python(struct fc_shard *shard)
{
    if (shard->has_news)
        fc_exchange_notify(shard->exchange);
    shard->has_news = false;
}

static bool has_work(const struct fc_shard *shard)
{
    return fc_fanout_possible(shard) || shard->sweep_left > 0 || fc_accept_handed_possible(shard) ||
           (shard->stopping && shard->stop_slot != FC_NO_SLOT) || may_read_heads(shard) || fc_accept_possible(shard) ||
           (shard->ready.count > 0 && !fc_exchange_congested(shard->exchange)) || shard->writers.count > 0;
}

static int until(const struct fc_shard *shard, uint64_t moment, int timeout)
{
    uint64_t left = moment > shard->now ? moment - shard->now : 0;

    return timeout < 0 || left < (uint64_t)timeout ? (int)(left < INT_MAX ? left : INT_MAX) : timeout;
}

static int waiting_time(const struct fc_shard *shard)
{
    int timeout = -1;

    if (fc_sweep_wanted(shard))
        timeout = until(shard, shard->sweep_at, timeout);
    if (shard->due.first)
        timeout = until(shard, shard->flush_after, timeout);
    if (shard->accept_pending && shard->accept_after > shard->now)
        timeout = until(shard, shard->accept_after, timeout);
    if (shard->stopping)
        timeout = until(shard, atomic_load(&shard->exchange->deadline), timeout);
    return timeout;
}

static void wait_for_events(struct fc_shard *shard)
{
    struct fc_io_event events[EVENTS];
    int timeout = 0;

    /* First announce the sleep, then look for work again: what others bring after the announcement wakes us,
     * and what they brought before it is seen here. That goes for the end of congestion, too. */
    if (!has_work(shard) && fc_mailbox_sleep(&shard->exchange->mailboxes[shard->index]) && !has_work(shard))
        timeout = waiting_time(shard);

    int n = fc_io_wait(shard->io, events, EVENTS, timeout);
    read_clock(shard);
    for (int i = 0; i < n; i++) {
        switch (events[i].token) {
        case TOKEN_WAKE:
            break; /* the mailbox is looked at in any case */
        case TOKEN_DOOR:
            shard->door_pending = true;
            break;
        case TOKEN_LISTENER:
            shard->accept_pending = !shard->stopping;
            break;
        default:
            if (fc_clients_find(&shard->clients, events[i].token))
                fc_conn_event(shard, fc_client_id_slot(events[i].token), events[i].what);
        }
    }
}

void fc_shard_run(struct fc_shard *shard, void (*started)(void *context), void *context)
{
    read_clock(shard);
    shard->start_error = set_up(shard);
    bool failed = shard->start_error != 0;
    started(context);
    if (failed) {
        tear_down(shard);
        return;
    }
    do {
        wait_for_events(shard);
        obey(shard);
        if (fc_accept_possible(shard))
            fc_accept_some(shard);
        if (fc_accept_handed_possible(shard))
            fc_accept_handed(shard);
        read_some(shard);
        obey(shard); /* what was just read and published goes out in this round */
        tell_python(shard);
        fc_sweep_brace(shard);
        if (fc_fanout_possible(shard))
            fc_fanout_slice(shard);
        if (shard->writers.count > 0)
            fc_resume_some(shard);
        if (shard->stopping && shard->stop_slot != FC_NO_SLOT)
            stop_some(shard);
        if (shard->now >= shard->sweep_at || shard->sweep_left > 0)
            fc_sweep_some(shard);
        tell_python(shard); /* what writing and sweeping have brought up */
    } while (!is_over(shard));
    tear_down(shard);
}
