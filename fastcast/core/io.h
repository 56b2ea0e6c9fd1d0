/* The seam between a shard and the kernel: watch sockets, wait for events, carry out a batch of sends.
 *
 * Sends come in batches and are over when the call returns, so that a backend may submit hundreds of them
 * at once, and no frame needs to outlive the call. All calls are the shard's thread's.
 */
#ifndef FC_IO_H
#define FC_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    FC_IO_READABLE = 1,
    FC_IO_WRITABLE = 2,
    FC_IO_HANGUP = 4, /* the other side has shut down, or the socket has failed */
};

struct fc_io_event {
    uint64_t token;
    uint32_t what;
};

struct fc_send {
    int fd;
    unsigned vectors;
    const struct iovec *vector;
    ssize_t result; /* bytes that the kernel took, or -errno */
};

struct fc_io;

struct fc_io_ops {
    const char *name;
    void (*close)(struct fc_io *io);
    int (*watch)(struct fc_io *io, int fd, uint64_t token);
    int (*wait)(struct fc_io *io, struct fc_io_event *events, int max, int timeout_ms);
    void (*send)(struct fc_io *io, struct fc_send *sends, unsigned n);
};

/* What every backend's own struct begins with. */
struct fc_io {
    const struct fc_io_ops *ops;
};

int fc_io_open_epoll(struct fc_io **io);

/* Fails where the kernel or a policy doesn't allow io_uring, or not all that we need of it. */
int fc_io_open_uring(struct fc_io **io);

static inline void fc_io_close(struct fc_io *io)
{
    io->ops->close(io);
}

/* From now on `wait` tells of the fd's changes, once for each (edge-triggered): what was readable stays
 * so until a read has found the end. Closing the fd ends it; events that were already handed out may still name the
 * token. Returns 0 or -errno. */
static inline int fc_io_watch(struct fc_io *io, int fd, uint64_t token)
{
    return io->ops->watch(io, fd, token);
}

/* Waits up to timeout_ms (-1: for ever) and returns the number of events, at most max; 0 also when a
 * signal came. */
static inline int fc_io_wait(struct fc_io *io, struct fc_io_event *events, int max, int timeout_ms)
{
    return io->ops->wait(io, events, max, timeout_ms);
}

/* Tries each send once, without waiting, and fills in the results. All of them have the same number of vectors. A
 * result short of the whole, or -EAGAIN, is followed by a FC_IO_WRITABLE event. */
static inline void fc_io_send(struct fc_io *io, struct fc_send *sends, unsigned n)
{
    io->ops->send(io, sends, n);
}

#endif
