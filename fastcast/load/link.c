/*
 * link.c - the life of one client connection.
 *
 * Invariants: a connection has a socket exactly when its state is not FC_LINK_NONE; `extra` is NULL unless
 * bytes wait in one direction or the other, or a fragmented message is under way.  The owning thread is the
 * one that runs the event loop of its struct fc_link_io.  end() frees all that a connection holds and is the
 * only place that closes a socket.
 *
 * Sockets are watched edge-triggered and are never re-armed: one epoll_ctl() in the life of a connection.
 */
#include "link.h"

#include "reason.h"
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

/* Far less than a server's queue for one client, so that a client that never reads soon shows there. */
#define DEAF_RECEIVE_BUFFER 4096

struct bytes {
    uint8_t *at;
    size_t size;
    size_t room;
};

struct fc_link_extra {
    struct bytes in;      /* the beginning of an answer or of a frame */
    size_t wanted;        /* size of that frame as far as is known */
    struct bytes message; /* payloads of the fragments so far */
    uint8_t opcode;       /* of the fragmented message; 0: none is under way */
    struct bytes out;
    size_t out_sent;
};

uint64_t fc_link_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t fc_link_mask(struct fc_link_io *io)
{
    /* xorshift64: masks need to differ, not to be secret, since no browser and no proxy is near. */
    io->random ^= io->random << 13;
    io->random ^= io->random >> 7;
    io->random ^= io->random << 17;
    return (uint32_t)(io->random >> 32);
}

/* Adds bytes, making room for `total` of them if that is more than are there.  False: no memory. */
static bool append(struct bytes *bytes, const uint8_t *from, size_t size, size_t total)
{
    size_t needed = bytes->size + size > total ? bytes->size + size : total;
    if (needed > bytes->room) {
        uint8_t *at = realloc(bytes->at, needed);
        if (at == NULL)
            return false;
        bytes->at = at;
        bytes->room = needed;
    }
    if (size > 0) {
        memcpy(bytes->at + bytes->size, from, size);
        bytes->size += size;
    }
    return true;
}

static void drop(struct bytes *bytes)
{
    free(bytes->at);
    memset(bytes, 0, sizeof *bytes);
}

static struct fc_link_extra *need_extra(struct fc_link *link)
{
    if (link->extra == NULL)
        link->extra = calloc(1, sizeof *link->extra);
    return link->extra;
}

static void free_extra(struct fc_link *link)
{
    if (link->extra != NULL) {
        drop(&link->extra->in);
        drop(&link->extra->message);
        drop(&link->extra->out);
        free(link->extra);
        link->extra = NULL;
    }
}

static void shed_extra(struct fc_link *link)
{
    struct fc_link_extra *extra = link->extra;
    if (extra != NULL && extra->in.size == 0 && extra->opcode == 0 && extra->out.size == 0)
        free_extra(link);
}

static void end(struct fc_link_io *io, struct fc_link *link, const char *reason)
{
    enum fc_link_state state = link->state;
    uint16_t code = link->code;
    if (link->fd >= 0)
        close(link->fd);
    free_extra(link);
    link->fd = -1;
    link->state = FC_LINK_NONE;
    link->code = 0;
    if (state < FC_LINK_OPEN) {
        io->refused(io->owner, link, reason);
    } else {
        io->closed(io->owner, link, code != 0 ? code : 1006,
                   state == FC_LINK_CLOSING || state == FC_LINK_CLOSED);
    }
}

static void end_errno(struct fc_link_io *io, struct fc_link *link, int error)
{
    char text[FC_HANDSHAKE_REASON];
    end(io, link, fc_reason(error, text, sizeof text));
}

void fc_link_abort(struct fc_link_io *io, struct fc_link *link, const char *reason)
{
    end(io, link, reason);
}

void fc_link_reset(struct fc_link_io *io, struct fc_link *link, const char *reason)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    end(io, link, reason);
}

bool fc_link_backed_up(const struct fc_link *link)
{
    return link->extra != NULL && link->extra->out.size > 0;
}

