/* System calls and allocations that fail amid the work: what can be cured is, what can't hits one client only,
 * nothing is lost without being counted, and nothing spins. With epoll, whose sends are calls that can be made to
 * fail. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { PEERS = 4, MESSAGES = 20 };

static struct world world;
static struct peer peers[PEERS];

static void open_world(void)
{
    struct fc_options options = world_options();

    fault_clear();
    world_open(&world, &options);
}

static void join_all(void)
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_join(&peers[i], &world, i % 2, "/a");
}

static void talk_round(void)
{
    char text[32];

    for (unsigned k = 0; k < MESSAGES; k++) {
        snprintf(text, sizeof text, "message %u", k);
        peer_text(&peers[k % PEERS], text);
        for (unsigned i = 0; i < PEERS; i++)
            peer_expect_text(&peers[i], text);
    }
}

static struct fc_shard_stats leave_all(void)
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_leave(&peers[i]);
    return world_close(&world, 0, 0);
}

/* ---- what time or another try cures ---- */

static void sends_that_fail_for_a_moment_lose_nothing(void)
{
    static const int errors[] = {EINTR, EAGAIN, ENOBUFS, ENOMEM};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_world();
        join_all();
        fault_clear();
        fault_arm(FAULT_SEND, 5, 6, errors[i]);
        talk_round();
        CHECK_EQ(fault_injected(FAULT_SEND), 6);
        /* One call for each delivery, and one more for each that failed; what is tried again too early fails again. */
        CHECK(fault_calls(FAULT_SEND) <= MESSAGES * PEERS + 6);
        struct fc_shard_stats stats = leave_all();
        CHECK_EQ(stats.delivered, MESSAGES * PEERS);
        CHECK_EQ(stats.slow + stats.gone + stats.dead, 0);
    }
}

static void sends_of_one_byte_make_whole_messages(void)
{
    static const size_t limits[] = {1, 2, 3, 7};
    static const char payload[] = "a message that goes out in very small pieces";
    size_t wire = sizeof payload - 1 + 2;

    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        open_world();
        join_all();
        fault_clear();
        fault_limit_sends(limits[i]);
        peer_text(&peers[0], payload);
        for (unsigned k = 0; k < PEERS; k++)
            peer_expect_text(&peers[k], payload);
        WAIT_UNTIL(world_stats(&world).queued == 0);
        CHECK_EQ(fault_calls(FAULT_SEND), PEERS * ((wire + limits[i] - 1) / limits[i]));
        for (unsigned k = 0; k < MESSAGES; k++) /* now several at once, joined and queued */
            world_publish(&world, "/a", true, payload, sizeof payload - 1);
        peer_send(&peers[1], true, FC_OP_PING, "amid", 4);
        for (unsigned k = 0; k < PEERS; k++) {
            unsigned texts = 0;
            for (bool ponged = k != 1; texts < MESSAGES || !ponged;) {
                struct frame frame = peer_receive(&peers[k]);
                ponged = ponged || frame.opcode == FC_OP_PONG;
                if (frame.opcode == FC_OP_TEXT) {
                    CHECK_BYTES(frame.payload, frame.length, payload, sizeof payload - 1);
                    texts++;
                }
            }
        }
        CHECK_EQ(leave_all().delivered, PEERS * (1 + MESSAGES));
    }
}

static void reads_that_fail_for_a_moment_lose_nothing(void)
{
    static const int errors[] = {EINTR, EAGAIN};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_world();
        join_all();
        fault_clear();
        fault_arm(FAULT_RECV, 3, 9, errors[i]);
        talk_round();
        CHECK_EQ(fault_injected(FAULT_RECV), 9);
        CHECK(fault_calls(FAULT_RECV) <= 3 * MESSAGES + 9);
        CHECK_EQ(leave_all().received, MESSAGES);
    }
}

/* The backlog waits, and is looked at again after a while: a loop that didn't wait would use up all failures at
 * once. */
