/* The core's limits over loopback: slow clients, backlog, room for connections, time. */
#include "check.h"
#include "exchange.h"
#include "faults.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct world world;

/* ---- slow clients ---- */

static void join_with_small_buffer(struct peer *peer, unsigned shard, const char *channel)
{
    peer_connect(peer, &world, shard, 4096);
    peer_ask(peer, channel);
    peer_enter(peer, &world);
}

static void number_block(uint8_t *block, size_t n, uint32_t number)
{
    memset(block, (int)(number & 0xFF), n);
    memcpy(block, &number, sizeof number);
}

/* A slow client is closed with 1008 behind whole messages; nobody else notices. */
static void a_client_that_does_not_read_is_closed_with_1008(void)
{
    enum { BLOCK = 50000, MOST = 2000 };
    static uint8_t block[BLOCK];
    struct fc_options options = world_options();
    struct peer slow;
    struct peer others[2];
    uint32_t published = 0;

    options.max_queue = 200000;
    world_open(&world, &options);
    join_with_small_buffer(&slow, 0, "/a");
    for (unsigned i = 0; i < 2; i++)
        peer_join(&others[i], &world, i, "/a");
    for (; world_stats(&world).slow == 0; published++) {
        CHECK(published < MOST);
        number_block(block, BLOCK, published);
        world_publish(&world, "/a", false, block, BLOCK);
        peer_expect(&others[0], FC_OP_BINARY, block, BLOCK);
        peer_expect(&others[1], FC_OP_BINARY, block, BLOCK);
    }
    WAIT_UNTIL(world_stats(&world).clients == 2);
    uint32_t received = 0;
    struct frame frame = peer_receive(&slow);
    for (; frame.opcode == FC_OP_BINARY; frame = peer_receive(&slow), received++) {
        number_block(block, BLOCK, received);
        CHECK_BYTES(frame.payload, frame.length, block, BLOCK);
    }
    CHECK(received < published);
    CHECK_EQ(frame.opcode, FC_OP_CLOSE);
    CHECK_BYTES(frame.payload, frame.length, "\x03\xF0", 2);
    peer_send(&slow, true, FC_OP_TEXT, "too late", 8);
    peer_send(&slow, true, FC_OP_CLOSE, "\x03\xF0", 2);
    peer_expect_end(&slow);
    peer_close(&slow);
    for (unsigned i = 0; i < 2; i++)
        peer_leave(&others[i]);
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.slow, 1);
    CHECK_EQ(stats.delivered, 2 * (uint64_t)published + received);
    CHECK(stats.gone > 0);
}

static void a_lagging_client_that_catches_up_gets_everything(void)
{
    enum { BLOCK = 50000, BLOCKS = 200 };
    static uint8_t block[BLOCK];
    struct fc_options options = world_options();
    struct peer peer;

    options.max_queue = 100 << 20;
    options.max_backlog = 400 << 20;
    world_open(&world, &options);
    join_with_small_buffer(&peer, 0, "/a");
    for (uint32_t i = 0; i < BLOCKS; i++) {
        number_block(block, BLOCK, i);
        world_publish(&world, "/a", false, block, BLOCK);
    }
    WAIT_UNTIL(world_stats(&world).lagging == 1);
    CHECK(world_stats(&world).queued_bytes > 0);
    peer_send(&peer, true, FC_OP_PING, "overtakes", 9);
    bool ponged = false;
    for (uint32_t i = 0; i < BLOCKS || !ponged;) {
        struct frame frame = peer_receive(&peer);
        if (frame.opcode == FC_OP_PONG) {
            CHECK(i < BLOCKS);
            ponged = true;
            continue;
        }
        number_block(block, BLOCK, i++);
        CHECK_BYTES(frame.payload, frame.length, block, BLOCK);
    }
    WAIT_UNTIL(world_stats(&world).queued == 0 && world_stats(&world).lagging == 0);
    peer_leave(&peer);
    CHECK_EQ(world_close(&world, 0, 0).delivered, BLOCKS);
}

