/* The wrappers behind faults.h.
 *
 * All counters are relaxed atomics: they must not order what the threads under test forgot to order, or TSan would
 * be blind for it.
 */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>

static struct {
    atomic_ulong calls;
    atomic_ulong injected;
    atomic_ulong skip;  /* so many calls still work, */
    atomic_ulong count; /* and so many after them fail */
    atomic_int error;
} faults[FAULT_KINDS];

static atomic_size_t send_limit;
static atomic_long live_blocks;
static _Thread_local bool spared;

static struct {
    atomic_bool set;    /* the next sender falls into it */
    atomic_bool closed; /* one is held */
    pthread_mutex_t lock;
    pthread_cond_t opened;
} trap = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

/* What this thread watches, so that an injected EAGAIN can be followed by an event. */
enum { WATCHED_FDS = 1024 };
static _Thread_local struct {
    bool known;
    int epoll; /* may well be 0, in a table of its own */
    struct epoll_event event;
} watched[WATCHED_FDS];

#define RELAXED memory_order_relaxed

void fault_arm(enum fault kind, unsigned long skip, unsigned long count, int error)
{
    atomic_store_explicit(&faults[kind].error, error, RELAXED);
    atomic_store_explicit(&faults[kind].skip, skip, RELAXED);
    atomic_store_explicit(&faults[kind].count, count, RELAXED);
}

void fault_limit_sends(size_t bytes)
{
    atomic_store_explicit(&send_limit, bytes, RELAXED);
}

void fault_catch_sender(void)
{
    atomic_store_explicit(&trap.set, true, RELAXED);
}

bool fault_sender_is_caught(void)
{
    return atomic_load_explicit(&trap.closed, RELAXED);
}

void fault_let_go(void)
{
    pthread_mutex_lock(&trap.lock);
    atomic_store_explicit(&trap.set, false, RELAXED);
    atomic_store_explicit(&trap.closed, false, RELAXED);
    pthread_cond_broadcast(&trap.opened);
    pthread_mutex_unlock(&trap.lock);
}

void fault_clear(void)
{
    for (unsigned i = 0; i < FAULT_KINDS; i++) {
        atomic_store_explicit(&faults[i].count, 0, RELAXED);
        atomic_store_explicit(&faults[i].skip, 0, RELAXED);
        atomic_store_explicit(&faults[i].calls, 0, RELAXED);
        atomic_store_explicit(&faults[i].injected, 0, RELAXED);
    }
    fault_limit_sends(0);
    fault_let_go();
}

unsigned long fault_calls(enum fault kind)
{
    return atomic_load_explicit(&faults[kind].calls, RELAXED);
}

unsigned long fault_injected(enum fault kind)
{
    return atomic_load_explicit(&faults[kind].injected, RELAXED);
}

void fault_spare_this_thread(bool spare)
{
    spared = spare;
}

long fault_live_blocks(void)
{
    return atomic_load_explicit(&live_blocks, RELAXED);
}

/* Takes one from what is left. What is armed is counted down, so that a call that another thread makes while it's
 * being armed takes nothing away. */
static bool take_one(atomic_ulong *left)
{
    unsigned long n = atomic_load_explicit(left, RELAXED);

    while (n > 0) {
        if (atomic_compare_exchange_weak_explicit(left, &n, n - 1, RELAXED, RELAXED))
            return true;
    }
    return false;
}

/* Counts the call; true, with errno set, when it's to fail. */
static bool strike(enum fault kind)
{
    if (spared)
        return false;
    atomic_fetch_add_explicit(&faults[kind].calls, 1, RELAXED);
    if (take_one(&faults[kind].skip) || !take_one(&faults[kind].count))
        return false;
    atomic_fetch_add_explicit(&faults[kind].injected, 1, RELAXED);
    errno = atomic_load_explicit(&faults[kind].error, RELAXED);
    return true;
}

/* ---- memory ---- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__real_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);

static void *counted(void *block)
{
    if (block)
        atomic_fetch_add_explicit(&live_blocks, 1, RELAXED);
    return block;
}

void *__wrap_malloc(size_t size)
{
    return strike(FAULT_ALLOCATION) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return strike(FAULT_ALLOCATION) ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (strike(FAULT_ALLOCATION))
        return NULL;
    void *moved = __real_realloc(block, size);
    return block ? moved : counted(moved);
}

void __wrap_free(void *block)
{
    if (block)
        atomic_fetch_sub_explicit(&live_blocks, 1, RELAXED);
    __real_free(block);
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return strike(FAULT_MMAP) ? MAP_FAILED : __real_mmap(address, length, protection, flags, fd, offset);
}

/* ---- sockets ---- */

