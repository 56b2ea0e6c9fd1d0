/* Clients that come back to a whole hub, while others publish: each hears each message once, in one order. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TALKERS = 3, SAYINGS = 1500, LAST = TALKERS * SAYINGS, LISTENERS = 6 };

static struct world world;

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

static void open_world(size_t max_queue)
{
    struct fc_options options = world_options();

    options.policy = FC_POLICY_DROP_OLDEST;
    options.keep_messages = 100000;
    options.max_history = 64 << 20;
    if (max_queue)
        options.max_queue = max_queue;
    world_open(&world, &options);
}

static void publish(const char *channel, const void *bytes, size_t n)
{
    uint64_t reached;
    int error;

    WAIT_UNTIL((error = fc_hub_publish(world.hub, span(channel), true, (struct fc_span){bytes, n}, span(""), &reached)) !=
               -EAGAIN);
    CHECK_EQ(error, 0);
}

static void say(const char *channel, const char *text)
{
    publish(channel, text, strlen(text));
}

struct said {
    char what[4];
    char position[FC_EPOCH_SIZE + 24];
    uint64_t offset;
    char text[64];
    size_t length; /* of the payload, which may be longer than the text */
};

static struct said hear(struct peer *peer)
{
    struct frame frame = peer_receive(peer);
    struct said said = {0};
    const char *line = (const char *)frame.payload;

    CHECK_EQ(frame.opcode, FC_OP_TEXT);
    CHECK_EQ(line[0], 0x1E);
    const char *text = (const char *)memchr(line, '\n', frame.length) + 1;
    char head[128] = {0};
    CHECK((size_t)(text - line) < sizeof head);
    memcpy(head, line + 1, (size_t)(text - line) - 1);
    CHECK_EQ(sscanf(head, "%3s %36s", said.what, said.position), 2);
    said.offset = strtoull(said.position + FC_EPOCH_SIZE + 1, NULL, 10);
    said.length = frame.length - (size_t)(text - line);
    memcpy(said.text, text, said.length < sizeof said.text ? said.length : sizeof said.text - 1);
    return said;
}

static void expect(struct peer *peer, const char *what, uint64_t offset, const char *text)
{
    struct said said = hear(peer);

    CHECK_BYTES(said.what, strlen(said.what), what, strlen(what));
    CHECK_EQ(said.offset, offset);
    CHECK_BYTES(said.text, said.length, text, strlen(text));
}

static void come(struct peer *peer, unsigned shard, const char *path, int receive_buffer)
{
    peer_connect(peer, &world, shard, receive_buffer);
    peer_ask(peer, path);
    peer_enter(peer, &world);
}

/* ---- everybody at once ---- */

struct listener {
    struct peer peer;
    bool is_here;
    char position[FC_EPOCH_SIZE + 24];
    uint64_t last;
};

static struct listener listeners[LISTENERS];
static char order[LAST + 1][16]; /* by offset, as the first one who heard it has it */

static void *talk(void *argument)
{
    uintptr_t talker = (uintptr_t)argument;
    char text[16];

    for (unsigned i = 0; i < SAYINGS; i++) {
        snprintf(text, sizeof text, "%u %u", (unsigned)talker, i);
        say("/a", text);
    }
    return NULL;
}

static void arrive(struct listener *listener, unsigned shard)
{
    char path[64];

    snprintf(path, sizeof path, "/a?since=%s", listener->position[0] ? listener->position : "new");
    come(&listener->peer, shard, path, 0);
    struct said said = hear(&listener->peer);
    CHECK_EQ(said.what[0], 'a');
    if (listener->position[0])
        CHECK_EQ(said.offset, listener->last);
    listener->last = said.offset;
    memcpy(listener->position, said.position, sizeof listener->position);
    listener->is_here = true;
}

