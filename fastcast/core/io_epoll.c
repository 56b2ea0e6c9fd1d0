/* The epoll backend: one epoll instance for each shard, one send(2) for each client.
 *
 * Edge-triggered and registered once for both directions: a connection costs one epoll_ctl in its life,
 * and a socket that fills up needs no further call to be heard of again. Closing takes it out of the set; a child
 * process that still holds a copy of a shared table can cause events for a client that's gone, which mean nobody.
 */
#include "io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct fc_io_epoll {
    struct fc_io io;
    int epoll;
};

static struct fc_io_epoll *self(struct fc_io *io)
{
    return (struct fc_io_epoll *)io;
}

static void epoll_destroy(struct fc_io *io)
{
    close(self(io)->epoll);
    free(io);
}

static int epoll_watch(struct fc_io *io, int fd, uint64_t token)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = token};

    return epoll_ctl(self(io)->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static int epoll_wait_events(struct fc_io *io, struct fc_io_event *events, int max, int timeout_ms)
{
    enum { MOST = 512 };
    struct epoll_event ready[MOST];
    int n = epoll_wait(self(io)->epoll, ready, max < MOST ? max : MOST, timeout_ms);

    if (n < 0)
        return 0; /* only EINTR is possible here */
    for (int i = 0; i < n; i++) {
        uint32_t what = 0;
        if (ready[i].events & EPOLLIN)
            what |= FC_IO_READABLE;
        if (ready[i].events & EPOLLOUT)
            what |= FC_IO_WRITABLE;
        if (ready[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            what |= FC_IO_READABLE | FC_IO_HANGUP;
        events[i] = (struct fc_io_event){.token = ready[i].data.u64, .what = what};
    }
    return n;
}

static ssize_t send_one(const struct fc_send *s)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)s->vector, .msg_iovlen = s->vectors};
    ssize_t n;

    do {
        if (s->vectors == 1)
            n = send(s->fd, s->vector->iov_base, s->vector->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            n = sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void epoll_send(struct fc_io *io, struct fc_send *sends, unsigned n)
{
    (void)io;
    for (unsigned i = 0; i < n; i++)
        sends[i].result = send_one(&sends[i]);
}

int fc_io_open_epoll(struct fc_io **io)
{
    static const struct fc_io_ops ops = {
        .name = "epoll",
        .close = epoll_destroy,
        .watch = epoll_watch,
        .wait = epoll_wait_events,
        .send = epoll_send,
    };
    struct fc_io_epoll *epoll = malloc(sizeof *epoll);

    if (!epoll)
        return -ENOMEM;
    epoll->io.ops = &ops;
    epoll->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->epoll < 0) {
        int error = -errno;
        free(epoll);
        return error;
    }
    *io = &epoll->io;
    return 0;
}