static void accepting_goes_on_after_a_pause_when_fds_or_memory_are_missing(void)
{
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_world();
        WAIT_UNTIL(fault_calls(FAULT_ACCEPT) == 2); /* each shard has looked once, and found nobody */
        fault_clear();
        fault_arm(FAULT_ACCEPT, 0, 4, errors[i]);
        double began = check_now();
        peer_join(&peers[0], &world, 0, "/a");
        CHECK(check_now() - began >= 0.2); /* three ticks of a tenth of a second, at the least */
        CHECK_EQ(fault_injected(FAULT_ACCEPT), 4);
        CHECK(fault_calls(FAULT_ACCEPT) <= 4 + 3);
        CHECK(fault_calls(FAULT_EPOLL_WAIT) <= 40);
        peer_leave(&peers[0]);
        struct fc_shard_stats stats = world_close(&world, 0, 0);
        bool files = errors[i] == EMFILE || errors[i] == ENFILE;
        CHECK_EQ(stats.no_files, files ? 4 : 0);
        CHECK_EQ(stats.no_memory, files ? 0 : 4);
    }
}

static void accepting_goes_on_at_once_after_errors_of_one_connection(void)
{
    static const int errors[] = {ECONNABORTED, EINTR, EPROTO, EPERM};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_world();
        fault_clear();
        fault_arm(FAULT_ACCEPT, 0, 200, errors[i]); /* more than the slice of a round */
        peer_join(&peers[0], &world, 0, "/a");
        CHECK_EQ(fault_injected(FAULT_ACCEPT), 200);
        peer_leave(&peers[0]);
        struct fc_shard_stats stats = world_close(&world, 0, 0);
        CHECK_EQ(stats.no_files + stats.no_memory, 0);
    }
}

static void a_wait_that_a_signal_ends_is_taken_up_again(void)
{
    open_world();
    join_all();
    fault_clear();
    fault_arm(FAULT_EPOLL_WAIT, 0, 30, EINTR);
    talk_round();
    CHECK_EQ(fault_injected(FAULT_EPOLL_WAIT), 30);
    leave_all();
}

/* A client that doesn't read and has nothing to send costs no calls while it lags. */
static void a_full_socket_is_left_alone_until_it_empties(void)
{
    enum { BLOCK = 100000, BLOCKS = 100 };
    static uint8_t block[BLOCK];
    struct fc_options options = world_options();

    options.max_queue = SIZE_MAX / 4;
    fault_clear();
    world_open(&world, &options);
    peer_connect(&peers[0], &world, 0, 4096);
    peer_ask(&peers[0], "/a");
    peer_enter(&peers[0], &world);
    peer_join(&peers[1], &world, 0, "/b");
    for (unsigned i = 0; i < BLOCKS; i++)
        world_publish(&world, "/a", false, block, BLOCK);
    WAIT_UNTIL(world_stats(&world).lagging == 1 && world_stats(&world).sent == BLOCKS);
    fault_clear();
    for (unsigned k = 0; k < MESSAGES; k++) { /* the shard is busy with others */
        peer_text(&peers[1], "busy");
        peer_expect_text(&peers[1], "busy");
    }
    /* The kernel may still have made a little room, as its buffers grew. */
    CHECK(fault_calls(FAULT_SEND) <= MESSAGES + 8);
    for (unsigned i = 0; i < BLOCKS; i++)
        peer_expect(&peers[0], FC_OP_BINARY, block, BLOCK);
    peer_leave(&peers[0]);
    peer_leave(&peers[1]);
    world_close(&world, 0, 0);
}

/* ---- what costs one client its connection ---- */

/* After the fault one peer is lost; the others hear what is said from then on. */
static struct fc_shard_stats lose_one(enum fault kind, int error, bool by_reading)
{
    unsigned lost = PEERS;

    open_world();
    join_all();
    fault_clear();
    fault_arm(kind, 0, 1, error);
    if (by_reading)
        peer_text(&peers[0], "lost with its sender");
    else
        world_publish(&world, "/a", true, "lost for one", 12);
    WAIT_UNTIL(world_stats(&world).connections == PEERS - 1);
    world_publish(&world, "/a", true, "still here", 10);
    for (unsigned i = 0; i < PEERS; i++) {
        uint8_t first;
        struct pollfd news = {.fd = peers[i].fd, .events = POLLIN};
        CHECK_EQ(poll(&news, 1, CHECK_PATIENCE_S * 1000), 1);
        if (recv(peers[i].fd, &first, 1, MSG_PEEK) <= 0) {
            CHECK_EQ(lost, PEERS);
            lost = i;
            peer_close(&peers[i]);
            continue;
        }
        if (!by_reading)
            peer_expect_text(&peers[i], "lost for one");
        peer_expect_text(&peers[i], "still here");
        peer_leave(&peers[i]);
    }
    CHECK(lost < PEERS);
    return world_close(&world, 0, 0);
}