/* The limit is for what piles up: one message may be larger, for a client that has nothing else waiting. */
static void a_message_larger_than_the_queue_is_delivered(void)
{
    enum { BLOCK = 12 << 20 }; /* more than the kernel's buffers hold */
    struct fc_options options = world_options();
    uint8_t *block = calloc(BLOCK, 1);
    struct peer peer;

    options.max_queue = 1000;
    world_open(&world, &options);
    join_with_small_buffer(&peer, 0, "/a");
    world_publish(&world, "/a", false, block, BLOCK);
    WAIT_UNTIL(world_stats(&world).lagging == 1);
    CHECK(world_stats(&world).queued_bytes > options.max_queue);
    peer_expect(&peer, FC_OP_BINARY, block, BLOCK);
    free(block);
    peer_leave(&peer);
    CHECK_EQ(world_close(&world, 0, 0).slow, 0);
}

/* When messages fill the memory that is for them, those who lag are closed, and the memory comes back. */
static void who_lags_while_memory_is_used_up_is_closed(void)
{
    enum { BLOCK = 50000, MOST = 2000 };
    static uint8_t block[BLOCK];
    struct fc_options options = world_options();
    struct peer slow;

    options.max_queue = SIZE_MAX / 4;
    options.max_backlog = 1 << 20;
    world_open(&world, &options);
    join_with_small_buffer(&slow, 0, "/a");
    for (unsigned i = 0; world_stats(&world).slow == 0; i++) {
        CHECK(i < MOST);
        world_publish(&world, "/a", false, block, BLOCK);
    }
    struct fc_hub_stats stats;
    WAIT_UNTIL((fc_hub_read_stats(world.hub, &stats), stats.message_bytes < 2 * BLOCK));
    peer_reset(&slow);
    CHECK_EQ(world_close(&world, 5000, 0).slow, 1);
}

/* ---- backlog ---- */

enum { SENT = 1000, SENT_SIZE = 4096 };

static void *send_all(void *argument)
{
    static uint8_t block[SENT_SIZE];

    for (uint32_t i = 0; i < SENT; i++) {
        number_block(block, sizeof block, i);
        peer_send(argument, true, FC_OP_BINARY, block, sizeof block);
    }
    return NULL;
}

/* One shard is held amid a send, so that what is published to it piles up. The other one stops reading, but serves
 * everything else; and goes on when the first does. */
static void reading_pauses_while_a_shard_is_behind(void)
{
    static uint8_t block[SENT_SIZE];
    struct fc_options options = world_options();
    struct peer sender;
    struct peer receiver;
    struct peer bait;
    struct peer passers_by[2];
    pthread_t thread;

    options.max_backlog = 1 << 20;
    world_open(&world, &options);
    peer_join(&sender, &world, 0, "/a");
    peer_join(&receiver, &world, 1, "/a");
    peer_join(&bait, &world, 1, "/bait");
    fault_catch_sender();
    world_publish(&world, "/bait", true, "caught", 6);
    WAIT_UNTIL(fault_sender_is_caught());
    CHECK_EQ(pthread_create(&thread, NULL, send_all, &sender), 0);
    WAIT_UNTIL(world_is_congested(&world));

    /* To join takes several rounds of the shard's loop: what it had begun to read is done after the first. */
    peer_join(&passers_by[0], &world, 0, "/b");
    uint64_t received = world_stats(&world).received;
    peer_join(&passers_by[1], &world, 0, "/b");
    CHECK_EQ(world_stats(&world).received, received);
    CHECK(received < SENT);
    CHECK(world_is_congested(&world));

    fault_let_go();
    for (uint32_t i = 0; i < SENT; i++) {
        number_block(block, sizeof block, i);
        peer_expect(&sender, FC_OP_BINARY, block, sizeof block);
        peer_expect(&receiver, FC_OP_BINARY, block, sizeof block);
    }
    pthread_join(thread, NULL);
    WAIT_UNTIL(!world_is_congested(&world)); /* the last write is settled after it has arrived */
    peer_expect_text(&bait, "caught");
    peer_leave(&bait);
    peer_leave(&sender);
    peer_leave(&receiver);
    peer_leave(&passers_by[0]);
    peer_leave(&passers_by[1]);
    CHECK_EQ(world_close(&world, 0, 0).slow, 0);
}

