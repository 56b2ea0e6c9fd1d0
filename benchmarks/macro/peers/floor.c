/*
 * floor.c - the least that a chat broadcast can cost: what servers are compared with, not a server to use.
 *
 * One thread, one epoll.  For each message a client sends, one frame is built and sent to every client in a
 * plain loop; there are no queues, no limits and no checks of what clients say.  A client that does not read
 * holds up all others.  With
 * --uring the same sends are handed to the kernel some hundreds at a time.
 *
 * Each client is its descriptor; only one in the middle of a frame has a buffer, which is freed with the
 * frame.
 */
#include "digest.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_CLIENTS 1048576
#define BATCH 512
#define RING 512
#define BUFFER (256 << 10)
#define BACKLOG 4096

struct client {
    uint8_t *partial;
    uint32_t size;
    uint32_t room;
    uint32_t place; /* in `members`, plus 1; 0: the handshake is not over */
};

static struct client *clients; /* by descriptor */
static int *members;           /* descriptors of open clients, without gaps */
static uint32_t member_count;
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* ---- one send() for each client ---- */

static void send_whole(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        } else if (n < 0) {
            return; /* broken: its end is read from it later */
        } else {
            bytes += n;
            size -= (size_t)n;
        }
        if (stopping)
            return;
    }
}

static void broadcast_plain(const uint8_t *frame, size_t size)
{
    for (uint32_t i = 0; i < member_count; i++)
        send_whole(members[i], frame, size);
}

/* ---- the same through io_uring ---- */

static struct {
    int fd;
    _Atomic uint32_t *sq_tail;
    _Atomic uint32_t *cq_head;
    _Atomic uint32_t *cq_tail;
    uint32_t sq_mask;
    uint32_t cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

static void ring_open(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    ring.fd = (int)syscall(SYS_io_uring_setup, RING, &params);
    if (ring.fd < 0)
        die("io_uring_setup");
    size_t rings = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size_t submissions = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    char *base = mmap(NULL, rings > submissions ? rings : submissions, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
    ring.sqes = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
    if (base == MAP_FAILED || ring.sqes == MAP_FAILED || (params.features & IORING_FEAT_SINGLE_MMAP) == 0)
        die("io_uring mmap");
    ring.sq_tail = (_Atomic uint32_t *)(void *)(base + params.sq_off.tail);
    ring.cq_head = (_Atomic uint32_t *)(void *)(base + params.cq_off.head);
    ring.cq_tail = (_Atomic uint32_t *)(void *)(base + params.cq_off.tail);
    memcpy(&ring.sq_mask, base + params.sq_off.ring_mask, sizeof ring.sq_mask);
    memcpy(&ring.cq_mask, base + params.cq_off.ring_mask, sizeof ring.cq_mask);
    ring.cqes = (struct io_uring_cqe *)(void *)(base + params.cq_off.cqes);
    uint32_t *array = (uint32_t *)(void *)(base + params.sq_off.array);
    for (uint32_t i = 0; i < params.sq_entries; i++)
        array[i] = i;
}

/* Submits `count` sends of the frame and waits for them all, so that the frame may go afterwards.  A send
 * that fell short is finished by hand. */
static void ring_submit(const int *fds, uint32_t count, const uint8_t *frame, size_t size)
{
    uint32_t tail = atomic_load_explicit(ring.sq_tail, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        ring.sqes[(tail + i) & ring.sq_mask] = (struct io_uring_sqe){
            .opcode = IORING_OP_SEND,
            .fd = fds[i],
            .addr = (uint64_t)(uintptr_t)frame,
            .len = (uint32_t)size,
            .msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT,
            .user_data = (uint64_t)fds[i],
        };
    }
    /* Release: the entries are whole before the kernel sees the tail. */
    atomic_store_explicit(ring.sq_tail, tail + count, memory_order_release);
    uint32_t left = count;
    uint32_t submit = count;
    while (left > 0) {
        int code = (int)syscall(SYS_io_uring_enter, ring.fd, submit, left, IORING_ENTER_GETEVENTS, NULL, 0);
        if (code < 0 && errno != EINTR)
            die("io_uring_enter");
        submit -= code > 0 ? (uint32_t)code : 0;
        uint32_t head = atomic_load_explicit(ring.cq_head, memory_order_relaxed);
        /* Acquire: the completions below the tail are whole. */
        uint32_t end = atomic_load_explicit(ring.cq_tail, memory_order_acquire);
        for (; head != end; head++, left--) {
            const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];
            size_t sent = cqe->res > 0 ? (size_t)cqe->res : 0;
            if (sent < size && (cqe->res >= 0 || cqe->res == -EAGAIN))
                send_whole((int)cqe->user_data, frame + sent, size - sent);
        }
        atomic_store_explicit(ring.cq_head, head, memory_order_release);
    }
}

static void broadcast_uring(const uint8_t *frame, size_t size)
{
    for (uint32_t i = 0; i < member_count; i += RING) {
        uint32_t count = member_count - i < RING ? member_count - i : RING;
        ring_submit(members + i, count, frame, size);
    }
}

static void (*broadcast)(const uint8_t *frame, size_t size) = broadcast_plain;

/* ---- clients ---- */

static void drop_client(int fd)
{
    struct client *client = &clients[fd];
    if (client->place > 0) {
        int last = members[--member_count];
        members[client->place - 1] = last;
        clients[last].place = client->place;
    }
    free(client->partial);
    memset(client, 0, sizeof *client);
    close(fd);
}

/* Returns how many bytes the request takes, 0 when it is not whole, -1 when it is none. */
static ssize_t answer_request(int fd, const uint8_t *bytes, size_t size)
{
    static const char field[] = "Sec-WebSocket-Key:";
    const uint8_t *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end + 4 - bytes);
    const char *key = (const char *)bytes;
    while (key != NULL && strncasecmp(key, field, sizeof field - 1) != 0) {
        key = memmem(key, head - (size_t)(key - (const char *)bytes), "\r\n", 2);
        key = key != NULL && (const uint8_t *)key < end ? key + 2 : NULL;
    }
    if (key == NULL)
        return -1;
    key += sizeof field - 1;
    key += strspn(key, " ");
    char accept[FC_DIGEST_ACCEPT + 1];
    char answer[160];
    fc_digest_accept(accept, key, strcspn(key, " \r"));
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n",
                          accept);
    send_whole(fd, (const uint8_t *)answer, (size_t)length);
    members[member_count++] = fd;
    clients[fd].place = member_count;
    return (ssize_t)head;
}

