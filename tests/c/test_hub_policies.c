/* What becomes of clients that lag, by the rules of channels; of those that talk too much; and of addresses with many. */
#include "check.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world;

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

#define BLOCK 20000

static uint8_t block[BLOCK];

static void number_block(uint32_t number)
{
    memset(block, (int)(number & 0xFF), BLOCK);
    memcpy(block, &number, sizeof number);
}

static void publish(const char *channel, uint32_t number, const char *key)
{
    uint64_t reached;
    int error;

    number_block(number);
    WAIT_UNTIL((error = fc_hub_publish(world.hub, span(channel), false, (struct fc_span){block, BLOCK}, span(key),
                                       &reached)) != -EAGAIN);
    CHECK_EQ(error, 0);
}

static uint32_t receive(struct peer *peer)
{
    struct frame frame = peer_receive(peer);
    uint32_t number;

    CHECK_EQ(frame.opcode, FC_OP_BINARY);
    CHECK_EQ(frame.length, BLOCK);
    memcpy(&number, frame.payload, sizeof number);
    number_block(number);
    CHECK_BYTES(frame.payload, frame.length, block, BLOCK);
    return number;
}

static void join_slowly(struct peer *peer, unsigned shard, const char *channel)
{
    peer_connect(peer, &world, shard, 4096);
    peer_ask(peer, channel);
    peer_enter(peer, &world);
}

static void flush(void)
{
    static uint64_t token;

    CHECK_EQ(fc_hub_flush(world.hub, ++token), 0);
    for (unsigned flushed = 0; flushed < world.shards;) {
        struct fc_events *events;
        WAIT_UNTIL((events = fc_hub_replies(world.hub)));
        for (size_t i = 0; i < events->count; i++)
            flushed += events->events[i].kind == FC_EVENT_FLUSHED && events->events[i].client == token;
        fc_hub_release(world.hub, events);
    }
}

static void open_with_rule(const char *channels, enum fc_policy policy, size_t max_queue, uint64_t max_messages)
{
    struct fc_options options = world_options();
    struct fc_rule rule = {span(channels), policy, max_queue, max_messages, 0, 0};

    options.rules = &rule;
    options.rule_count = 1;
    world_open(&world, &options);
}

static struct fc_channel_stats channel_stats(const char *channel)
{
    struct fc_channel_stats stats;

    CHECK(fc_hub_read_channel(world.hub, span(channel), &stats));
    return stats;
}

enum { MANY = 600 };

/* Publishes to a client that doesn't read until long after its queue is full; another one reads it all. */
static void overrun(struct peer *reader, const char *channel)
{
    for (uint32_t i = 0; i < MANY; i++) {
        publish(channel, i, "");
        CHECK_EQ(receive(reader), i);
    }
    flush();
}

static void the_oldest_make_room_for_the_newest(void)
{
    struct peer slow;
    struct peer reader;

    open_with_rule("a.*", FC_POLICY_DROP_OLDEST, 100 << 20, 10);
    join_slowly(&slow, 0, "a.x");
    peer_join(&reader, &world, 0, "a.x");
    overrun(&reader, "a.x");
    struct fc_shard_stats stats = world_stats(&world);
    CHECK(stats.queued <= 10 && stats.dropped > 0 && stats.dropped == stats.dropped_oldest);
    CHECK_EQ(stats.sent, stats.delivered + stats.dropped + stats.gone + stats.queued);
    struct fc_channel_stats of_channel = channel_stats("a.x");
    CHECK_EQ(of_channel.sent, 2 * MANY);
    CHECK_EQ(of_channel.delivered, stats.delivered);
    CHECK_EQ(of_channel.dropped, stats.dropped);
    uint32_t last = receive(&slow);
    unsigned received = 1;
    unsigned together = 1; /* since the last gap; there are several, where the kernel took some more meanwhile */
    for (; last < MANY - 1; received++) {
        uint32_t next = receive(&slow);
        CHECK(next > last);
        together = next == last + 1 ? together + 1 : 1;
        last = next;
    }
    CHECK(together >= 9); /* the ten that waited, of which the first may have been begun, and old */
    CHECK_EQ(received + stats.dropped, MANY);
    peer_leave(&slow);
    peer_leave(&reader);
    stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.delivered, MANY + received);
    CHECK_EQ(stats.slow, 0);
}