static void reading_pauses_while_the_handler_is_behind(void)
{
    static uint8_t block[SENT_SIZE];
    struct fc_options options = world_options();
    struct peer sender;
    struct peer passers_by[2];
    pthread_t thread;

    options.handled = true;
    options.max_backlog = 1 << 20;
    world_open(&world, &options);
    peer_join(&sender, &world, 0, "/a");
    CHECK_EQ(pthread_create(&thread, NULL, send_all, &sender), 0);
    WAIT_UNTIL(world_is_congested(&world));
    peer_join(&passers_by[0], &world, 0, "/b");
    uint64_t received = world_stats(&world).received;
    peer_join(&passers_by[1], &world, 0, "/b");
    CHECK_EQ(world_stats(&world).received, received);
    CHECK(received < SENT);

    for (uint32_t next = 0; next < SENT;) {
        struct fc_events *taken;
        WAIT_UNTIL((taken = fc_hub_events(world.hub)));
        for (size_t i = 0; i < taken->count; i++) {
            const struct fc_event *event = &taken->events[i];
            number_block(block, sizeof block, next++);
            CHECK_BYTES(event->bytes.bytes, event->bytes.length, block, sizeof block);
            CHECK(!event->text);
        }
        fc_hub_release(world.hub, taken);
    }
    pthread_join(thread, NULL);
    peer_leave(&sender);
    peer_leave(&passers_by[0]);
    peer_leave(&passers_by[1]);
    world_close(&world, 0, 0);
}

/* ---- room ---- */

static void expect_full(unsigned shard)
{
    struct peer peer;

    peer_connect(&peer, &world, shard, 0);
    peer_ask(&peer, "/a");
    peer_expect_bytes(&peer, WORLD_FULL);
    peer_expect_end(&peer);
    peer_close(&peer);
}

static void beyond_max_connections_there_is_a_503(void)
{
    struct fc_options options = world_options();
    struct peer peers[3];

    options.max_connections = 3;
    world_open(&world, &options);
    CHECK_EQ(fc_hub_capacity(world.hub), 3);
    for (unsigned i = 0; i < 3; i++)
        peer_join(&peers[i], &world, i % 2, "/a");
    expect_full(0);
    expect_full(1);
    peer_leave(&peers[0]);
    WAIT_UNTIL(world_stats(&world).connections == 2);
    peer_join(&peers[0], &world, 1, "/a");
    for (unsigned i = 0; i < 3; i++)
        peer_leave(&peers[i]);
    struct fc_shard_stats stats = world_close(&world, 5000, 0);
    CHECK_EQ(stats.full, 2);
    CHECK_EQ(stats.requests, 4);
}