static void listen_for_a_while(struct listener *listener, unsigned messages)
{
    while (messages-- > 0 && listener->last < LAST) {
        struct said said = hear(&listener->peer);
        CHECK_EQ(said.what[0], 'm');
        CHECK_EQ(said.offset, ++listener->last);
        memcpy(listener->position, said.position, sizeof listener->position);
        if (!order[said.offset][0])
            memcpy(order[said.offset], said.text, sizeof order[0]);
        CHECK_BYTES(said.text, strlen(said.text), order[said.offset], strlen(order[said.offset]));
    }
}

static void who_comes_back_hears_each_message_once(void)
{
    pthread_t talkers[TALKERS];
    static uint64_t random = 5; /* each backend has its own */
    unsigned done = 0;
    struct peer plain;

    open_world(0);
    memset(listeners, 0, sizeof listeners);
    memset(order, 0, sizeof order);
    come(&plain, 0, "/a", 0);
    arrive(&listeners[0], 1);
    for (uintptr_t i = 0; i < TALKERS; i++)
        CHECK_EQ(pthread_create(&talkers[i], NULL, talk, (void *)i), 0);
    while (done < LISTENERS) {
        done = 0;
        for (unsigned i = 0; i < LISTENERS; i++) {
            struct listener *listener = &listeners[i];
            if (!listener->is_here)
                arrive(listener, (unsigned)check_random(&random) % 2);
            listen_for_a_while(listener, (unsigned)(check_random(&random) % 100));
            done += listener->last == LAST;
            if (check_random(&random) % 2) {
                peer_reset(&listener->peer);
                listener->is_here = false;
            }
        }
    }
    for (unsigned i = 0; i < TALKERS; i++)
        pthread_join(talkers[i], NULL);
    for (unsigned offset = 1; offset <= LAST; offset++)
        peer_expect_text(&plain, order[offset]);
    for (unsigned i = 0; i < LISTENERS; i++) {
        if (listeners[i].is_here)
            peer_close(&listeners[i].peer);
    }
    peer_close(&plain);
    CHECK_EQ(world_stats(&world).gaps, 0);
    world_close(&world, 0, 0);
}

/* ---- one thing at a time ---- */

static void patterns_bring_nothing_twice(void)
{
    struct peer both;
    struct peer pattern;

    open_world(0);
    say("a.b", "1");
    come(&pattern, 0, "a.*?since=new", 0);
    come(&both, 0, "a.*,a.b,a.>?since=all", 0);
    expect(&both, "at", 0, "");
    expect(&both, "msg", 1, "1");
    say("a.b", "2");
    say("a.c", "plain"); /* of a pattern, without a head */
    say("a.b", "3");
    expect(&both, "msg", 2, "2");
    peer_expect_text(&both, "plain");
    expect(&both, "msg", 3, "3");
    peer_expect_text(&pattern, "2");
    peer_expect_text(&pattern, "plain");
    peer_expect_text(&pattern, "3");
    peer_leave(&both);
    peer_leave(&pattern);
    world_close(&world, 0, 0);
}

static void what_clients_say_is_kept(void)
{
    struct peer talker;
    struct peer listener;

    open_world(0);
    come(&talker, 0, "/a?since=new", 0);
    expect(&talker, "at", 0, "");
    peer_text(&talker, "mine");
    expect(&talker, "msg", 1, "mine");
    come(&listener, 1, "/a?since=all", 0);
    expect(&listener, "at", 0, "");
    expect(&listener, "msg", 1, "mine");
    peer_leave(&talker);
    peer_leave(&listener);
    world_close(&world, 0, 0);
}

