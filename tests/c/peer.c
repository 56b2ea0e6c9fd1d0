/* A client by hand. Each peer is used by one thread at a time; waiting is bounded by CHECK_PATIENCE_S. */
#include "peer.h"

#include "check.h"
#include "frame.h"
#include "frames.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void peer_connect(struct peer *peer, struct world *world, unsigned shard, int receive_buffer)
{
    const struct sockaddr_in *address = &world->addresses[shard];

    CHECK(world->peers < WORLD_PEERS);
    *peer = (struct peer){.number = world->peers++};
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(peer->fd >= 0);
    CHECK_EQ(setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
    if (receive_buffer > 0)
        CHECK_EQ(setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer), 0);
    CHECK_EQ(connect(peer->fd, (const struct sockaddr *)address, sizeof *address), 0);
}

void peer_ask(struct peer *peer, const char *path)
{
    char head[512];
    int n = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nPeer: %u\r\n\r\n", path, peer->number);

    peer_send_bytes(peer, head, (size_t)n);
}

void peer_join(struct peer *peer, struct world *world, unsigned shard, const char *channel)
{
    peer_connect(peer, world, shard, 0);
    peer_ask(peer, channel);
    peer_enter(peer, world);
}

bool peer_has_news(struct peer *peer)
{
    struct pollfd news = {.fd = peer->fd, .events = POLLIN};

    return peer->length > peer->used || poll(&news, 1, 0) == 1;
}

void peer_enter(struct peer *peer, struct world *world)
{
    for (double until = check_now() + CHECK_PATIENCE_S; !peer_has_news(peer);) {
        world_answer(world);
        check_wait(until, __FILE__, __LINE__, "the request is answered");
    }
    peer_expect_bytes(peer, WORLD_ACCEPTED);
}

void peer_send_bytes(struct peer *peer, const void *bytes, size_t n)
{
    const uint8_t *in = bytes;

    while (n > 0) {
        ssize_t sent = send(peer->fd, in, n, MSG_NOSIGNAL);
        CHECK(sent > 0);
        in += sent;
        n -= (size_t)sent;
    }
}

void peer_send(struct peer *peer, bool fin, uint8_t opcode, const void *payload, size_t n)
{
    struct frames frames = {0};

    frames_frame(&frames, fin, opcode, payload, n);
    peer_send_bytes(peer, frames.bytes, frames.length);
    frames_free(&frames);
}

void peer_text(struct peer *peer, const char *text)
{
    peer_send(peer, true, FC_OP_TEXT, text, strlen(text));
}

static void make_room(struct peer *peer)
{
    enum { ROOM = 65536 };

    if (peer->used > 0) {
        memmove(peer->bytes, peer->bytes + peer->used, peer->length - peer->used);
        peer->length -= peer->used;
        peer->used = 0;
    }
    if (peer->capacity - peer->length < ROOM) {
        peer->capacity = 2 * peer->capacity + ROOM;
        peer->bytes = realloc(peer->bytes, peer->capacity);
        CHECK(peer->bytes);
    }
}

/* Waits for bytes. Returns how many, 0 for the end, or -errno. */
static ssize_t receive_some(struct peer *peer)
{
    struct pollfd news = {.fd = peer->fd, .events = POLLIN};

    make_room(peer);
    CHECK_EQ(poll(&news, 1, CHECK_PATIENCE_S * 1000), 1);
    ssize_t n = recv(peer->fd, peer->bytes + peer->length, peer->capacity - peer->length, 0);
    if (n < 0)
        return -errno;
    peer->length += (size_t)n;
    return n;
}

/* The next bytes, or NULL if the connection ends before. */
static const uint8_t *look(struct peer *peer, size_t n)
{
    while (peer->length - peer->used < n) {
        if (receive_some(peer) <= 0)
            return NULL;
    }
    return peer->bytes + peer->used;
}

static const uint8_t *need(struct peer *peer, size_t n)
{
    const uint8_t *in = look(peer, n);

    CHECK(in);
    return in;
}

struct frame peer_receive(struct peer *peer)
{
    struct frame frame;

    CHECK(peer_try(peer, &frame));
    return frame;
}

bool peer_try(struct peer *peer, struct frame *frame)
{
    const uint8_t *in = look(peer, 2);
    size_t size = !in ? 0 : in[1] <= 125 ? 2 : in[1] == 126 ? 4 : 10;
    uint64_t length = in ? in[1] : 0;
    uint8_t expected[FC_FRAME_HEADER_MAX];

    if (size > 2 && (in = look(peer, size))) {
        length = 0;
        for (size_t i = 2; i < size; i++)
            length = length << 8 | in[i];
    }
    if (!in || !(in = look(peer, size + (size_t)length)))
        return false;
    *frame = (struct frame){.opcode = in[0] & 0x0F, .length = (size_t)length, .payload = in + size};
    CHECK_EQ(fc_frame_write_header(expected, frame->opcode, length), size);
    CHECK_BYTES(in, size, expected, size);
    peer->used += size + (size_t)length;
    return true;
}

void peer_expect(struct peer *peer, uint8_t opcode, const void *payload, size_t n)
{
    struct frame frame = peer_receive(peer);

    CHECK_EQ(frame.opcode, opcode);
    CHECK_BYTES(frame.payload, frame.length, payload, n);
}

void peer_expect_text(struct peer *peer, const char *text)
{
    peer_expect(peer, FC_OP_TEXT, text, strlen(text));
}

void peer_expect_close(struct peer *peer, uint16_t code)
{
    uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};

    peer_expect(peer, FC_OP_CLOSE, payload, code == FC_CLOSE_NO_STATUS ? 0 : 2);
}

void peer_expect_bytes(struct peer *peer, const char *bytes)
{
    size_t n = strlen(bytes);

    CHECK_BYTES(need(peer, n), n, bytes, n);
    peer->used += n;
}

void peer_expect_end(struct peer *peer)
{
    CHECK_EQ(peer->length - peer->used, 0);
    CHECK_EQ(receive_some(peer), 0);
}

void peer_await_end(struct peer *peer)
{
    ssize_t n;

    do {
        peer->used = peer->length;
        n = receive_some(peer);
    } while (n > 0);
    CHECK(n == 0 || n == -ECONNRESET);
}

void peer_leave(struct peer *peer)
{
    peer_send(peer, true, FC_OP_CLOSE, "\x03\xE8", 2);
    peer_expect_close(peer, 1000);
    peer_expect_end(peer);
    peer_close(peer);
}

void peer_close(struct peer *peer)
{
    close(peer->fd);
    free(peer->bytes);
    *peer = (struct peer){.fd = -1};
}

void peer_reset(struct peer *peer)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    CHECK_EQ(setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    peer_close(peer);
}
