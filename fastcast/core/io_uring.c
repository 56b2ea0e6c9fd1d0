/* The io_uring backend: hundreds of sends in one system call.
 *
 * Only sends go through the ring; waiting stays with epoll (docs/design.md has the figures). Every send is tried
 * once, without waiting (MSG_DONTWAIT), so that it is over when io_uring_enter returns: nothing is in flight between
 * two calls, and no frame needs to outlive one. A send that succeeds leaves no completion (CQE_SKIP_SUCCESS);
 * MSG_WAITALL makes a short one count as a failure, since otherwise its missing rest would go unnoticed.
 *
 * SINGLE_ISSUER and DEFER_TASKRUN: the thread that made the ring is the only one that uses it, and the kernel never
 * interrupts it for the ring's sake. Owned by the shard's thread.
 */
#include "io.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel that it runs on decides, not the headers that it was built with: what older ones lack. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

/* Also the number of sends in one call. Completions of failures only, so that the queue for them, twice as long, never
 * overflows. */
#define ENTRIES 512

struct fc_io_uring {
    struct fc_io io;
    struct fc_io *epoll;
    int ring;
    void *rings; /* both queues, in one mapping */
    size_t rings_size;
    struct io_uring_sqe *sqes;
    size_t sqes_size;
    atomic_uint *sq_tail;
    unsigned *sq_array;
    unsigned sq_mask;
    atomic_uint *cq_head;
    atomic_uint *cq_tail;
    struct io_uring_cqe *cqes;
    unsigned cq_mask;
};

static struct fc_io_uring *self(struct fc_io *io)
{
    return (struct fc_io_uring *)io;
}

static void uring_close(struct fc_io *io)
{
    struct fc_io_uring *uring = self(io);

    if (uring->sqes)
        munmap(uring->sqes, uring->sqes_size);
    if (uring->rings)
        munmap(uring->rings, uring->rings_size);
    if (uring->ring >= 0)
        close(uring->ring);
    if (uring->epoll)
        fc_io_close(uring->epoll);
    free(uring);
}

static int uring_watch(struct fc_io *io, int fd, uint64_t token)
{
    return fc_io_watch(self(io)->epoll, fd, token);
}

static int uring_wait(struct fc_io *io, struct fc_io_event *events, int max, int timeout_ms)
{
    return fc_io_wait(self(io)->epoll, events, max, timeout_ms);
}

static void prepare(struct fc_io_uring *uring, unsigned tail, const struct fc_send *send, unsigned index)
{
    struct io_uring_sqe *sqe = &uring->sqes[tail & uring->sq_mask];

    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_SEND;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = send->fd;
    sqe->addr = (uint64_t)(uintptr_t)send->vector->iov_base;
    sqe->len = (uint32_t)send->vector->iov_len;
    sqe->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL;
    sqe->user_data = index;
    uring->sq_array[tail & uring->sq_mask] = tail & uring->sq_mask;
}

/* Takes the completions, which are those of sends that fell short. */
static void reap(struct fc_io_uring *uring, struct fc_send *sends)
{
    /* Acquire: the kernel's entries before its tail. Release: our reading before its reuse of the places. */
    unsigned head = atomic_load_explicit(uring->cq_head, memory_order_relaxed);
    unsigned tail = atomic_load_explicit(uring->cq_tail, memory_order_acquire);

    for (; head != tail; head++) {
        const struct io_uring_cqe *cqe = &uring->cqes[head & uring->cq_mask];
        sends[cqe->user_data].result = cqe->res;
    }
    atomic_store_explicit(uring->cq_head, head, memory_order_release);
}

/* Submits n prepared entries. The kernel may take fewer, when memory is short for a moment; returns how many. */
static unsigned submit(struct fc_io_uring *uring, unsigned n)
{
    unsigned submitted = 0;

    while (submitted < n) {
        /* GETEVENTS with nothing to wait for: runs what DEFER_TASKRUN has put off, if anything. */
        long taken =
            syscall(SYS_io_uring_enter, uring->ring, n - submitted, 0, IORING_ENTER_GETEVENTS, NULL, 0);
        if (taken > 0)
            submitted += (unsigned)taken;
        else if (taken == 0 || errno != EINTR)
            break;
    }
    return submitted;
}