/* Unmasks the payload in place and turns its head into a server's, which fits in front of it since it has no
 * mask. */
static void relay(uint8_t *frame, size_t head, size_t length)
{
    uint8_t *payload = frame + head;
    uint32_t mask;
    memcpy(&mask, payload - sizeof mask, sizeof mask);
    uint64_t wide = (uint64_t)mask << 32 | mask;
    size_t i = 0;
    for (; i + sizeof wide <= length; i += sizeof wide) {
        uint64_t word;
        memcpy(&word, payload + i, sizeof word);
        word ^= wide;
        memcpy(payload + i, &word, sizeof word);
    }
    for (; i < length; i++)
        payload[i] ^= (uint8_t)(mask >> (8 * (i & 3)));
    uint8_t *out = frame + sizeof mask;
    memmove(out, frame, head - sizeof mask);
    out[1] &= 0x7f;
    broadcast(out, head - sizeof mask + length);
}

/* Returns the size of the whole frame at `bytes` after handling it, 0 when bytes are missing, -1 after a
 * Close. */
static ssize_t take_frame(int fd, uint8_t *bytes, size_t size, size_t *wanted)
{
    size_t length = size > 1 ? bytes[1] & 0x7f : 0;
    size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
    size_t head = 6 + extended;
    *wanted = head;
    if (size < head)
        return 0;
    if (extended > 0) {
        length = 0;
        for (size_t i = 0; i < extended; i++)
            length = length << 8 | bytes[2 + i];
    }
    *wanted = head + length;
    if (size < *wanted)
        return 0;
    if ((bytes[0] & 0x0f) == 8) {
        static const uint8_t echo[] = {0x88, 2, 1000 >> 8, 1000 & 0xff};
        send_whole(fd, echo, sizeof echo);
        return -1;
    }
    if ((bytes[0] & 0x0f) < 8)
        relay(bytes, head, length);
    return (ssize_t)*wanted;
}

/* Keeps the beginning of a frame, which stands in the shared buffer or already in the client's own. */
static void keep(struct client *client, const uint8_t *bytes, size_t size, size_t wanted)
{
    if (client->partial != NULL)
        memmove(client->partial, bytes, size);
    if (wanted > client->room) {
        uint8_t *partial = realloc(client->partial, wanted);
        if (partial == NULL)
            die("realloc");
        if (client->partial == NULL)
            memcpy(partial, bytes, size);
        client->partial = partial;
        client->room = (uint32_t)wanted;
    }
    client->size = (uint32_t)size;
}

static void read_client(int fd, uint8_t *buffer)
{
    struct client *client = &clients[fd];
    size_t before = client->size;
    uint8_t *bytes = buffer;
    size_t room = BUFFER;
    if (before > 0) {
        bytes = client->partial;
        room = client->room;
    }
    ssize_t n = recv(fd, bytes + before, room - before, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop_client(fd);
        return;
    }
    size_t size = before + (size_t)n;
    size_t at = 0;
    size_t wanted = size + BUFFER;
    ssize_t used = 1;
    while (at < size && used > 0) {
        used = client->place == 0 ? answer_request(fd, bytes + at, size - at)
                                  : take_frame(fd, bytes + at, size - at, &wanted);
        at += used > 0 ? (size_t)used : 0;
    }
    if (used < 0) {
        drop_client(fd);
    } else if (at < size) {
        /* Room for more than what is missing, so that reading goes on in large pieces. */
        keep(client, bytes + at, size - at, wanted + 64);
    } else {
        free(client->partial);
        client->partial = NULL;
        client->size = client->room = 0;
    }
}

static void accept_all(int epoll, int listener)
{
    int one = 1;
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
    }
}

static int listen_on(const char *host, unsigned port)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    char text[INET_ADDRSTRLEN];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        die("listen");
    }
    printf("listening %s %u\n", inet_ntop(AF_INET, &address.sin_addr, text, sizeof text),
           ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void serve(int listener)
{
    static uint8_t buffer[BUFFER];
    struct epoll_event events[BATCH];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
    while (!stopping) {
        int n = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < n && !stopping; i++)
            if (events[i].data.fd == listener)
                accept_all(epoll, listener);
            else
                read_client(events[i].data.fd, buffer);
    }
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1";
    unsigned port = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--uring") == 0) {
            ring_open();
            broadcast = broadcast_uring;
        } else if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
            port = (unsigned)atoi(argv[++i]);
        } else if (strcmp(argv[i], "--host") == 0 && i + 1 < argc) {
            host = argv[++i];
        } else {
            fputs("usage: floor [--host ADDRESS] [--port PORT] [--uring]\n", stderr);
            return 2;
        }
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    /* calloc: of a table for the largest descriptor, only the pages in use are memory. */
    clients = calloc(MAX_CLIENTS, sizeof *clients);
    members = calloc(MAX_CLIENTS, sizeof *members);
    if (clients == NULL || members == NULL)
        die("calloc");
    serve(listen_on(host, port));
    return 0;
}
