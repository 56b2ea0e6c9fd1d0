/* Both backends through the same cases, over socket pairs: what a send gives back, which events come and that each
 * comes once; what the kernel refuses. */
#include "io.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int (*open_backend)(struct fc_io **io);
static struct fc_io *io;
static int ours[2]; /* the end that is watched, and the end of the client */

static void open_pair(int ends[2])
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

static void open_all(void)
{
    CHECK_EQ(open_backend(&io), 0);
    open_pair(ours);
}

static void close_all(void)
{
    fc_io_close(io);
    close(ours[0]);
    close(ours[1]);
}

/* What has happened to the token, all events of one wait together. */
static uint32_t events_of(uint64_t token, int timeout_ms)
{
    struct fc_io_event events[8];
    int n = fc_io_wait(io, events, 8, timeout_ms);
    uint32_t what = 0;

    CHECK(n >= 0 && n <= 8);
    for (int i = 0; i < n; i++) {
        if (events[i].token == token)
            what |= events[i].what;
    }
    return what;
}

static ssize_t send_bytes(int fd, const void *bytes, size_t n)
{
    struct iovec vector = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
    struct fc_send one = {.fd = fd, .vectors = 1, .vector = &vector};

    fc_io_send(io, &one, 1);
    return one.result;
}

static size_t fill(int fd)
{
    static const char bytes[4096];
    size_t sum = 0;
    ssize_t n;

    while ((n = send_bytes(fd, bytes, sizeof bytes)) > 0)
        sum += (size_t)n;
    CHECK_EQ(n, -EAGAIN);
    return sum;
}

static void empty(int fd, size_t n)
{
    char bytes[4096];

    while (n > 0) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        CHECK(got > 0 && (size_t)got <= n);
        n -= (size_t)got;
    }
}

static void a_watched_socket_is_writable_once_and_readable_when_bytes_come(void)
{
    open_all();
    CHECK_EQ(fc_io_watch(io, ours[0], 42), 0);
    CHECK_EQ(events_of(42, 0), FC_IO_WRITABLE);
    CHECK_EQ(events_of(42, 0), 0);
    CHECK_EQ(send(ours[1], "x", 1, 0), 1);
    CHECK(events_of(42, 1000) & FC_IO_READABLE);
    CHECK_EQ(events_of(42, 0), 0); /* nobody has read, and nothing has changed */
    CHECK_EQ(send(ours[1], "y", 1, 0), 1);
    CHECK(events_of(42, 1000) & FC_IO_READABLE);
    close_all();
}

static void what_was_there_before_watching_is_an_event_too(void)
{
    open_all();
    CHECK_EQ(send(ours[1], "x", 1, 0), 1);
    CHECK_EQ(fc_io_watch(io, ours[0], UINT64_MAX), 0);
    CHECK(events_of(UINT64_MAX, 1000) & FC_IO_READABLE);
    close_all();
}

static void a_shut_down_and_a_closed_peer_are_hangups(void)
{
    open_all();
    CHECK_EQ(fc_io_watch(io, ours[0], 1), 0);
    CHECK(!(events_of(1, 0) & FC_IO_HANGUP));
    CHECK_EQ(shutdown(ours[1], SHUT_WR), 0);
    uint32_t what = events_of(1, 1000);
    CHECK(what & FC_IO_HANGUP && what & FC_IO_READABLE);
    close(ours[1]);
    CHECK(events_of(1, 1000) & FC_IO_HANGUP);
    ours[1] = dup(ours[0]);
    close_all();
}

static void a_closed_socket_has_no_events(void)
{
    open_all();
    CHECK_EQ(fc_io_watch(io, ours[0], 1), 0);
    CHECK_EQ(send(ours[1], "x", 1, 0), 1);
    close(ours[0]);
    CHECK_EQ(events_of(1, 0), 0);
    ours[0] = dup(ours[1]);
    close_all();
}