/* Sends what it can at once and keeps the rest; 0 or the -errno of a broken connection. */
static int put(struct fc_link *link, const uint8_t *bytes, size_t size)
{
    size_t sent = 0;
    if (!fc_link_backed_up(link)) {
        ssize_t n;
        do {
            n = send(link->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EAGAIN)
            return -errno;
        sent = n > 0 ? (size_t)n : 0;
    }
    if (sent < size && (need_extra(link) == NULL || !append(&link->extra->out, bytes + sent, size - sent, 0)))
        return -ENOMEM;
    return 0;
}

bool fc_link_send(struct fc_link_io *io, struct fc_link *link, const uint8_t *bytes, size_t size)
{
    int code = put(link, bytes, size);
    if (code != 0) {
        end_errno(io, link, -code);
        return false;
    }
    return true;
}

/* Returns false when the connection ended. */
static bool flush(struct fc_link_io *io, struct fc_link *link)
{
    struct fc_link_extra *extra = link->extra;
    while (extra->out_sent < extra->out.size) {
        ssize_t n = send(link->fd, extra->out.at + extra->out_sent, extra->out.size - extra->out_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0 && errno != EINTR) {
            end_errno(io, link, errno);
            return false;
        }
        extra->out_sent += n > 0 ? (size_t)n : 0;
    }
    drop(&extra->out);
    extra->out_sent = 0;
    shed_extra(link);
    if (link->state == FC_LINK_OPEN)
        io->drained(io->owner, link);
    return link->state != FC_LINK_NONE;
}

/* Returns false when the connection ended. */
static bool send_control(struct fc_link_io *io, struct fc_link *link, uint8_t opcode, const uint8_t *payload,
                         size_t size)
{
    uint8_t frame[FC_WIRE_MAX_CONTROL + FC_WIRE_MAX_CLIENT_HEAD];
    return fc_link_send(io, link, frame, fc_wire_write(frame, opcode, fc_link_mask(io), payload, size));
}

static void enter(struct fc_link *link, enum fc_link_state state)
{
    link->state = (uint8_t)state;
    link->since_ns = fc_link_now();
}

void fc_link_close(struct fc_link_io *io, struct fc_link *link, uint16_t code)
{
    uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    enter(link, FC_LINK_CLOSING);
    send_control(io, link, FC_WIRE_CLOSE, payload, sizeof payload);
}

/* Gives up on a server that broke the protocol (section 7.1.7).  Always returns false. */
static bool give_up(struct fc_link_io *io, struct fc_link *link)
{
    uint8_t payload[2] = {1002 >> 8, 1002 & 0xff};
    uint8_t frame[sizeof payload + FC_WIRE_MAX_CLIENT_HEAD];
    put(link, frame, fc_wire_write(frame, FC_WIRE_CLOSE, fc_link_mask(io), payload, sizeof payload));
    link->code = 1002;
    link->state = FC_LINK_OPEN; /* whatever was asked for, this end was not */
    end(io, link, "protocol error");
    return false;
}

static bool got_close(struct fc_link_io *io, struct fc_link *link, const uint8_t *payload, size_t size)
{
    if (size == 1)
        return give_up(io, link);
    /* 1005 stands for a Close without a code and never travels itself (section 7.4.1). */
    link->code = 1005;
    if (size > 0)
        link->code = (uint16_t)((unsigned)payload[0] << 8 | payload[1]);
    if (link->state == FC_LINK_CLOSING) {
        enter(link, FC_LINK_CLOSED);
        return true;
    }
    /* An echo that cannot be sent changes nothing: the connection is over either way. */
    uint8_t frame[FC_WIRE_MAX_CONTROL + FC_WIRE_MAX_CLIENT_HEAD];
    put(link, frame, fc_wire_write(frame, FC_WIRE_CLOSE, fc_link_mask(io), payload, size < 2 ? size : 2));
    end(io, link, "closed by the server");
    return false;
}

static bool got_data(struct fc_link_io *io, struct fc_link *link, const struct fc_wire_frame *frame,
                     const uint8_t *payload, uint64_t now)
{
    size_t size = (size_t)frame->length;
    struct fc_link_extra *extra = link->extra;
    bool under_way = extra != NULL && extra->opcode != 0;
    if (under_way != (frame->opcode == FC_WIRE_CONTINUATION))
        return give_up(io, link);
    if (frame->fin && !under_way) {
        io->message(io->owner, link, frame->opcode, payload, size, now);
        return link->state != FC_LINK_NONE;
    }
    extra = need_extra(link);
    if (extra == NULL || extra->message.size + size > io->frame_limit ||
        !append(&extra->message, payload, size, 0)) {
        return give_up(io, link);
    }
    if (!under_way)
        extra->opcode = frame->opcode;
    if (frame->fin) {
        uint8_t opcode = extra->opcode;
        struct bytes message = extra->message;
        memset(&extra->message, 0, sizeof extra->message);
        extra->opcode = 0;
        io->message(io->owner, link, opcode, message.at, message.size, now);
        drop(&message);
    }
    return link->state != FC_LINK_NONE;
}

/* Returns false when the connection ended. */
static bool got_frame(struct fc_link_io *io, struct fc_link *link, const struct fc_wire_frame *frame,
                      const uint8_t *payload, uint64_t now)
{
    switch (frame->opcode) {
    case FC_WIRE_PING:
        return link->state != FC_LINK_OPEN ||
               send_control(io, link, FC_WIRE_PONG, payload, (size_t)frame->length);
    case FC_WIRE_PONG: return true;
    case FC_WIRE_CLOSE: return got_close(io, link, payload, (size_t)frame->length);
    default: return got_data(io, link, frame, payload, now);
    }
}

/* Handles the whole frames at the front of `bytes`.  Returns how much they take, or -1 when the connection
 * ended; *wanted is how long the frame that follows them is, as far as is known. */
static ssize_t take_whole_frames(struct fc_link_io *io, struct fc_link *link, const uint8_t *bytes,
                                 size_t size, uint64_t now, size_t *wanted)
{
    size_t at = 0;
    for (;;) {
        struct fc_wire_frame frame;
        if (link->state == FC_LINK_CLOSED || link->deaf)
            return (ssize_t)size; /* nothing after a Close counts (section 5.5.1) */
        int code = fc_wire_parse(bytes + at, size - at, &frame);
        if (code == 0) {
            *wanted = frame.head;
            return (ssize_t)at;
        }
        if (code < 0 || frame.length > io->frame_limit) {
            give_up(io, link);
            return -1;
        }
        if (size - at - frame.head < frame.length) {
            *wanted = frame.head + (size_t)frame.length;
            return (ssize_t)at;
        }
        if (!got_frame(io, link, &frame, bytes + at + frame.head, now))
            return -1;
        at += frame.head + (size_t)frame.length;
    }
}

/* Returns false when the connection ended. */
static bool take_frames(struct fc_link_io *io, struct fc_link *link, const uint8_t *bytes, size_t size,
                        uint64_t now)
{
    size_t wanted;
    /* A frame that began in an earlier read is completed first; each turn knows better how long it is. */
    while (link->extra != NULL && link->extra->in.size > 0) {
        struct bytes *in = &link->extra->in;
        size_t missing = link->extra->wanted - in->size;
        size_t part = missing < size ? missing : size;
        if (!append(in, bytes, part, link->extra->wanted))
            return give_up(io, link);
        bytes += part;
        size -= part;
        if (part < missing)
            return true;
        /* The frame leaves the connection's hands before its handler runs, which may end the connection. */
        struct bytes frame = *in;
        memset(in, 0, sizeof *in);
        ssize_t used = take_whole_frames(io, link, frame.at, frame.size, now, &wanted);
        if (used == 0) {
            link->extra->in = frame;
            link->extra->wanted = wanted;
        } else {
            drop(&frame);
        }
        if (used < 0)
            return false;
    }
    ssize_t used = take_whole_frames(io, link, bytes, size, now, &wanted);
    if (used < 0)
        return false;
    if ((size_t)used < size) {
        if (need_extra(link) == NULL || !append(&link->extra->in, bytes + used, size - (size_t)used, wanted))
            return give_up(io, link);
        link->extra->wanted = wanted;
    }
    return true;
}

/* Returns false when the connection ended. */
static bool take_answer(struct fc_link_io *io, struct fc_link *link, const uint8_t *bytes, size_t size,
                        uint64_t now)
{
    char reason[FC_HANDSHAKE_REASON];
    struct bytes whole = {0};
    if (link->extra != NULL && link->extra->in.size > 0) {
        if (!append(&link->extra->in, bytes, size, 0)) {
            end_errno(io, link, ENOMEM);
            return false;
        }
        bytes = link->extra->in.at;
        size = link->extra->in.size;
    }
    int used = fc_handshake_check(io->handshake, (const char *)bytes, size, reason);
    if (used < 0) {
        end(io, link, reason);
        return false;
    }
    if (used == 0) {
        bool kept = link->extra != NULL && link->extra->in.size > 0;
        if (!kept && (need_extra(link) == NULL || !append(&link->extra->in, bytes, size, 0))) {
            end_errno(io, link, ENOMEM);
            return false;
        }
        return true;
    }
    if (link->extra != NULL) {
        whole = link->extra->in;
        memset(&link->extra->in, 0, sizeof link->extra->in);
    }
    if (link->deaf) {
        uint32_t index = (uint32_t)(link - io->links);
        epoll_ctl(io->epoll, EPOLL_CTL_MOD, link->fd,
                  &(struct epoll_event){.events = EPOLLRDHUP, .data.u32 = index});
    }
    link->state = FC_LINK_OPEN;
    io->opened(io->owner, link);
    bool alive = take_frames(io, link, bytes + used, size - (size_t)used, now);
    drop(&whole);
    return alive;
}

static ssize_t receive(struct fc_link_io *io, struct fc_link *link, size_t *asked)
{
    struct fc_link_extra *extra = link->extra;
    *asked = io->capacity;
    /* The rest of a large frame goes where its beginning is, without a copy. */
    if (extra != NULL && extra->in.size > 0 && extra->in.room > extra->in.size &&
        link->state != FC_LINK_REQUESTED) {
        size_t room = extra->in.room - extra->in.size;
        size_t missing = extra->wanted - extra->in.size;
        struct iovec parts[2] = {
            {extra->in.at + extra->in.size, missing < room ? missing : room},
            {io->buffer, io->capacity},
        };
        *asked += parts[0].iov_len;
        ssize_t n = readv(link->fd, parts, 2);
        if (n <= 0)
            return n;
        size_t first = (size_t)n < parts[0].iov_len ? (size_t)n : parts[0].iov_len;
        extra->in.size += first;
        return n;
    }
    return recv(link->fd, io->buffer, io->capacity, MSG_DONTWAIT);
}

static void read_all(struct fc_link_io *io, struct fc_link *link, bool ending)
{
    for (;;) {
        size_t before = link->extra != NULL ? link->extra->in.size : 0;
        size_t asked;
        ssize_t n = receive(io, link, &asked);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            end_errno(io, link, errno);
            return;
        }
        if (n == 0) {
            end(io, link, "closed during the handshake");
            return;
        }
        size_t direct = (link->extra != NULL ? link->extra->in.size : 0) - before;
        uint64_t now = fc_link_now();
        bool alive = link->state == FC_LINK_REQUESTED
                         ? take_answer(io, link, io->buffer, (size_t)n, now)
                         : take_frames(io, link, io->buffer, (size_t)n - direct, now);
        if (!alive)
            return;
        /* A short read has emptied the socket, so what comes later is a new edge; only an end that was
         * reported together with the data is not. */
        if ((size_t)n < asked && !ending)
            break;
    }
    shed_extra(link);
}

