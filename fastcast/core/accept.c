/* Accepting.
 *
 * Every shard has listeners of its own (SO_REUSEPORT), so that the kernel spreads the clients and no thread wakes
 * for another's. The kernel spreads blindly: a shard that is full passes the socket on to the one with the most room,
 * over a socket pair, since fd numbers mean nothing in another's table; there they wait until it may have more
 * handshakes. Where nobody has room, or too many wait already, the client is told so with a 503, as long as there's an
 * fd to do it with. An error that only time can cure (no fds, no memory) stops accepting for a tick: the backlog waits,
 * nothing spins.
 */
#include "accept.h"

#include "conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLICE 256

/* Who isn't taken waits in the kernel's backlog, which knows no newest first: so all are taken that may be. */
static uint32_t room_for_handshakes(const struct fc_shard *shard)
{
    uint64_t handshakes = atomic_load_explicit(&shard->counters.handshakes, memory_order_relaxed);
    uint32_t most = shard->exchange->handshakes_each;

    return handshakes < most ? most - (uint32_t)handshakes : 0;
}

bool fc_accept_possible(const struct fc_shard *shard)
{
    return shard->accept_pending && shard->now >= shard->accept_after && room_for_handshakes(shard) > 0;
}

bool fc_accept_handed_possible(const struct fc_shard *shard)
{
    return shard->door_pending && room_for_handshakes(shard) > 0;
}

static int hand_over(const struct fc_shard *shard, int to, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    char byte = 0;
    struct iovec vector = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    ssize_t n;
    do
        n = sendmsg(shard->exchange->doors[to], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* One that no shard has room for. */
static void refuse(struct fc_shard *shard, int fd)
{
    if (shard->clients.count < shard->capacity + FC_SPARE_FDS / 2) {
        fc_conn_start(shard, fd, true);
        return;
    }
    fc_count(&shard->counters.full, 1);
    close(fd);
}

/* One that has a place on this shard. */
static void admit(struct fc_shard *shard, int fd)
{
    struct fc_exchange *exchange = shard->exchange;

    /* Relaxed: a limit of numbers, which orders nothing. */
    if (atomic_fetch_add_explicit(&exchange->connections, 1, memory_order_relaxed) <
        exchange->options.max_connections) {
        fc_conn_start(shard, fd, false);
        return;
    }
    atomic_fetch_sub_explicit(&exchange->connections, 1, memory_order_relaxed);
    fc_exchange_vacate(exchange, shard->index);
    refuse(shard, fd);
}

static void find_place(struct fc_shard *shard, int fd)
{
    struct fc_exchange *exchange = shard->exchange;

    if (fc_exchange_reserve(exchange, shard->index)) {
        admit(shard, fd);
        return;
    }
    int to = fc_exchange_reserve_any(exchange);
    if (to == (int)shard->index) { /* one has just gone */
        admit(shard, fd);
        return;
    }
    if (to >= 0 && hand_over(shard, to, fd) == 0) {
        fc_count(&shard->counters.handed_over, 1);
        close(fd);
        return;
    }
    if (to >= 0)
        fc_exchange_vacate(exchange, (unsigned)to);
    refuse(shard, fd);
}

/* Takes up to `budget` clients from one listener; true when it has no more. */
static bool drain(struct fc_shard *shard, int listener, unsigned *budget)
{
    while (*budget > 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            (*budget)--;
            find_place(shard, fd);
            continue;
        }
        switch (errno) {
        case EAGAIN:
            return true;
        case EMFILE:
        case ENFILE:
            fc_count(&shard->counters.no_files, 1);
            shard->accept_after = shard->now + FC_TICK_MS;
            return false;
        case ENOBUFS:
        case ENOMEM:
            fc_count(&shard->counters.no_memory, 1);
            shard->accept_after = shard->now + FC_TICK_MS;
            return false;
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
            return true;
        default:
            (*budget)--; /* this one connection has failed already (accept(2)), or a signal came: the next */
        }
    }
    return false;
}

void fc_accept_some(struct fc_shard *shard)
{
    uint32_t room = room_for_handshakes(shard);
    unsigned budget = room < SLICE ? room : SLICE;
    bool all = true;

    unsigned n = shard->exchange->options.listeners_each;
    unsigned first = shard->accept_turn++; /* another each time: a busy address doesn't starve the others */

    for (unsigned i = 0; i < n; i++)
        all = drain(shard, shard->listeners[(first + i) % n], &budget) && all;
    shard->accept_pending = !all;
}

void fc_accept_handed(struct fc_shard *shard)
{
    for (unsigned budget = SLICE; budget > 0 && room_for_handshakes(shard) > 0; budget--) {
        union {
            char space[CMSG_SPACE(sizeof(int))];
            struct cmsghdr aligned;
        } control;
        char byte;
        struct iovec vector = {.iov_base = &byte, .iov_len = 1};
        struct msghdr message = {
            .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
        ssize_t n = recvmsg(shard->door, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            shard->door_pending = false;
            return;
        }
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (!header || header->cmsg_type != SCM_RIGHTS) { /* no fd to take it with: the kernel has dropped it */
            fc_count(&shard->counters.no_files, 1);
            fc_count(&shard->counters.full, 1);
            fc_exchange_vacate(shard->exchange, shard->index);
        } else {
            int fd;
            memcpy(&fd, CMSG_DATA(header), sizeof fd);
            admit(shard, fd);
        }
    }
}
