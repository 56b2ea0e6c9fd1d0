/* Clients that come back to a whole hub, while others publish: each hears each message once, in one order. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "heads.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    heads_come(&listener->peer, &world, shard, path, 0);
    struct said said = heads_hear(&listener->peer);
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
        struct said said = heads_hear(&listener->peer);
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
    heads_come(&plain, &world, 0, "/a", 0);
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
    heads_come(&pattern, &world, 0, "a.*?since=new", 0);
    heads_come(&both, &world, 0, "a.*,a.b,a.>?since=all", 0);
    heads_expect(&both, "at", 0, "");
    heads_expect(&both, "msg", 1, "1");
    say("a.b", "2");
    say("a.c", "plain"); /* of a pattern, without a head */
    say("a.b", "3");
    heads_expect(&both, "msg", 2, "2");
    peer_expect_text(&both, "plain");
    heads_expect(&both, "msg", 3, "3");
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
    heads_come(&talker, &world, 0, "/a?since=new", 0);
    heads_expect(&talker, "at", 0, "");
    peer_text(&talker, "mine");
    heads_expect(&talker, "msg", 1, "mine");
    heads_come(&listener, &world, 1, "/a?since=all", 0);
    heads_expect(&listener, "at", 0, "");
    heads_expect(&listener, "msg", 1, "mine");
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
    heads_come(&peer, &world, 0, "/a?since=new", 0);
    heads_expect(&peer, "at", 0, "");
    uint64_t id = world.ids[peer.number];
    CHECK_EQ(fc_hub_subscribe(world.hub, id, span("b")), 0);
    say("b", "2");
    heads_expect(&peer, "at", 1, "");
    heads_expect(&peer, "msg", 2, "2");
    CHECK_EQ(fc_hub_subscribe(world.hub, id, span("b")), 0); /* again: it's one already */
    say("b", "3");
    heads_expect(&peer, "msg", 3, "3");
    CHECK_EQ(fc_hub_count(world.hub, span("b"), &count), 0);
    CHECK_EQ(count, 1);
    struct fc_channel_stats stats;
    CHECK(fc_hub_read_channel(world.hub, span("b"), &stats));
    CHECK_EQ(stats.members, 1);
    CHECK_EQ(stats.sent, 2);
    CHECK_EQ(fc_hub_unsubscribe(world.hub, id, span("b")), 0);
    say("b", "4");
    say("/a", "5");
    heads_expect(&peer, "msg", 1, "5");
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
    heads_come(&leaver, &world, 0, "b?since=new", 0);
    heads_expect(&leaver, "at", 0, "");
    heads_come(&comer, &world, 0, "/a?since=new", 0);
    heads_expect(&comer, "at", 0, "");
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
    heads_expect(&comer, "at", 1, "");
    say("b", "2");
    heads_expect(&comer, "msg", 2, "2");
    peer_leave(&comer);
    peer_leave(&bait);
    world_close(&world, 0, 0);
}

static void a_subscription_comes_behind_what_patterns_owe(void)
{
    struct fc_options options = world_options();
    struct peer peer;

    options.keep_messages = 100;
    options.max_history = 1 << 20;
    options.flush_interval = 100;
    world_open(&world, &options);
    heads_come(&peer, &world, 0, "c.*?since=new", 0);
    say("c.0", "the interval begins");
    peer_expect_text(&peer, "the interval begins");
    say("c.0", "owed");
    CHECK_EQ(fc_hub_subscribe(world.hub, world.ids[peer.number], span("c.0")), 0);
    peer_expect_text(&peer, "owed");
    heads_expect(&peer, "at", 2, "");
    peer_leave(&peer);
    world_close(&world, 0, 0);
}

/* It's coming to the channel, for all that its record hears of it as well. */
static void a_subscription_on_its_way_is_counted_once(void)
{
    struct peer bait;
    struct peer peer;
    uint64_t reached;

    open_world(0);
    peer_join(&bait, &world, 0, "/bait");
    peer_join(&peer, &world, 0, "/a");
    fault_catch_sender();
    say("/bait", "caught");
    WAIT_UNTIL(fault_sender_is_caught());
    CHECK_EQ(fc_hub_subscribe(world.hub, world.ids[peer.number], span("b")), 0);
    CHECK_EQ(fc_hub_publish(world.hub, span("b"), true, span("1"), span(""), &reached), 0);
    CHECK_EQ(reached, 1);
    fault_let_go();
    peer_expect_text(&bait, "caught");
    peer_expect_text(&peer, "1");
    peer_leave(&peer);
    peer_leave(&bait);
    world_close(&world, 0, 0);
}

static void *look_for_expired(void *argument)
{
    while (!atomic_load((atomic_bool *)argument))
        fc_hub_expire(world.hub);
    return NULL;
}