static void a_subscription_begins_where_it_was_asked_for(void)
{
    struct peer peer;
    uint64_t count;

    open_world(0);
    say("b", "1");
    come(&peer, 0, "/a?since=new", 0);
    expect(&peer, "at", 0, "");
    uint64_t id = world.ids[peer.number];
    CHECK_EQ(fc_hub_subscribe(world.hub, id, span("b")), 0);
    say("b", "2");
    expect(&peer, "at", 1, "");
    expect(&peer, "msg", 2, "2");
    CHECK_EQ(fc_hub_subscribe(world.hub, id, span("b")), 0); /* again: it's one already */
    say("b", "3");
    expect(&peer, "msg", 3, "3");
    CHECK_EQ(fc_hub_count(world.hub, span("b"), &count), 0);
    CHECK_EQ(count, 1);
    struct fc_channel_stats stats;
    CHECK(fc_hub_read_channel(world.hub, span("b"), &stats));
    CHECK_EQ(stats.members, 1);
    CHECK_EQ(stats.sent, 2);
    CHECK_EQ(fc_hub_unsubscribe(world.hub, id, span("b")), 0);
    say("b", "4");
    say("/a", "5");
    expect(&peer, "msg", 1, "5");
    WAIT_UNTIL(fc_hub_count(world.hub, span("b"), &count) == 0 && count == 0);
    peer_leave(&peer);
    world_close(&world, 0, 0);
}

/* The room has a message for nobody when the shard comes to it, and a subscription waits that begins behind it. */
static void who_comes_to_a_room_just_left_has_lost_nothing(void)
{
    struct fc_options options = world_options();
    struct peer bait;
    struct peer leaver;
    struct peer comer;

    options.keep_messages = 100;
    options.max_history = 1 << 20;
    options.flush_interval = 200; /* time enough to leave before the message is written */
    world_open(&world, &options);
    peer_join(&bait, &world, 0, "/bait");
    come(&leaver, 0, "b?since=new", 0);
    expect(&leaver, "at", 0, "");
    come(&comer, 0, "/a?since=new", 0);
    expect(&comer, "at", 0, "");
    say("/bait", "the interval begins");
    peer_expect_text(&bait, "the interval begins");

    fault_catch_sender();
    say("/bait", "caught");
    say("b", "1");
    peer_close(&leaver);
    WAIT_UNTIL(fault_sender_is_caught());
    CHECK_EQ(fc_hub_subscribe(world.hub, world.ids[comer.number], span("b")), 0);
    fault_let_go();
    peer_expect_text(&bait, "caught");
    expect(&comer, "at", 1, "");
    say("b", "2");
    expect(&comer, "msg", 2, "2");
    peer_leave(&comer);
    peer_leave(&bait);
    world_close(&world, 0, 0);
}

static void a_long_replay_is_no_lag(void)
{
    enum { BLOCK = 20000, MANY = 300 };
    static char block[BLOCK];
    struct peer slow;

    open_world(100000);
    memset(block, 'x', BLOCK);
    for (unsigned i = 0; i < MANY; i++)
        publish("/a", block, BLOCK);
    come(&slow, 0, "/a?since=all", 4096);
    say("/a", "live");
    expect(&slow, "at", 0, "");
    for (unsigned i = 1; i <= MANY; i++) {
        struct said said = hear(&slow);
        CHECK_EQ(said.offset, i);
        CHECK_EQ(said.length, BLOCK);
    }
    expect(&slow, "msg", MANY + 1, "live");
    CHECK_EQ(world_stats(&world).slow, 0);
    CHECK(world_stats(&world).replayed >= MANY); /* "live" may have been, too */
    peer_leave(&slow);
    world_close(&world, 0, 0);
}

static void a_replay_takes_no_room_from_other_channels(void)
{
    enum { BLOCK = 20000, MANY = 300 };
    static char block[BLOCK];
    struct fc_options options = world_options();
    struct peer slow;
    unsigned from_b = 0;

    options.policy = FC_POLICY_DROP_NEWEST;
    options.keep_messages = 100000;
    options.max_history = 64 << 20;
    options.max_messages = 3;
    options.max_queue = BLOCK;
    world_open(&world, &options);
    memset(block, 'x', BLOCK);
    for (unsigned i = 0; i < MANY; i++)
        publish("/a", block, BLOCK);
    come(&slow, 0, "/a,b?since=all", 4096);
    WAIT_UNTIL(world_stats(&world).queued > 5);
    say("b", "1");
    say("b", "2");
    for (unsigned from_a = 0; from_a < MANY || from_b < 2;) {
        struct said said = hear(&slow);
        from_a += said.length == BLOCK;
        from_b += said.length == 1;
    }
    CHECK_EQ(world_stats(&world).dropped, 0);
    peer_leave(&slow);
    world_close(&world, 0, 0);
}