/* The shards take their room from the limit at their start: a low one makes tiny shards. */
static void open_tiny_world(rlim_t fds)
{
    struct fc_options options = world_options();
    struct rlimit before;
    struct rlimit low;

    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){.rlim_cur = fds, .rlim_max = before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    world_open(&world, &options);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void a_full_shard_hands_over_to_one_with_room(void)
{
    enum { MOST = 60 };
    static struct peer peers[MOST];

    open_tiny_world(world_options().shared_table ? 220 : 64);
    uint64_t capacity = fc_hub_capacity(world.hub);
    CHECK(capacity >= 2 && capacity <= MOST && capacity % 2 == 0);
    for (uint64_t i = 0; i < capacity; i++) {
        peer_join(&peers[i], &world, 0, "/a"); /* all of them at the first shard's door */
        CHECK_EQ(world.ids[peers[i].number] >> 54, i < capacity / 2 ? 0 : 1);
    }
    WAIT_UNTIL(world_stats(&world).handed_over == capacity / 2);
    expect_full(0);
    expect_full(1);
    peer_text(&peers[0], "to all");
    for (uint64_t i = 0; i < capacity; i++)
        peer_expect_text(&peers[i], "to all");
    peer_leave(&peers[capacity - 1]);
    WAIT_UNTIL(world_stats(&world).connections == capacity - 1);
    peer_join(&peers[capacity - 1], &world, 0, "/a");
    for (uint64_t i = 0; i < capacity; i++)
        peer_leave(&peers[i]);
    struct fc_shard_stats stats = world_close(&world, 5000, 0);
    CHECK_EQ(stats.handed_over, capacity / 2 + 1);
    CHECK_EQ(stats.full, 2);
}

/* What can't be handed over is told that there's no room, and nothing is lost on the way. */
static void a_handover_that_fails_ends_in_a_503(void)
{
    enum { MOST = 60 };
    static struct peer peers[MOST];

    open_tiny_world(world_options().shared_table ? 220 : 64);
    uint64_t each = fc_hub_capacity(world.hub) / 2;
    for (uint64_t i = 0; i < each; i++)
        peer_join(&peers[i], &world, 0, "/a");
    fault_arm(FAULT_PASS, 0, 1, EAGAIN);
    expect_full(0);
    CHECK_EQ(fault_injected(FAULT_PASS), 1);
    fault_arm(FAULT_PASS, 0, 1, EINTR);
    peer_join(&peers[each], &world, 0, "/a");
    for (uint64_t i = 0; i <= each; i++)
        peer_leave(&peers[i]);
    world_close(&world, 5000, 0);
}

/* Beyond a number of requests that Python hasn't answered, the next wait in the shard. */
static void requests_wait_while_python_has_many(void)
{
    enum { SHARE = FC_ASKED_MAX / 2, MANY = SHARE + 40 };
    static struct peer peers[MANY];
    struct fc_options options = world_options();
    struct peer member;

    world_open(&world, &options);
    peer_join(&member, &world, 0, "/a");
    for (unsigned i = 0; i < MANY; i++) {
        peer_connect(&peers[i], &world, 0, 0);
        peer_ask(&peers[i], "/a");
    }
    WAIT_UNTIL(world_stats(&world).asked >= SHARE);
    peer_text(&member, "goes on"); /* and takes some rounds of the shard's loop */
    peer_expect_text(&member, "goes on");
    CHECK_EQ(world_stats(&world).asked, SHARE);
    for (unsigned i = 0; i < MANY; i++)
        peer_enter(&peers[i], &world);
    for (unsigned i = 0; i < MANY; i++)
        peer_leave(&peers[i]);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).opened, MANY + 1);
}

/* ---- time ---- */

static void whoever_does_not_complete_a_request_gets_a_408(void)
{
    struct fc_options options = world_options();
    struct peer silent;
    struct peer halfway;

    options.handshake_timeout = 300;
    world_open(&world, &options);
    peer_connect(&silent, &world, 0, 0);
    peer_connect(&halfway, &world, 1, 0);
    peer_send_bytes(&halfway, "GET /", 5);
    peer_expect_bytes(&silent, WORLD_TIMEOUT);
    peer_expect_end(&silent);
    peer_expect_bytes(&halfway, WORLD_TIMEOUT);
    peer_expect_end(&halfway);
    peer_close(&silent);
    peer_close(&halfway);
    CHECK_EQ(world_close(&world, 5000, 0).handshake_timeouts, 2);
}

static void a_request_that_nobody_answers_gets_a_503(void)
{
    struct fc_options options = world_options();
    struct peer peer;

    options.handshake_timeout = 200;
    world_open(&world, &options);
    peer_connect(&peer, &world, 0, 0);
    peer_ask(&peer, "/a");
    peer_expect_bytes(&peer, WORLD_FULL);
    peer_expect_end(&peer);
    peer_close(&peer);
    CHECK_EQ(world_close(&world, 5000, 0).handshake_timeouts, 1);
}