/* Sends the upgrade request on a socket that is, or soon will be, established. */
static void request(struct fc_link_io *io, struct fc_link *link)
{
    const struct fc_handshake *handshake = io->handshake;
    ssize_t n = send(link->fd, handshake->request, handshake->request_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) {
        end_errno(io, link, errno);
        return;
    }
    if (n < 0)
        return; /* still connecting: the event loop calls again */
    link->state = FC_LINK_REQUESTED;
    if ((size_t)n < handshake->request_size)
        fc_link_send(io, link, (const uint8_t *)handshake->request + n, handshake->request_size - (size_t)n);
}

static int start(struct fc_link_io *io, struct fc_link *link, uint32_t number)
{
    const struct fc_target *target = io->target;
    struct sockaddr_storage source;
    int one = 1;
    link->fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0)
        return -errno;
    if (link->deaf) {
        int size = DEAF_RECEIVE_BUFFER;
        setsockopt(link->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    socklen_t source_size = fc_sources_pick(&target->sources, number, &source);
    if (source_size > 0) {
        /* Without the option the port would be chosen before the destination is known, and be taken for all
         * of them. */
        setsockopt(link->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(link->fd, (const struct sockaddr *)&source, source_size) != 0)
            return -errno;
    }
    if (connect(link->fd, (const struct sockaddr *)&target->address, target->address_size) != 0 &&
        errno != EINPROGRESS) {
        return -errno;
    }
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.u32 = (uint32_t)(link - io->links),
    };
    return epoll_ctl(io->epoll, EPOLL_CTL_ADD, link->fd, &event) == 0 ? 0 : -errno;
}

void fc_link_open(struct fc_link_io *io, struct fc_link *link, uint32_t number, uint64_t since_ns)
{
    link->state = FC_LINK_CONNECTING;
    link->since_ns = since_ns > 0 ? since_ns : fc_link_now();
    int code = start(io, link, number);
    if (code != 0) {
        end_errno(io, link, -code);
        return;
    }
    /* Over loopback the connection is established by now, and asking the event loop would cost a round. */
    request(io, link);
}

void fc_link_event(struct fc_link_io *io, struct fc_link *link, uint32_t events)
{
    bool ending = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (link->state == FC_LINK_NONE)
        return; /* ended earlier in the same batch of events */
    if (link->deaf && link->state >= FC_LINK_OPEN) {
        if (ending)
            end(io, link, "closed");
        return;
    }
    if (link->state == FC_LINK_CONNECTING) {
        request(io, link);
        if (link->state != FC_LINK_REQUESTED)
            return;
    }
    if ((events & EPOLLOUT) != 0 && fc_link_backed_up(link) && !flush(io, link))
        return;
    if ((events & EPOLLIN) != 0 || ending)
        read_all(io, link, ending);
}