static void no_more_events_are_given_than_there_is_room_for(void)
{
    enum { PAIRS = 20 };
    int pairs[PAIRS][2];
    struct fc_io_event events[8];
    bool seen[PAIRS] = {false};

    open_all();
    for (unsigned i = 0; i < PAIRS; i++) {
        open_pair(pairs[i]);
        CHECK_EQ(fc_io_watch(io, pairs[i][0], i), 0);
    }
    for (unsigned found = 0; found < PAIRS;) {
        int n = fc_io_wait(io, events, 8, 1000);
        CHECK(n > 0 && n <= 8);
        for (int i = 0; i < n; i++) {
            CHECK(!seen[events[i].token]);
            seen[events[i].token] = true;
            found++;
        }
    }
    CHECK_EQ(fc_io_wait(io, events, 8, 0), 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    close_all();
}

static void a_send_tells_what_the_kernel_took(void)
{
    static char large[4 * 1024 * 1024];
    char got[5];

    open_all();
    CHECK_EQ(send_bytes(ours[0], "hello", 5), 5);
    CHECK_EQ(recv(ours[1], got, 5, 0), 5);
    CHECK_BYTES(got, 5, "hello", 5);
    ssize_t n = send_bytes(ours[0], large, sizeof large);
    CHECK(n > 0 && (size_t)n < sizeof large);
    CHECK_EQ(send_bytes(ours[0], large, sizeof large), -EAGAIN);
    empty(ours[1], (size_t)n);
    close_all();
}

static void a_full_socket_is_writable_again_when_it_empties(void)
{
    open_all();
    CHECK_EQ(fc_io_watch(io, ours[0], 1), 0);
    CHECK_EQ(events_of(1, 0), FC_IO_WRITABLE);
    size_t n = fill(ours[0]);
    CHECK_EQ(events_of(1, 0), 0);
    empty(ours[1], n);
    CHECK(events_of(1, 1000) & FC_IO_WRITABLE);
    CHECK_EQ(send_bytes(ours[0], "x", 1), 1);
    close_all();
}

static void vectors_are_written_in_their_order(void)
{
    struct iovec vectors[3] = {{"one ", 4}, {"", 0}, {"two", 3}};
    struct fc_send sends[2] = {
        {.fd = 0, .vectors = 3, .vector = vectors},
        {.fd = 0, .vectors = 3, .vector = vectors},
    };
    char got[14];

    open_all();
    sends[0].fd = sends[1].fd = ours[0];
    fc_io_send(io, sends, 2);
    CHECK_EQ(sends[0].result, 7);
    CHECK_EQ(sends[1].result, 7);
    CHECK_EQ(recv(ours[1], got, sizeof got, 0), 14);
    CHECK_BYTES(got, 14, "one twoone two", 14);
    close_all();
}

/* More than a ring holds; some sockets are full, some have lost their peer, one was never there. */
static void each_send_of_a_large_batch_has_its_own_result(void)
{
    enum { PAIRS = 1100 };
    static int pairs[PAIRS][2];
    static struct fc_send sends[PAIRS];
    struct iovec vector = {"frame", 5};
    char got[16];

    open_all();
    for (unsigned i = 0; i < PAIRS; i++) {
        open_pair(pairs[i]);
        if (i % 10 == 3)
            fill(pairs[i][0]);
        if (i % 10 == 5)
            close(pairs[i][1]);
        sends[i] = (struct fc_send){.fd = i == 600 ? -1 : pairs[i][0], .vectors = 1, .vector = &vector};
    }
    for (unsigned n = 2; n <= PAIRS; n = n < 600 ? 4 * n : n + 300) {
        for (unsigned i = 0; i < n; i++)
            sends[i].result = -EIO;
        fc_io_send(io, sends, n);
        for (unsigned i = 0; i < n; i++) {
            ssize_t expected = i == 600 ? -EBADF : i % 10 == 3 ? -EAGAIN : i % 10 == 5 ? -EPIPE : 5;
            CHECK_EQ(sends[i].result, expected);
            if (expected == 5) {
                CHECK_EQ(recv(pairs[i][1], got, sizeof got, 0), 5);
                CHECK_BYTES(got, 5, "frame", 5);
            }
        }
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        close(pairs[i][0]);
        if (i % 10 != 5)
            close(pairs[i][1]);
    }
    close_all();
}

static void a_short_send_amid_a_batch_is_seen_as_short(void)
{
    static char large[4 * 1024 * 1024];
    struct iovec vector = {large, sizeof large};
    int other[2];

    open_all();
    open_pair(other);
    CHECK_EQ(fc_io_watch(io, ours[0], 1), 0);
    CHECK_EQ(events_of(1, 0), FC_IO_WRITABLE);
    struct fc_send sends[] = {
        {.fd = ours[0], .vectors = 1, .vector = &vector},
        {.fd = other[0], .vectors = 1, .vector = &vector},
    };
    fc_io_send(io, sends, 2);
    for (unsigned i = 0; i < 2; i++)
        CHECK(sends[i].result > 0 && (size_t)sends[i].result < sizeof large);
    CHECK_EQ(events_of(1, 0), 0);
    empty(ours[1], (size_t)sends[0].result);
    CHECK(events_of(1, 1000) & FC_IO_WRITABLE);
    close(other[0]);
    close(other[1]);
    close_all();
}

static void errors_of_a_send_are_its_result_but_a_signal_is_none(void)
{
    static const int errors[] = {EAGAIN, ENOBUFS, ENOMEM, ECONNRESET, EPIPE};

    open_all();
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        fault_clear();
        fault_arm(FAULT_SEND, 0, 1, errors[i]);
        CHECK_EQ(send_bytes(ours[0], "x", 1), -errors[i]);
        CHECK_EQ(fault_calls(FAULT_SEND), 1);
    }
    fault_clear();
    fault_arm(FAULT_SEND, 0, 3, EINTR);
    CHECK_EQ(send_bytes(ours[0], "x", 1), 1);
    CHECK_EQ(fault_calls(FAULT_SEND), 4);
    close_all();
}