static void who_lags_is_closed_rather_than_left_with_a_hole(void)
{
    enum { BLOCK = 20000 };
    static char block[BLOCK];
    struct peer slow;
    struct frame frame;
    uint64_t heard = 0;

    open_world(100000);
    memset(block, 'x', BLOCK);
    come(&slow, 0, "/a?since=new", 4096);
    expect(&slow, "at", 0, "");
    while (world_stats(&world).slow == 0)
        publish("/a", block, BLOCK);
    while ((frame = peer_receive(&slow)).opcode == FC_OP_TEXT)
        heard++;
    CHECK_EQ(frame.opcode, FC_OP_CLOSE);
    CHECK_EQ(frame.payload[0] << 8 | frame.payload[1], 1008);
    CHECK(heard > 0);
    CHECK_EQ(world_stats(&world).dropped, 0);
    peer_close(&slow);
    world_close(&world, 0, 0);
}

static int record(const char *channel, const char *text, uint64_t offset, enum fc_recording recording)
{
    uint64_t reached;

    return fc_hub_record(world.hub, span(channel), true, span(text), span(""), offset, recording, &reached);
}

static void offsets_may_come_from_outside(void)
{
    const struct fc_position begin = {"abcdefabcdef", 10};
    struct peer peer;
    struct peer plain;

    open_world(0);
    CHECK_EQ(record("/a", "x", 11, FC_RECORD), -EINVAL);
    CHECK_EQ(fc_hub_lead_history(world.hub, span("/a"), &begin), 0);
    CHECK_EQ(fc_hub_lead_history(world.hub, span("a.*"), &begin), -EINVAL);
    come(&plain, 0, "/a", 0);
    CHECK_EQ(record("/a", "11", 11, FC_RECORD_KEEP), 0);
    come(&peer, 1, "*,/a?since=abcdefabcdef:10", 0); /* of what it has by the one it hears nothing by the other */
    expect(&peer, "at", 10, "");
    expect(&peer, "msg", 11, "11");
    CHECK_EQ(record("/a", "11", 11, FC_RECORD), -EALREADY);
    CHECK_EQ(record("/a", "11", 11, FC_RECORD_OTHERS), 0);
    CHECK_EQ(record("/a", "15", 15, FC_RECORD), 0);
    say("/a", "alone");
    CHECK_EQ(fc_hub_skip_history(world.hub, span("/a"), 20), 0);
    CHECK_EQ(record("/a", "19", 19, FC_RECORD), -EALREADY);
    CHECK_EQ(record("/a", "21", 21, FC_RECORD), 0);
    expect(&peer, "msg", 15, "15");
    expect(&peer, "msg", 15, "alone");
    expect(&peer, "gap", 20, "");
    expect(&peer, "msg", 21, "21");
    peer_expect_text(&plain, "11");
    peer_expect_text(&plain, "15");
    peer_expect_text(&plain, "alone");
    peer_expect_text(&plain, "21");
    CHECK_EQ(fc_hub_forget_histories(world.hub), 0);
    say("/a", "own");
    CHECK_EQ(hear(&peer).offset, 1);
    peer_expect_text(&plain, "own");
    fc_hub_release_history(world.hub, span("/a"));
    fc_hub_release_history(world.hub, span("/nobody's"));
    peer_leave(&peer);
    peer_leave(&plain);
    world_close(&world, 0, 0);
}

static void run_all(void)
{
    RUN(who_comes_back_hears_each_message_once);
    RUN(patterns_bring_nothing_twice);
    RUN(what_clients_say_is_kept);
    RUN(a_subscription_begins_where_it_was_asked_for);
    RUN(who_comes_to_a_room_just_left_has_lost_nothing);
    RUN(a_long_replay_is_no_lag);
    RUN(a_replay_takes_no_room_from_other_channels);
    RUN(who_lags_is_closed_rather_than_left_with_a_hole);
    RUN(offsets_may_come_from_outside);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