/* What the ring didn't take is taken back, and sent one by one. */
static void send_batch(struct fc_io_uring *uring, struct fc_send *sends, unsigned n)
{
    unsigned tail = atomic_load_explicit(uring->sq_tail, memory_order_relaxed);

    for (unsigned i = 0; i < n; i++) {
        sends[i].result = (ssize_t)sends[i].vector->iov_len;
        prepare(uring, tail + i, &sends[i], i);
    }
    /* Release: the entries before the tail that makes them the kernel's. */
    atomic_store_explicit(uring->sq_tail, tail + n, memory_order_release);
    unsigned submitted = submit(uring, n);
    reap(uring, sends);
    if (submitted < n) {
        atomic_store_explicit(uring->sq_tail, tail + submitted, memory_order_release);
        fc_io_send(uring->epoll, sends + submitted, n - submitted);
    }
}

static void uring_send(struct fc_io *io, struct fc_send *sends, unsigned n)
{
    struct fc_io_uring *uring = self(io);

    /* A single send is cheaper by itself; gather-writes are large, and the call is a small part of them. */
    if (n < 2 || sends[0].vectors > 1) {
        fc_io_send(uring->epoll, sends, n);
        return;
    }
    for (unsigned done = 0; done < n; done += ENTRIES)
        send_batch(uring, sends + done, n - done < ENTRIES ? n - done : ENTRIES);
}

/* ---- opening ---- */

static int map_rings(struct fc_io_uring *uring, const struct io_uring_params *p)
{
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);

    uring->rings_size = sq > cq ? sq : cq;
    void *rings = mmap(NULL, uring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring->ring,
                       IORING_OFF_SQ_RING);
    if (rings == MAP_FAILED)
        return -errno;
    uring->rings = rings;
    uring->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
    void *sqes = mmap(NULL, uring->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring->ring,
                      IORING_OFF_SQES);
    if (sqes == MAP_FAILED)
        return -errno;
    uring->sqes = sqes;

    char *base = rings;
    uring->sq_tail = (atomic_uint *)(base + p->sq_off.tail);
    uring->sq_array = (unsigned *)(base + p->sq_off.array);
    uring->sq_mask = p->sq_entries - 1;
    uring->cq_head = (atomic_uint *)(base + p->cq_off.head);
    uring->cq_tail = (atomic_uint *)(base + p->cq_off.tail);
    uring->cqes = (struct io_uring_cqe *)(base + p->cq_off.cqes);
    uring->cq_mask = p->cq_entries - 1;
    return 0;
}

static int set_up(struct fc_io_uring *uring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};

    uring->ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (uring->ring < 0)
        return -errno;
    if (!(params.features & IORING_FEAT_SINGLE_MMAP) || !(params.features & IORING_FEAT_CQE_SKIP))
        return -ENOSYS;
    return map_rings(uring, &params);
}

/* A ring that can be made may still refuse to work (seccomp, an LSM): two sends that must arrive, and one into a
 * closed socket that must be told of. */
static int probe(struct fc_io_uring *uring)
{
    char byte = 'x';
    char got[2];
    struct iovec vector = {.iov_base = &byte, .iov_len = 1};
    int ends[2];
    int error = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    struct fc_send sends[2] = {
        {.fd = ends[0], .vectors = 1, .vector = &vector},
        {.fd = ends[0], .vectors = 1, .vector = &vector},
    };
    send_batch(uring, sends, 2);
    if (sends[0].result != 1 || sends[1].result != 1)
        error = sends[0].result < 0 ? (int)sends[0].result : -EIO;
    else if (recv(ends[1], got, 2, MSG_DONTWAIT) != 2)
        error = -EIO;
    close(ends[1]);
    if (!error) {
        send_batch(uring, sends, 2);
        if (sends[0].result != -EPIPE || sends[1].result != -EPIPE)
            error = -EIO;
    }
    close(ends[0]);
    return error;
}

int fc_io_open_uring(struct fc_io **io)
{
    static const struct fc_io_ops ops = {
        .name = "io_uring",
        .close = uring_close,
        .watch = uring_watch,
        .wait = uring_wait,
        .send = uring_send,
    };
    struct fc_io_uring *uring = calloc(1, sizeof *uring);

    if (!uring)
        return -ENOMEM;
    uring->io.ops = &ops;
    uring->ring = -1;
    int error = fc_io_open_epoll(&uring->epoll);
    if (!error)
        error = set_up(uring);
    if (!error)
        error = probe(uring);
    if (error) {
        uring_close(&uring->io);
        return error;
    }
    *io = &uring->io;
    return 0;
}