static void a_wait_ends_with_a_signal_and_without_events(void)
{
    open_all();
    CHECK_EQ(fc_io_watch(io, ours[0], 1), 0);
    fault_arm(FAULT_EPOLL_WAIT, 0, 1, EINTR);
    CHECK_EQ(events_of(1, -1), 0);
    CHECK_EQ(events_of(1, -1), FC_IO_WRITABLE);
    CHECK_EQ(fc_io_watch(io, ours[0], 1), -EEXIST);
    CHECK_EQ(fc_io_watch(io, -1, 1), -EBADF);
    close_all();
}

static bool open_and_close(void)
{
    int error = open_backend(&io);

    CHECK(error == 0 || error == -ENOMEM);
    if (!error)
        fc_io_close(io);
    return !error;
}

static void a_backend_that_cannot_be_opened_leaves_nothing(void)
{
    static const enum fault kinds[] = {FAULT_EPOLL_CREATE, FAULT_URING_SETUP, FAULT_MMAP, FAULT_SOCKETPAIR};
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the lowest free number */

    close(before);
    CHECK(check_each_allocation(open_and_close) >= 1);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        unsigned long calls;
        fault_clear();
        CHECK_EQ(open_backend(&io), 0);
        fc_io_close(io);
        calls = fault_calls(kinds[i]);
        for (unsigned long n = 0; n < calls; n++) {
            fault_clear();
            fault_arm(kinds[i], n, 1, EPERM);
            CHECK_EQ(open_backend(&io), -EPERM);
        }
    }
    int after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(after, before);
    close(after);
}

static void run_all(void)
{
    RUN(a_watched_socket_is_writable_once_and_readable_when_bytes_come);
    RUN(what_was_there_before_watching_is_an_event_too);
    RUN(a_shut_down_and_a_closed_peer_are_hangups);
    RUN(a_closed_socket_has_no_events);
    RUN(no_more_events_are_given_than_there_is_room_for);
    RUN(a_send_tells_what_the_kernel_took);
    RUN(a_full_socket_is_writable_again_when_it_empties);
    RUN(vectors_are_written_in_their_order);
    RUN(each_send_of_a_large_batch_has_its_own_result);
    RUN(a_short_send_amid_a_batch_is_seen_as_short);
    RUN(errors_of_a_send_are_its_result_but_a_signal_is_none);
    RUN(a_wait_ends_with_a_signal_and_without_events);
    RUN(a_backend_that_cannot_be_opened_leaves_nothing);
}

/* ---- io_uring only ---- */

/* What the ring doesn't take goes the other way; the ring stays usable. */
static void a_ring_that_takes_too_little_loses_nothing(void)
{
    struct iovec vector = {"frame", 5};
    struct fc_send sends[40];
    char got[256];

    open_all();
    for (unsigned i = 0; i < 40; i++)
        sends[i] = (struct fc_send){.fd = ours[0], .vectors = 1, .vector = &vector};
    for (unsigned round = 0; round < 3; round++) {
        fault_clear();
        fault_arm(FAULT_URING_ENTER, 0, round == 1 ? 1 : 0, EBUSY);
        fc_io_send(io, sends, 40);
        CHECK_EQ(fault_calls(FAULT_SEND), round == 1 ? 40 : 0);
        for (unsigned i = 0; i < 40; i++)
            CHECK_EQ(sends[i].result, 5);
        CHECK_EQ(recv(ours[1], got, sizeof got, 0), 200);
    }
    fault_arm(FAULT_URING_ENTER, 0, 2, EINTR);
    fc_io_send(io, sends, 40);
    CHECK_EQ(recv(ours[1], got, sizeof got, 0), 200);
    close_all();
}

static void a_batch_costs_one_system_call(void)
{
    struct iovec vector = {"frame", 5};
    struct fc_send sends[100];

    open_all();
    for (unsigned i = 0; i < 100; i++)
        sends[i] = (struct fc_send){.fd = ours[0], .vectors = 1, .vector = &vector};
    fault_clear();
    fc_io_send(io, sends, 100);
    CHECK_EQ(fault_calls(FAULT_URING_ENTER), 1);
    CHECK_EQ(fault_calls(FAULT_SEND), 0);
    close_all();
}

int main(void)
{
    open_backend = fc_io_open_epoll;
    run_all();
    open_backend = fc_io_open_uring;
    int error = open_backend(&io);
    if (error) {
        printf("io_uring isn't to be had here: %s\n", strerror(-error));
        return 0;
    }
    fc_io_close(io);
    run_all();
    RUN(a_ring_that_takes_too_little_loses_nothing);
    RUN(a_batch_costs_one_system_call);
    return 0;
}