static void who_answers_pings_stays_and_who_does_not_is_given_up(void)
{
    struct fc_options options = world_options();
    struct peer alive;
    struct peer dead;

    options.ping_interval = 200;
    options.ping_timeout = 10000; /* far more than the answers may take */
    world_open(&world, &options);
    peer_join(&alive, &world, 0, "/a");
    for (unsigned i = 0; i < 3; i++) {
        peer_expect(&alive, FC_OP_PING, "", 0);
        peer_send(&alive, true, i % 2 ? FC_OP_PONG : FC_OP_TEXT, "", 0); /* any sign of life will do */
        if (i % 2 == 0)
            peer_expect_text(&alive, "");
    }
    peer_close(&alive);
    CHECK(world_close(&world, 0, 0).pings >= 3);

    options.ping_timeout = 300;
    world_open(&world, &options);
    peer_join(&dead, &world, 1, "/a");
    peer_expect(&dead, FC_OP_PING, "", 0);
    peer_await_end(&dead);
    peer_close(&dead);
    struct fc_shard_stats stats = world_close(&world, 5000, 0);
    CHECK_EQ(stats.pings, 1);
    CHECK_EQ(stats.dead, 1);
}

static void a_lagging_client_that_takes_nothing_is_given_up(void)
{
    enum { BLOCK = 100000, BLOCKS = 200 };
    static uint8_t block[BLOCK];
    struct fc_options options = world_options();
    struct peer peer;

    options.max_queue = SIZE_MAX / 4;
    options.ping_interval = 300;
    options.ping_timeout = 300;
    world_open(&world, &options);
    join_with_small_buffer(&peer, 0, "/a");
    for (unsigned i = 0; i < BLOCKS; i++)
        world_publish(&world, "/a", false, block, BLOCK);
    WAIT_UNTIL(world_stats(&world).dead == 1);
    struct fc_shard_stats stats = world_close(&world, 5000, 1);
    peer_close(&peer);
    CHECK(stats.gone > 0);
}

/* Our Close is out, the client doesn't answer it, but goes on talking. */
static void a_closing_client_that_keeps_talking_is_given_up(void)
{
    struct fc_options options = world_options();
    struct peer peer;
    bool connected = true;

    options.close_timeout = 300;
    world_open(&world, &options);
    peer_join(&peer, &world, 0, "/a");
    fc_hub_stop(world.hub, 100000);
    peer_expect_close(&peer, 1001);
    WAIT_UNTIL((connected = connected && send(peer.fd, "\x89\x80\0\0\0\0", 6, MSG_NOSIGNAL) == 6,
                fc_hub_running(world.hub) == 0));
    CHECK_EQ(world_close(&world, 0, 1).dead, 1);
    peer_close(&peer);
}

static void run_all(void)
{
    RUN(a_client_that_does_not_read_is_closed_with_1008);
    RUN(a_lagging_client_that_catches_up_gets_everything);
    RUN(a_message_larger_than_the_queue_is_delivered);
    RUN(who_lags_while_memory_is_used_up_is_closed);
    RUN(reading_pauses_while_a_shard_is_behind);
    RUN(reading_pauses_while_the_handler_is_behind);
    RUN(beyond_max_connections_there_is_a_503);
    RUN(a_full_shard_hands_over_to_one_with_room);
    RUN(a_handover_that_fails_ends_in_a_503);
    RUN(requests_wait_while_python_has_many);
    RUN(whoever_does_not_complete_a_request_gets_a_408);
    RUN(a_request_that_nobody_answers_gets_a_503);
    RUN(who_answers_pings_stays_and_who_does_not_is_given_up);
    RUN(a_lagging_client_that_takes_nothing_is_given_up);
    RUN(a_closing_client_that_keeps_talking_is_given_up);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
