/* Failures on demand, through the linker's --wrap: what the core calls is counted, and can be made to fail.
 *
 * Nothing fails until a test asks for it, and fault_clear puts everything back. A test's own thread can be left out,
 * so that only the core's threads meet the faults.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum fault {
    FAULT_ALLOCATION, /* malloc, calloc and realloc */
    FAULT_MMAP,
    FAULT_SEND, /* send, and sendmsg of data; the sendmsg that passes an fd is FAULT_PASS */
    FAULT_PASS,
    FAULT_RECV,
    FAULT_ACCEPT,
    FAULT_EPOLL_CREATE,
    FAULT_EPOLL_CTL,
    FAULT_EPOLL_WAIT,
    FAULT_EVENTFD,
    FAULT_SOCKETPAIR,
    FAULT_THREAD,
    FAULT_CLOSE_RANGE,
    FAULT_URING_SETUP,
    FAULT_URING_ENTER,
    FAULT_SHUTDOWN,
    FAULT_KINDS,
};

/* After `skip` calls that work, `count` calls fail with `error`. An injected EAGAIN of a watched socket is followed by
 * an event, as the kernel promises for a true one. */
void fault_arm(enum fault kind, unsigned long skip, unsigned long count, int error);

/* No send takes more than that many bytes, and one that was cut is followed by an event; 0: no limit. */
void fault_limit_sends(size_t bytes);

/* The next thread that sends is held back in its call, until it's let go. The others go on. */
void fault_catch_sender(void);
bool fault_sender_is_caught(void);
void fault_let_go(void);

/* Disarms everything, lets go, and counts from zero again. */
void fault_clear(void);

/* Calls by threads that aren't spared, since the last fault_clear, and how many of them were made to fail. */
unsigned long fault_calls(enum fault kind);
unsigned long fault_injected(enum fault kind);

/* From now on this thread's calls are neither counted nor made to fail. */
void fault_spare_this_thread(bool spare);

/* Blocks that are allocated now, by any thread. */
long fault_live_blocks(void);

#endif