static void histories_expire_while_they_are_led(void)
{
    const struct fc_position begin = {"abcdefabcdef", 0};
    const struct fc_stored first = {1, true, {"1", 1}};
    struct fc_options options = world_options();
    atomic_bool over = false;
    pthread_t thread;
    uint64_t random = 1;

    options.keep_messages = 100;
    options.keep_time = 1;
    options.max_history = 1 << 20;
    world_open(&world, &options);
    CHECK_EQ(pthread_create(&thread, NULL, look_for_expired, &over), 0);
    for (double until = check_now() + 1; check_now() < until;) {
        CHECK_EQ(fc_hub_lead_history(world.hub, span("/a"), &begin, &first, 1), 0);
        usleep(900 + (unsigned)(check_random(&random) % 400)); /* about when its time is over */
        fc_hub_release_history(world.hub, span("/a"));
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
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
    heads_come(&slow, &world, 0, "/a?since=all", 4096);
    say("/a", "live");
    heads_expect(&slow, "at", 0, "");
    for (unsigned i = 1; i <= MANY; i++) {
        struct said said = heads_hear(&slow);
        CHECK_EQ(said.offset, i);
        CHECK_EQ(said.length, BLOCK);
    }
    heads_expect(&slow, "msg", MANY + 1, "live");
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
    heads_come(&slow, &world, 0, "/a,b?since=all", 4096);
    WAIT_UNTIL(world_stats(&world).queued > 5);
    say("b", "1");
    say("b", "2");
    for (unsigned from_a = 0; from_a < MANY || from_b < 2;) {
        struct said said = heads_hear(&slow);
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
    heads_come(&slow, &world, 0, "/a?since=new", 4096);
    heads_expect(&slow, "at", 0, "");
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
    const struct fc_stored stored = {11, true, {"11", 2}};
    struct peer peer;
    struct peer plain;

    open_world(0);
    CHECK_EQ(record("/a", "x", 11, FC_RECORD), -EINVAL);
    heads_come(&plain, &world, 0, "/a", 0);
    CHECK_EQ(fc_hub_lead_history(world.hub, span("/a"), &begin, &stored, 1), 0);
    CHECK_EQ(fc_hub_lead_history(world.hub, span("a.*"), &begin, NULL, 0), -EINVAL);
    CHECK_EQ(fc_hub_lead_history(world.hub, span("/a"), &(struct fc_position){"abcdefabcdef", 11}, &stored, 1), -EINVAL);
    heads_come(&peer, &world, 1, "*,/a?since=abcdefabcdef:10", 0); /* of what it has by the one it hears nothing by the other */
    heads_expect(&peer, "at", 10, "");
    heads_expect(&peer, "msg", 11, "11");
    CHECK_EQ(record("/a", "11", 11, FC_RECORD), -EALREADY);
    CHECK_EQ(record("/a", "11", 11, FC_RECORD_OTHERS), 0);
    CHECK_EQ(record("/a", "15", 15, FC_RECORD), 0);
    say("/a", "alone");
    CHECK_EQ(fc_hub_skip_history(world.hub, span("/a"), 20), 0);
    CHECK_EQ(record("/a", "19", 19, FC_RECORD), -EALREADY);
    CHECK_EQ(record("/a", "21", 21, FC_RECORD), 0);
    heads_expect(&peer, "msg", 15, "15");
    heads_expect(&peer, "msg", 15, "alone");
    heads_expect(&peer, "gap", 20, "");
    heads_expect(&peer, "msg", 21, "21");
    peer_expect_text(&plain, "11");
    peer_expect_text(&plain, "15");
    peer_expect_text(&plain, "alone");
    peer_expect_text(&plain, "21");
    CHECK_EQ(fc_hub_forget_histories(world.hub), 0);
    say("/a", "own");
    CHECK_EQ(heads_hear(&peer).offset, 1);
    peer_expect_text(&plain, "own");
    fc_hub_release_history(world.hub, span("/a"));
    fc_hub_release_history(world.hub, span("/nobody's"));
    peer_leave(&peer);
    peer_leave(&plain);
    world_close(&world, 0, 0);
}

/* Who comes meanwhile has all of it, or is told that the epoch is another. */
static void what_is_stored_is_there_at_once(void)
{
    enum { ROUNDS = 60, STORED = 200 };
    const struct fc_position begin = {"abcdefabcdef", 10};
    struct fc_stored stored[STORED];
    struct peer peer;

    for (unsigned i = 0; i < STORED; i++)
        stored[i] = (struct fc_stored){11 + i, i % 2, {"stored", 6}};
    for (unsigned round = 0; round < ROUNDS; round++) {
        open_world(0);
        fc_hub_reset_event(world.hub);
        peer_connect(&peer, &world, 0, 0);
        peer_ask(&peer, "/a?since=abcdefabcdef:10");
        CHECK_EQ(poll(&(struct pollfd){fc_hub_event_fd(world.hub), POLLIN, 0}, 1, CHECK_PATIENCE_S * 1000), 1);
        world_answer(&world);
        usleep(5 * round);
        CHECK_EQ(fc_hub_lead_history(world.hub, span("/a"), &begin, stored, STORED), 0);
        CHECK_EQ(record("/a", "live", 11 + STORED, FC_RECORD), 0);
        peer_enter(&peer, &world);
        struct said said = heads_hear(&peer);
        if (!memcmp(said.position, begin.epoch, FC_EPOCH_SIZE)) {
            CHECK_EQ(said.offset, 10);
            for (unsigned i = 0; i < STORED; i++)
                heads_expect(&peer, "msg", 11 + i, "stored");
        } else {
            CHECK_BYTES(said.what, strlen(said.what), "gap", 3);
        }
        heads_expect(&peer, "msg", 11 + STORED, "live");
        peer_leave(&peer);
        world_close(&world, 0, 0);
    }
}

static void run_all(void)
{
    RUN(who_comes_back_hears_each_message_once);
    RUN(patterns_bring_nothing_twice);
    RUN(what_clients_say_is_kept);
    RUN(a_subscription_begins_where_it_was_asked_for);
    RUN(who_comes_to_a_room_just_left_has_lost_nothing);
    RUN(a_subscription_comes_behind_what_patterns_owe);
    RUN(a_subscription_on_its_way_is_counted_once);
    RUN(histories_expire_while_they_are_led);
    RUN(a_long_replay_is_no_lag);
    RUN(a_replay_takes_no_room_from_other_channels);
    RUN(who_lags_is_closed_rather_than_left_with_a_hole);
    RUN(offsets_may_come_from_outside);
    RUN(what_is_stored_is_there_at_once);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