static void a_connection_that_breaks_in_a_send_is_lost_alone(void)
{
    static const int errors[] = {ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct fc_shard_stats stats = lose_one(FAULT_SEND, errors[i], false);
        CHECK_EQ(stats.gone, 1);
        CHECK_EQ(stats.sent, PEERS + PEERS - 1);
    }
}

/* A room ends with its last member, also amid the broadcast to it. */
static void the_last_member_of_a_channel_can_be_lost_in_a_send(void)
{
    for (unsigned i = 0; i < 2; i++) {
        open_world();
        peer_join(&peers[0], &world, 0, "/a");
        fault_clear();
        fault_arm(FAULT_SEND, 0, 1, ECONNRESET);
        world_publish(&world, "/a", true, "lost", 4);
        if (i == 1) /* one more is due by then, or not */
            world_publish(&world, "/a", true, "lost, too", 9);
        WAIT_UNTIL(world_stats(&world).connections == 0);
        peer_await_end(&peers[0]);
        peer_close(&peers[0]);
        peer_join(&peers[0], &world, 0, "/a");
        peer_text(&peers[0], "a new room");
        peer_expect_text(&peers[0], "a new room");
        peer_leave(&peers[0]);
        world_close(&world, 0, 0);
    }
}

static void a_connection_that_breaks_in_a_read_is_lost_alone(void)
{
    static const int errors[] = {ECONNRESET, ETIMEDOUT, EHOSTUNREACH};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        CHECK_EQ(lose_one(FAULT_RECV, errors[i], true).received, 0);
}

static void a_connection_that_cannot_be_watched_is_closed(void)
{
    open_world();
    fault_clear();
    fault_arm(FAULT_EPOLL_CTL, 0, 1, ENOSPC);
    peer_connect(&peers[0], &world, 0, 0);
    peer_await_end(&peers[0]);
    peer_close(&peers[0]);
    join_all();
    talk_round();
    CHECK_EQ(leave_all().accepted, PEERS + 1);
}

static void a_shutdown_that_fails_drops_the_connection(void)
{
    open_world();
    peer_join(&peers[0], &world, 0, "/a");
    fault_clear();
    fault_arm(FAULT_SHUTDOWN, 0, 1, ENOTCONN);
    peer_leave(&peers[0]);
    WAIT_UNTIL(world_stats(&world).connections == 0);
    world_close(&world, 0, 0);
}

/* ---- memory ---- */

/* Talks to a hub that may drop anybody at any time. */
static bool try_to_talk(struct peer *peer, unsigned shard)
{
    static const char head[] = "GET /a HTTP/1.1\r\nPeer: %u\r\n";
    static const char talk[] = "\x81\x85\0\0\0\0hello\x89\x80\0\0\0\0"
                               "\x01\x82\0\0\0\0he\x80\x83\0\0\0\0llo\x88\x80\0\0\0\0";
    char request[64];
    uint8_t bytes[512];
    bool opened = false;

    peer_connect(peer, &world, shard, 0);
    int n = snprintf(request, sizeof request, head, peer->number);
    send(peer->fd, request, (size_t)n, MSG_NOSIGNAL);
    send(peer->fd, "\r\n", 2, MSG_NOSIGNAL);
    for (double until = check_now() + CHECK_PATIENCE_S;;) {
        world_answer(&world);
        ssize_t got = recv(peer->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        if (got > 0 && !opened) {
            opened = true;
            send(peer->fd, talk, sizeof talk - 1, MSG_NOSIGNAL);
        }
        if (got < 0)
            check_wait(until, __FILE__, __LINE__, "the connection ends");
    }
    return opened;
}

/* The first allocation of a shard fails, then the second, and so on: whoever it hits is dropped or refused, the
 * counters add up in any case, and the next clients are served. */
static void missing_memory_costs_one_client_and_nothing_leaks(void)
{
    unsigned long injected = 1;

    for (unsigned long n = 0; injected > 0; n++) {
        CHECK(n < 200);
        open_world();
        fault_clear();
        fault_arm(FAULT_ALLOCATION, n, 1, ENOMEM);
        for (unsigned i = 0; i < 3; i++) {
            try_to_talk(&peers[i], i % 2);
            peer_close(&peers[i]);
        }
        injected = fault_injected(FAULT_ALLOCATION);
        fault_clear();
        join_all();
        talk_round();
        leave_all();
        CHECK(n > 10 || injected == 1);
    }
}

static void a_reply_for_which_there_is_no_memory_is_told_to_be_lost(void)
{
    struct fc_events *events;

    open_world();
    CHECK(!fc_hub_unanswered(world.hub));
    fault_clear();
    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM); /* the list of the first that replies */
    CHECK_EQ(fc_hub_flush(world.hub, 1), 0);
    WAIT_UNTIL((events = fc_hub_replies(world.hub)));
    CHECK_EQ(events->count, 1);
    fc_hub_release(world.hub, events);
    CHECK_EQ(fault_injected(FAULT_ALLOCATION), 1);
    fault_clear();
    CHECK(fc_hub_unanswered(world.hub));
    CHECK(!fc_hub_unanswered(world.hub));
    join_all();
    talk_round();
    leave_all();
}