/* However small the limit is, and though a message that's begun takes up all of it. */
static void the_newest_message_always_comes(void)
{
    static const enum fc_policy policies[] = {FC_POLICY_DROP_OLDEST, FC_POLICY_LATEST};
    struct peer slow;
    struct peer reader;

    for (unsigned i = 0; i < 2; i++) {
        open_with_rule("a.*", policies[i], 1000, 1);
        join_slowly(&slow, 0, "a.x");
        peer_join(&reader, &world, 0, "a.x");
        overrun(&reader, "a.x");
        CHECK(world_stats(&world).queued <= 2);
        while (receive(&slow) < MANY - 1)
            continue;
        peer_leave(&slow);
        peer_leave(&reader);
        CHECK_EQ(world_close(&world, 0, 0).slow, 0);
    }
}

static void the_newest_is_left_out(void)
{
    struct peer slow;
    struct peer reader;

    open_with_rule("a.>", FC_POLICY_DROP_NEWEST, 200000, 0);
    join_slowly(&slow, 0, "a.x");
    peer_join(&reader, &world, 0, "a.*");
    overrun(&reader, "a.x");
    struct fc_shard_stats stats = world_stats(&world);
    CHECK(stats.queued_bytes <= 200000);
    CHECK(stats.dropped > 0 && stats.dropped == stats.dropped_newest);
    uint64_t left = MANY - stats.dropped;
    uint32_t last = 0;
    for (uint32_t i = 0; i < left; i++) {
        uint32_t next = receive(&slow);
        /* The first that wait stay. Of later ones some get in, where the kernel took some more meanwhile. */
        CHECK(i < 9 ? next == i : next > last);
        last = next;
    }
    flush();
    CHECK_EQ(world_stats(&world).queued, 0);
    publish("a.x", 7777, "");
    CHECK_EQ(receive(&slow), 7777);
    CHECK_EQ(receive(&reader), 7777);
    peer_leave(&slow);
    peer_leave(&reader);
    CHECK_EQ(world_close(&world, 0, 0).slow, 0);
}

static void of_a_key_only_the_latest_waits(void)
{
    enum { KEYS = 7 };
    struct peer slow;
    struct peer reader;
    struct peer all;
    char key[8];
    char channel[8];

    open_with_rule("a.*", FC_POLICY_LATEST, 100 << 20, 0);
    join_slowly(&slow, 0, "a.0,a.1");
    peer_join(&reader, &world, 0, "a.0,a.1");
    join_slowly(&all, 0, ">");
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "k%u", i % KEYS);
        snprintf(channel, sizeof channel, "a.%u", i % 2);
        publish(channel, i, key);
        CHECK_EQ(receive(&reader), i);
    }
    flush();
    struct fc_shard_stats stats = world_stats(&world);
    CHECK(stats.conflated > 0 && stats.dropped == stats.conflated);
    struct peer *slow_ones[] = {&slow, &all};
    for (unsigned k = 0; k < 2; k++) {
        uint32_t last[2 * KEYS] = {0};
        bool seen[2 * KEYS] = {false};
        unsigned newest = 0;
        /* Each key of each channel ends with its newest message, and never goes back. */
        while (newest < 2 * KEYS) {
            uint32_t number = receive(slow_ones[k]);
            unsigned which = number % (2 * KEYS);
            CHECK(!seen[which] || number > last[which]);
            seen[which] = true;
            last[which] = number;
            newest += number + 2 * KEYS >= MANY;
        }
    }
    flush();
    CHECK_EQ(world_stats(&world).queued, 0);
    peer_leave(&slow);
    peer_leave(&all);
    peer_leave(&reader);
    stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.sent, 3 * MANY);
}

static void without_a_key_the_channel_is_the_key(void)
{
    struct peer slow;
    struct peer talker;
    bool done = false;

    open_with_rule("/a", FC_POLICY_LATEST, 100 << 20, 0);
    join_slowly(&slow, 0, "/a");
    peer_join(&talker, &world, 1, "/a");
    for (uint32_t i = 0; i < MANY; i++) { /* as it is for what clients send */
        number_block(i);
        peer_send(&talker, true, FC_OP_BINARY, block, BLOCK);
        CHECK_EQ(receive(&talker), i);
    }
    WAIT_UNTIL(world_stats(&world).sent == 2 * MANY);
    CHECK(world_stats(&world).queued <= 2);
    while (!done)
        done = receive(&slow) == MANY - 1;
    peer_leave(&slow);
    peer_leave(&talker);
    world_close(&world, 0, 0);
}