ssize_t __real_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_recv(int fd, void *bytes, size_t n, int flags);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int __real_shutdown(int fd, int how);
int __real_socketpair(int domain, int type, int protocol, int ends[2]);

ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_socketpair(int domain, int type, int protocol, int ends[2]);

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);

/* Makes what is true of the socket now an event again, although it is watched edge-triggered. */
static void bring_event(int fd)
{
    int error = errno;

    if (fd >= 0 && fd < WATCHED_FDS && watched[fd].known)
        __real_epoll_ctl(watched[fd].epoll, EPOLL_CTL_MOD, fd, &watched[fd].event);
    errno = error;
}

static bool strike_socket(enum fault kind, int fd)
{
    if (!strike(kind))
        return false;
    if (errno == EAGAIN)
        bring_event(fd);
    return true;
}

static void pass_trap(void)
{
    if (spared || !atomic_load_explicit(&trap.set, RELAXED) ||
        !atomic_exchange_explicit(&trap.set, false, RELAXED))
        return;
    pthread_mutex_lock(&trap.lock);
    atomic_store_explicit(&trap.closed, true, RELAXED);
    while (atomic_load_explicit(&trap.closed, RELAXED))
        pthread_cond_wait(&trap.opened, &trap.lock);
    pthread_mutex_unlock(&trap.lock);
}

ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
    size_t limit = spared ? 0 : atomic_load_explicit(&send_limit, RELAXED);

    pass_trap();
    if (strike_socket(FAULT_SEND, fd))
        return -1;
    if (limit == 0 || n <= limit)
        return __real_send(fd, bytes, n, flags);
    ssize_t sent = __real_send(fd, bytes, limit, flags);
    bring_event(fd);
    return sent;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t limit = spared ? 0 : atomic_load_explicit(&send_limit, RELAXED);

    if (message->msg_control)
        return strike(FAULT_PASS) ? -1 : __real_sendmsg(fd, message, flags);
    pass_trap();
    if (strike_socket(FAULT_SEND, fd))
        return -1;
    if (limit == 0)
        return __real_sendmsg(fd, message, flags);
    const struct iovec *first = message->msg_iov;
    ssize_t sent = __real_send(fd, first->iov_base, first->iov_len < limit ? first->iov_len : limit, flags);
    bring_event(fd);
    return sent;
}

ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags)
{
    return strike_socket(FAULT_RECV, fd) ? -1 : __real_recv(fd, bytes, n, flags);
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    return strike_socket(FAULT_ACCEPT, fd) ? -1 : __real_accept4(fd, address, length, flags);
}

int __wrap_shutdown(int fd, int how)
{
    return strike(FAULT_SHUTDOWN) ? -1 : __real_shutdown(fd, how);
}

int __wrap_socketpair(int domain, int type, int protocol, int ends[2])
{
    return strike(FAULT_SOCKETPAIR) ? -1 : __real_socketpair(domain, type, protocol, ends);
}

/* ---- epoll, eventfd, threads, and what has no wrapper in libc ---- */

int __real_epoll_create1(int flags);
int __real_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __real_eventfd(unsigned value, int flags);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
long __real_syscall(long number, ...);

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_eventfd(unsigned value, int flags);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
long __wrap_syscall(long number, ...);

int __wrap_epoll_create1(int flags)
{
    return strike(FAULT_EPOLL_CREATE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (strike(FAULT_EPOLL_CTL))
        return -1;
    if (fd >= 0 && fd < WATCHED_FDS) {
        watched[fd].known = event != NULL;
        watched[fd].epoll = epoll;
        if (event)
            watched[fd].event = *event;
    }
    return __real_epoll_ctl(epoll, operation, fd, event);
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    return strike(FAULT_EPOLL_WAIT) ? -1 : __real_epoll_wait(epoll, events, max, timeout);
}

int __wrap_eventfd(unsigned value, int flags)
{
    return strike(FAULT_EVENTFD) ? -1 : __real_eventfd(value, flags);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    return strike(FAULT_THREAD) ? errno : __real_pthread_create(thread, attributes, start, argument);
}

long __wrap_syscall(long number, ...)
{
    long arguments[6];
    va_list list;

    va_start(list, number);
    for (unsigned i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_close_range && strike(FAULT_CLOSE_RANGE))
        return -1;
    if (number == SYS_io_uring_setup && strike(FAULT_URING_SETUP))
        return -1;
    if (number == SYS_io_uring_enter) {
        pass_trap();
        if (strike(FAULT_URING_ENTER))
            return -1;
    }
    return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                          arguments[5]);
}