/* Who can't be answered times out, and the next are served. */
static void answers_for_which_there_is_no_memory_time_out(void)
{
    struct fc_span response = {WORLD_ACCEPTED, strlen(WORLD_ACCEPTED)};
    struct fc_span channel = {"/a", 2};
    struct fc_options options = world_options();
    struct fc_events *requests;
    struct fc_events *ends;

    options.handshake_timeout = 1000;
    options.closes = true;
    fault_clear();
    world_open(&world, &options);
    for (unsigned n = 0; n < 3; n++) { /* the message, the channel, its seats */
        peer_connect(&peers[n], &world, 0, 0);
        peer_ask(&peers[n], "/a");
        WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
        struct fc_answer answer = {requests->events[0].client, response, true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0};
        fc_hub_release(world.hub, requests);
        fault_spare_this_thread(false);
        fault_clear();
        fault_arm(FAULT_ALLOCATION, n, 1, ENOMEM);
        CHECK_EQ(fc_hub_answer(world.hub, &answer, 1), -ENOMEM);
        fault_spare_this_thread(true);
        CHECK((ends = fc_hub_events(world.hub)));
        CHECK_EQ(ends->count, 1);
        CHECK_EQ(ends->events[0].kind, FC_EVENT_CLOSED);
        CHECK_EQ(ends->events[0].client, answer.client);
        CHECK_EQ(ends->events[0].code, 1006);
        fc_hub_release(world.hub, ends);
    }
    for (unsigned n = 0; n < 3; n++) {
        peer_expect_bytes(&peers[n], WORLD_FULL);
        peer_expect_end(&peers[n]);
        peer_close(&peers[n]);
    }
    WAIT_UNTIL(world_stats(&world).asked == 0);
    join_all();
    talk_round();
    leave_all();
}

static void without_memory_for_a_slot_the_connection_is_closed(void)
{
    open_world();
    fault_clear();
    fault_arm(FAULT_MMAP, 0, 1, ENOMEM);
    peer_connect(&peers[0], &world, 0, 0);
    peer_await_end(&peers[0]);
    peer_close(&peers[0]);
    join_all();
    struct fc_shard_stats stats = leave_all();
    CHECK_EQ(stats.full, 1);
    CHECK_EQ(stats.accepted, PEERS);
}

int main(void)
{
    world_prepare();
    RUN(sends_that_fail_for_a_moment_lose_nothing);
    RUN(sends_of_one_byte_make_whole_messages);
    RUN(reads_that_fail_for_a_moment_lose_nothing);
    RUN(accepting_goes_on_after_a_pause_when_fds_or_memory_are_missing);
    RUN(accepting_goes_on_at_once_after_errors_of_one_connection);
    RUN(a_wait_that_a_signal_ends_is_taken_up_again);
    RUN(a_full_socket_is_left_alone_until_it_empties);
    RUN(a_connection_that_breaks_in_a_send_is_lost_alone);
    RUN(the_last_member_of_a_channel_can_be_lost_in_a_send);
    RUN(a_connection_that_breaks_in_a_read_is_lost_alone);
    RUN(a_connection_that_cannot_be_watched_is_closed);
    RUN(a_shutdown_that_fails_drops_the_connection);
    RUN(missing_memory_costs_one_client_and_nothing_leaks);
    RUN(a_reply_for_which_there_is_no_memory_is_told_to_be_lost);
    RUN(answers_for_which_there_is_no_memory_time_out);
    RUN(without_memory_for_a_slot_the_connection_is_closed);
    return 0;
}