static void other_channels_keep_their_own_rule(void)
{
    struct peer slow;
    struct peer reader;

    open_with_rule("a.*", FC_POLICY_DROP_OLDEST, 100 << 20, 5);
    join_slowly(&slow, 0, "a.x,b");
    peer_join(&reader, &world, 0, "a.x,b");
    for (uint32_t i = 0; i < MANY; i++) {
        publish(i % 10 ? "a.x" : "b", i, "");
        CHECK_EQ(receive(&reader), i);
    }
    flush();
    CHECK_EQ(channel_stats("b").dropped, 0);
    CHECK(channel_stats("a.x").dropped > 0);
    uint32_t next = 0;
    while (next < MANY) { /* of b nothing is missing */
        uint32_t number = receive(&slow);
        if (number % 10 == 0) {
            CHECK_EQ(number, next);
            next += 10;
        }
    }
    peer_close(&slow);
    peer_leave(&reader);
    world_close(&world, 0, 0);
}

static void a_slow_client_is_told_of_once_for_each_lag(void)
{
    struct fc_options options = world_options();
    struct peer slow;
    unsigned told = 0;

    options.policy = FC_POLICY_DROP_NEWEST;
    options.max_messages = 5;
    world_open(&world, &options);
    join_slowly(&slow, 0, "/a");
    for (unsigned round = 0; round < 2; round++) {
        uint64_t before = world_stats(&world).dropped;
        while (world_stats(&world).dropped < before + 20)
            publish("/a", 1, "");
        flush();
        while (world_stats(&world).queued > 0) /* what it was before the last one came may be read after it */
            if (peer_has_news(&slow))
                receive(&slow);
        struct fc_events *events;
        WAIT_UNTIL((events = fc_hub_events(world.hub)));
        for (size_t i = 0; i < events->count; i++) {
            CHECK_EQ(events->events[i].kind, FC_EVENT_SLOW);
            CHECK_EQ(events->events[i].client, world.ids[slow.number]);
            CHECK_EQ(events->events[i].code, FC_POLICY_DROP_NEWEST);
            CHECK(events->events[i].number > BLOCK);
            told++;
        }
        fc_hub_release(world.hub, events);
    }
    CHECK_EQ(told, 2);
    peer_close(&slow);
    world_close(&world, 0, 0);
}

static void pings_are_answered_whatever_is_dropped(void)
{
    struct peer slow;

    open_with_rule("/a", FC_POLICY_DROP_OLDEST, 100 << 20, 3);
    join_slowly(&slow, 0, "/a");
    while (world_stats(&world).dropped < 20)
        publish("/a", 1, "");
    peer_send(&slow, true, FC_OP_PING, "there?", 6);
    while (world_stats(&world).dropped < 60)
        publish("/a", 1, "");
    struct frame frame = peer_receive(&slow);
    while (frame.opcode == FC_OP_BINARY)
        frame = peer_receive(&slow);
    CHECK_EQ(frame.opcode, FC_OP_PONG);
    peer_close(&slow);
    world_close(&world, 0, 0);
}

/* ---- talkers ---- */

static void send_too_much(double rate_limit)
{
    struct fc_options options = world_options();
    struct peer hasty;
    struct peer patient;

    options.rate_limit = rate_limit;
    options.rate_burst = 10;
    world_open(&world, &options);
    peer_join(&hasty, &world, 0, "/a");
    peer_join(&patient, &world, 1, "/b");
    for (unsigned i = 0; i < 10; i++)
        peer_text(&patient, "slowly");
    for (unsigned i = 0; i < 10; i++)
        peer_expect_text(&patient, "slowly");
    for (unsigned i = 0; i < 40; i++)
        peer_text(&hasty, "quickly");
    for (unsigned i = 0; i < 10; i++)
        peer_expect_text(&hasty, "quickly");
    peer_expect_close(&hasty, 1008);
    peer_await_end(&hasty);
    peer_close(&hasty);
    peer_leave(&patient);
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.rate_limited, 1);
    CHECK_EQ(stats.sent, 20);
}

static void who_sends_too_much_is_closed_with_1008(void)
{
    send_too_much(0.5); /* so that the test's own pace doesn't matter */
    send_too_much(1e-300);
}

/* ---- addresses ---- */

static uint64_t ask(struct peer *peer, unsigned shard)
{
    struct fc_events *requests;

    peer_connect(peer, &world, shard, 0);
    peer_ask(peer, "/a");
    WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
    uint64_t id = requests->events[0].client;
    fc_hub_release(world.hub, requests);
    return id;
}

static void let_in(uint64_t id, const char *address)
{
    struct fc_span channel = span("/a");
    struct fc_answer answer = {id, span(WORLD_ACCEPTED), true, &channel, 1, span(address), FC_RESUME_OFF, NULL, 0};

    CHECK_EQ(fc_hub_answer(world.hub, &answer, 1), 0);
}

static void an_address_has_so_many_clients_and_no_more(void)
{
    struct fc_options options = world_options();
    struct peer peers[4];
    uint64_t ids[4];

    options.max_per_address = 2;
    world_open(&world, &options);
    for (unsigned i = 0; i < 4; i++) {
        ids[i] = ask(&peers[i], i % 2);
        let_in(ids[i], i == 3 ? "::1" : "1.2.3.4");
        peer_expect_bytes(&peers[i], i == 2 ? WORLD_TOO_MANY : WORLD_ACCEPTED);
    }
    CHECK_EQ(fc_hub_address_count(world.hub, span("1.2.3.4")), 2);
    CHECK_EQ(fc_hub_address_count(world.hub, span("::1")), 1);
    peer_expect_end(&peers[2]);
    peer_close(&peers[2]);
    peer_leave(&peers[0]);
    WAIT_UNTIL(fc_hub_address_count(world.hub, span("1.2.3.4")) == 1);
    let_in(ask(&peers[0], 0), "1.2.3.4");
    peer_expect_bytes(&peers[0], WORLD_ACCEPTED);
    let_in(ask(&peers[2], 0), ""); /* isn't counted */
    peer_expect_bytes(&peers[2], WORLD_ACCEPTED);
    /* Who has gone before the answer gives its place back. */
    struct peer gone;
    uint64_t id = ask(&gone, 1);
    peer_reset(&gone);
    let_in(id, "5.6.7.8");
    WAIT_UNTIL(fc_hub_address_count(world.hub, span("5.6.7.8")) == 0);
    uint64_t reached;
    CHECK_EQ(fc_hub_broadcast(world.hub, true, span("all"), &reached), 0);
    for (unsigned i = 0; i < 4; i++) {
        peer_expect_text(&peers[i], "all");
        peer_leave(&peers[i]);
    }
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.address_limited, 1);
}

/* ---- PROXY ---- */

static void a_proxy_header_belongs_to_the_head(void)
{
    static const char v1[] = "PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n";
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\1\2\3\4\5\6\7\x08\r\n\r\n";
    const struct fc_span headers[] = {{v1, sizeof v1 - 1}, {v2, sizeof v2 - 1}, {"", 0}};
    struct fc_options options = world_options();
    char request[200];

    options.proxy_protocol = true;
    world_open(&world, &options);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned piece = 1; piece < 90; piece += 11) {
            struct fc_events *requests;
            struct peer peer;
            peer_connect(&peer, &world, 0, 0);
            memcpy(request, headers[i].bytes, headers[i].length);
            size_t n = headers[i].length + (size_t)snprintf(request + headers[i].length, 100,
                                                            "GET /a HTTP/1.1\r\nPeer: %u\r\n\r\n", peer.number);
            peer_send_bytes(&peer, request, piece < n ? piece : n);
            if (piece < n)
                peer_send_bytes(&peer, request + piece, n - piece);
            WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
            CHECK_BYTES(requests->events[0].bytes.bytes, requests->events[0].bytes.length, request, n);
            let_in(requests->events[0].client, "");
            fc_hub_release(world.hub, requests);
            peer_expect_bytes(&peer, WORLD_ACCEPTED);
            peer_leave(&peer);
        }
    }
    world_close(&world, 0, 0);
}

static void run_all(void)
{
    RUN(the_oldest_make_room_for_the_newest);
    RUN(the_newest_message_always_comes);
    RUN(the_newest_is_left_out);
    RUN(of_a_key_only_the_latest_waits);
    RUN(without_a_key_the_channel_is_the_key);
    RUN(other_channels_keep_their_own_rule);
    RUN(a_slow_client_is_told_of_once_for_each_lag);
    RUN(pings_are_answered_whatever_is_dropped);
    RUN(who_sends_too_much_is_closed_with_1008);
    RUN(an_address_has_so_many_clients_and_no_more);
    RUN(a_proxy_header_belongs_to_the_head);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
