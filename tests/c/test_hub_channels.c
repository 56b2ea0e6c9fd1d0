/* Clients with several channels, patterns, what is for one client alone or for all, and what Python hears of it. */
#include "check.h"
#include "ears.h"
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

static uint64_t publish(const char *channel, const char *text)
{
    uint64_t reached;

    CHECK_EQ(fc_hub_publish(world.hub, span(channel), true, span(text), span(""), &reached), 0);
    return reached;
}

static uint64_t broadcast(const char *text)
{
    uint64_t reached;

    CHECK_EQ(fc_hub_broadcast(world.hub, true, span(text), &reached), 0);
    return reached;
}

static uint64_t id_of(const struct peer *peer)
{
    return world.ids[peer->number];
}

static void subscribe(const struct peer *peer, const char *channel)
{
    CHECK_EQ(fc_hub_subscribe(world.hub, id_of(peer), span(channel)), 0);
}

static void unsubscribe(const struct peer *peer, const char *channel)
{
    CHECK_EQ(fc_hub_unsubscribe(world.hub, id_of(peer), span(channel)), 0);
}

static void send_to(const struct peer *peer, const char *text)
{
    CHECK_EQ(fc_hub_send(world.hub, id_of(peer), true, span(text)), 0);
}

static uint64_t count(const char *channel)
{
    uint64_t members;

    CHECK_EQ(fc_hub_count(world.hub, span(channel), &members), 0);
    return members;
}

static struct fc_options options_with_events(void)
{
    struct fc_options options = world_options();

    options.closes = true;
    options.presence = true;
    options.remotes = true;
    return options;
}

static void open_world(void)
{
    struct fc_options options = world_options();

    world_open(&world, &options);
}

/* ---- several channels ---- */

static void a_client_hears_all_channels_that_it_was_accepted_to(void)
{
    struct peer both;
    struct peer one;

    open_world();
    peer_join(&both, &world, 0, "/a,/b");
    peer_join(&one, &world, 1, "/b");
    CHECK_EQ(publish("/a", "to a"), 1);
    CHECK_EQ(publish("/b", "to b"), 2);
    CHECK_EQ(publish("/c", "to nobody"), 0);
    peer_expect_text(&both, "to a");
    peer_expect_text(&both, "to b");
    peer_expect_text(&one, "to b");
    peer_text(&both, "home"); /* its first */
    peer_expect_text(&both, "home");
    CHECK_EQ(publish("/b", "last"), 2);
    peer_expect_text(&one, "last");
    peer_expect_text(&both, "last");
    peer_leave(&both);
    peer_leave(&one);
    CHECK_EQ(world_close(&world, 0, 0).delivered, 6);
}

static void subscriptions_come_and_go(void)
{
    struct peer peer;

    open_world();
    peer_join(&peer, &world, 0, "/home");
    for (unsigned round = 0; round < 200; round++) {
        subscribe(&peer, "x");
        subscribe(&peer, "x"); /* twice is once */
        subscribe(&peer, "y");
        send_to(&peer, "subscribed");
        peer_expect_text(&peer, "subscribed");
        CHECK_EQ(count("x"), 1);
        CHECK_EQ(publish("x", "1"), 1);
        CHECK_EQ(publish("y", "2"), 1);
        peer_expect_text(&peer, "1");
        peer_expect_text(&peer, "2");
        unsubscribe(&peer, "x");
        unsubscribe(&peer, "y");
        unsubscribe(&peer, "y");
        unsubscribe(&peer, "never was");
        send_to(&peer, "unsubscribed");
        peer_expect_text(&peer, "unsubscribed");
        CHECK_EQ(publish("x", "3"), 0);
    }
    unsubscribe(&peer, "/home"); /* where its own messages go all the same */
    peer_text(&peer, "to those who are still there");
    send_to(&peer, "end");
    peer_expect_text(&peer, "end");
    peer_leave(&peer);
    world_close(&world, 0, 0);
}

/* However publishing and subscribing fall into a shard's rounds. */
static void a_subscription_begins_and_ends_exactly(void)
{
    struct peer peer;
    struct peer other;
    char text[32];

    open_world();
    peer_join(&peer, &world, 0, "/home");
    peer_join(&other, &world, 1, "x"); /* nobody but the peer keeps its shard in the audience */
    for (unsigned round = 0; round < 300; round++) {
        snprintf(text, sizeof text, "%u", round);
        publish("x", "before");
        subscribe(&peer, "x");
        publish("x", text);
        unsubscribe(&peer, "x");
        publish("x", "between");
        subscribe(&peer, "x");
        publish("x", text);
        unsubscribe(&peer, "x");
        publish("x", "after");
    }
    send_to(&peer, "end");
    for (unsigned round = 0; round < 300; round++) {
        snprintf(text, sizeof text, "%u", round);
        for (unsigned i = 0; i < 5; i++)
            peer_expect_text(&other, i % 2 ? text : i == 0 ? "before" : i == 2 ? "between" : "after");
    }
    for (unsigned round = 0; round < 300; round++) {
        snprintf(text, sizeof text, "%u", round);
        peer_expect_text(&peer, text);
        peer_expect_text(&peer, text);
    }
    peer_expect_text(&peer, "end");
    peer_leave(&peer);
    peer_leave(&other);
    world_close(&world, 0, 0);
}

static void a_thousand_channels_are_fine_for_one_client(void)
{
    enum { CHANNELS = 1000 };
    struct peer peers[2];
    char name[32];

    open_world();
    for (unsigned i = 0; i < 2; i++) {
        peer_join(&peers[i], &world, 0, "/home");
        for (unsigned k = 0; k < CHANNELS; k++) {
            snprintf(name, sizeof name, "c.%u", k);
            subscribe(&peers[i], name);
        }
        send_to(&peers[i], "ready");
        peer_expect_text(&peers[i], "ready");
    }
    for (unsigned k = 0; k < CHANNELS; k++) {
        snprintf(name, sizeof name, "c.%u", k);
        CHECK_EQ(publish(name, name), 2);
        for (unsigned i = 0; i < 2; i++)
            peer_expect_text(&peers[i], name);
    }
    struct fc_hub_stats stats;
    fc_hub_read_stats(world.hub, &stats);
    CHECK_EQ(stats.channels, CHANNELS + 1);
    peer_leave(&peers[0]);
    CHECK_EQ(publish("c.7", "one left"), 1);
    peer_expect_text(&peers[1], "one left");
    peer_leave(&peers[1]);
    world_close(&world, 0, 0);
}

/* ---- patterns ---- */

static void patterns_hear_what_they_take_in(void)
{
    struct peer star;
    struct peer rest;
    struct peer exact;

    open_world();
    peer_join(&star, &world, 0, "prices.*");
    peer_join(&rest, &world, 1, "prices.>");
    peer_join(&exact, &world, 0, "prices.eur");
    CHECK_EQ(publish("prices.eur", "1"), 3);
    CHECK_EQ(publish("prices.eur.usd", "2"), 1);
    CHECK_EQ(publish("prices", "3"), 0);
    CHECK_EQ(publish("prices.chf", "4"), 2);
    peer_expect_text(&exact, "1");
    peer_expect_text(&star, "1");
    peer_expect_text(&star, "4");
    peer_expect_text(&rest, "1");
    peer_expect_text(&rest, "2");
    peer_expect_text(&rest, "4");
    peer_text(&exact, "said"); /* relayed to the patterns, too */
    peer_expect_text(&exact, "said");
    peer_expect_text(&star, "said");
    peer_expect_text(&rest, "said");
    peer_text(&star, "nowhere to go");
    WAIT_UNTIL(world_stats(&world).ignored == 1);
    peer_leave(&star);
    peer_leave(&rest);
    peer_leave(&exact);
    CHECK_EQ(world_close(&world, 0, 0).delivered, 9);
}

static void a_client_of_several_that_match_hears_a_message_once(void)
{
    struct peer peer;
    struct peer plain;
    char text[16];

    open_world();
    peer_join(&peer, &world, 0, "a.b,a.*,*.b,a.>,>,unrelated");
    peer_join(&plain, &world, 0, "a.*");
    for (unsigned i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "%u", i);
        CHECK(publish(i % 3 ? "a.b" : "a.c", text) >= 3);
    }
    for (unsigned i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "%u", i);
        peer_expect_text(&peer, text);
        peer_expect_text(&plain, text);
    }
    uint64_t *ids;
    size_t n;
    CHECK_EQ(fc_hub_members(world.hub, span("a.b"), &ids, &n), 0);
    CHECK_EQ(n, 2);
    free(ids);
    peer_leave(&peer);
    peer_leave(&plain);
    CHECK_EQ(world_close(&world, 0, 0).delivered, 1000);
}

static void names_that_are_none_are_refused(void)
{
    uint64_t reached;
    char longest[1025];

    open_world();
    memset(longest, 'x', sizeof longest);
    struct fc_span bad[] = {span(""), span("a.*"), span(">"), span("a.>.b"), {longest, 1025}};
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(fc_hub_publish(world.hub, bad[i], true, span("x"), span(""), &reached), -EINVAL);
    CHECK_EQ(fc_hub_subscribe(world.hub, 0, span("")), -EINVAL);
    CHECK_EQ(fc_hub_subscribe(world.hub, 0, span("a.>.b")), -EINVAL);
    CHECK_EQ(fc_hub_subscribe(world.hub, 0, bad[4]), -EINVAL);
    CHECK_EQ(fc_hub_unsubscribe(world.hub, 0, span("")), -EINVAL);
    CHECK_EQ(fc_hub_close(world.hub, 0, 1005, span("")), -EINVAL);
    CHECK_EQ(fc_hub_close(world.hub, 0, 1000, (struct fc_span){longest, 124}), -EINVAL);
    CHECK_EQ(fc_hub_publish(world.hub, (struct fc_span){longest, 1024}, true, span("x"), span(""), &reached), 0);
    CHECK_EQ(fc_hub_subscribe(world.hub, UINT64_MAX, span("a")), 0); /* nobody */
    CHECK_EQ(fc_hub_send(world.hub, UINT64_MAX, true, span("a")), 0);
    CHECK_EQ(fc_hub_close(world.hub, UINT64_MAX, 1000, span("")), 0);
    world_close(&world, 0, 0);
}

/* ---- one, and all ---- */

static void a_broadcast_reaches_everyone_once(void)
{
    struct peer peers[4];

    open_world();
    CHECK_EQ(broadcast("nobody"), 0);
    peer_join(&peers[0], &world, 0, "/a,/b,/c");
    peer_join(&peers[1], &world, 0, "/a");
    peer_join(&peers[2], &world, 1, "/b");
    peer_join(&peers[3], &world, 1, "");
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(broadcast("everyone"), 4);
        for (unsigned k = 0; k < 4; k++)
            peer_expect_text(&peers[k], "everyone");
    }
    peer_leave(&peers[0]);
    CHECK_EQ(broadcast("those left"), 3);
    for (unsigned k = 1; k < 4; k++) {
        peer_expect_text(&peers[k], "those left");
        peer_leave(&peers[k]);
    }
    CHECK_EQ(world_close(&world, 0, 0).delivered, 403);
}

static void what_is_for_one_client_keeps_its_order_with_the_rest(void)
{
    struct peer peer;
    struct peer other;
    char text[16];

    open_world();
    peer_join(&peer, &world, 0, "/a");
    peer_join(&other, &world, 0, "/a");
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "%u", i);
        if (i % 4 == 1)
            send_to(&peer, text);
        else if (i % 4 == 3)
            broadcast(text);
        else
            publish("/a", text);
        if (i % 4 == 3) /* between channels and all there's no order: wait */
            for (unsigned k = i - 3; k <= i; k++) {
                snprintf(text, sizeof text, "%u", k);
                peer_expect_text(&peer, text);
                if (k % 4 != 1)
                    peer_expect_text(&other, text);
            }
    }
    peer_leave(&peer);
    peer_leave(&other);
    CHECK_EQ(world_close(&world, 0, 0).delivered, 1750);
}

static void a_client_is_closed_behind_what_it_was_sent(void)
{
    struct fc_options options = options_with_events();
    struct peer peer;

    world_open(&world, &options);
    peer_join(&peer, &world, 0, "/a");
    publish("/a", "1");
    send_to(&peer, "2");
    publish("/a", "3");
    CHECK_EQ(fc_hub_close(world.hub, id_of(&peer), 4001, span("enough")), 0);
    publish("/a", "4");
    send_to(&peer, "5");
    peer_expect_text(&peer, "1");
    peer_expect_text(&peer, "2");
    peer_expect_text(&peer, "3");
    peer_expect(&peer, FC_OP_CLOSE, "\x0F\xA1" "enough", 8);
    peer_send(&peer, true, FC_OP_CLOSE, "\x0F\xA1", 2);
    peer_expect_end(&peer);
    ears_expect(&world, FC_EVENT_JOINED, &peer, "/a");
    ears_expect(&world, FC_EVENT_LEFT, &peer, "/a");
    ears_expect_closed(&world, id_of(&peer), 4001, "enough");
    peer_close(&peer);
    ears_close(&world);
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.delivered, 3);
    CHECK_EQ(stats.gone, 1);
}

/* ---- what Python hears ---- */

static void python_hears_of_coming_and_going_in_order(void)
{
    struct fc_options options = options_with_events();
    struct peer peers[3];

    options.handled = true;
    world_open(&world, &options);
    peer_join(&peers[0], &world, 0, "/a,/b");
    ears_expect(&world, FC_EVENT_JOINED, &peers[0], "/a");
    ears_expect(&world, FC_EVENT_JOINED, &peers[0], "/b");
    peer_text(&peers[0], "words");
    peer_send(&peers[0], true, FC_OP_CLOSE, "\x03\xE8" "bye", 5);
    peer_expect_close(&peers[0], 1000);
    peer_expect_end(&peers[0]);
    struct told told = ears_event(&world);
    CHECK_EQ(told.event.kind, FC_EVENT_MESSAGE);
    CHECK_BYTES(told.bytes, told.event.bytes.length, "words", 5);
    CHECK(strcmp(told.channel, "/a") == 0);
    for (unsigned i = 0; i < 2; i++) {
        told = ears_event(&world);
        CHECK_EQ(told.event.kind, FC_EVENT_LEFT);
    }
    ears_expect_closed(&world, id_of(&peers[0]), 1000, "bye");
    peer_close(&peers[0]);

    peer_join(&peers[1], &world, 1, "");
    uint64_t id = id_of(&peers[1]);
    peer_reset(&peers[1]);
    ears_expect_closed(&world, id, 1006, "");

    peer_join(&peers[2], &world, 1, "");
    peer_send_bytes(&peers[2], "\xFF", 1);
    peer_expect_close(&peers[2], 1002);
    ears_expect_closed(&world, id_of(&peers[2]), 1002, "");
    peer_await_end(&peers[2]);
    peer_close(&peers[2]);
    ears_close(&world);
    world_close(&world, 0, 0);
}

static void every_accepted_client_has_an_end_also_if_it_never_came_in(void)
{
    struct fc_options options = options_with_events();
    struct fc_events *requests;
    struct peer peer;

    world_open(&world, &options);
    peer_connect(&peer, &world, 0, 0);
    peer_ask(&peer, "/a");
    WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
    uint64_t id = requests->events[0].client;
    CHECK(requests->events[0].remote.length >= 9 && !memcmp(requests->events[0].remote.bytes, "127.", 4));
    CHECK(requests->events[0].port > 0);
    fc_hub_release(world.hub, requests);
    peer_reset(&peer);
    struct fc_span channel = span("/a");
    struct fc_answer answer = {id, span(WORLD_ACCEPTED), true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0};
    CHECK_EQ(fc_hub_answer(world.hub, &answer, 1), 0);
    for (;;) { /* perhaps it came in for a moment, before the reset was seen */
        struct told told = ears_event(&world);
        if (told.event.kind != FC_EVENT_CLOSED)
            continue;
        CHECK_EQ(told.event.client, id);
        CHECK_EQ(told.event.code, 1006);
        break;
    }
    ears_close(&world);
    world_close(&world, 0, 0);
}

static void a_stop_tells_of_everyone(void)
{
    struct fc_options options = options_with_events();
    struct peer peers[20];

    options.presence = false;
    world_open(&world, &options);
    for (unsigned i = 0; i < 20; i++)
        peer_join(&peers[i], &world, i % 2, "/a");
    fc_hub_stop(world.hub, 10000);
    for (unsigned i = 0; i < 20; i++) {
        peer_expect_close(&peers[i], 1001);
        peer_send(&peers[i], true, FC_OP_CLOSE, "\x03\xE9", 2);
        peer_expect_end(&peers[i]);
        peer_close(&peers[i]);
    }
    for (unsigned i = 0; i < 20; i++) {
        struct told told = ears_event(&world);
        CHECK_EQ(told.event.kind, FC_EVENT_CLOSED);
        CHECK_EQ(told.event.code, 1001);
    }
    ears_close(&world);
    world_close(&world, 0, 0);
}

static void a_flush_is_told_by_every_shard_behind_what_was_published(void)
{
    enum { PEERS = 40, ROUNDS = 20 };
    struct peer peers[PEERS];

    open_world();
    for (unsigned i = 0; i < PEERS; i++)
        peer_join(&peers[i], &world, i % 2, i % 3 ? "/a" : "/a,/b");
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < 10; i++) {
            publish("/a", "a");
            publish("/b", "b");
        }
        CHECK_EQ(fc_hub_flush(world.hub, round), 0);
        for (unsigned i = 0; i < 2; i++) {
            struct told told = ears_reply(&world);
            CHECK_EQ(told.event.kind, FC_EVENT_FLUSHED);
            CHECK_EQ(told.event.client, round);
        }
        struct fc_shard_stats stats = world_stats(&world);
        CHECK_EQ(stats.delivered + stats.queued, round * 10 * (PEERS + 14));
    }
    ears_close(&world);
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(&peers[i]);
    world_close(&world, 0, 0);
}

/* More members than a slice serves: what comes due in a room whose turn is not over has to wait for its next one. */
static void a_flush_is_told_when_large_rooms_are_through(void)
{
    enum { PEERS = 1000, ROUNDS = 20 };
    static struct peer peers[PEERS];

    open_world();
    for (unsigned i = 0; i < PEERS; i++)
        peer_join(&peers[i], &world, 0, "/a");
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < 10; i++)
            CHECK_EQ(publish("/a", "a"), PEERS);
        CHECK_EQ(fc_hub_flush(world.hub, round), 0);
        for (unsigned i = 0; i < 2; i++)
            CHECK_EQ(ears_reply(&world).event.kind, FC_EVENT_FLUSHED);
        struct fc_shard_stats stats = world_stats(&world);
        CHECK_EQ(stats.delivered + stats.queued, round * 10 * PEERS);
    }
    ears_close(&world);
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(&peers[i]);
    world_close(&world, 0, 0);
}

static void a_client_can_be_looked_at(void)
{
    struct peer peer;
    struct fc_info info;

    open_world();
    peer_join(&peer, &world, 1, "/a,b.*");
    CHECK_EQ(fc_hub_inspect(world.hub, id_of(&peer), 77), 0);
    struct told told = ears_reply(&world);
    CHECK_EQ(told.event.kind, FC_EVENT_INFO);
    CHECK_EQ(told.event.number, 77);
    CHECK_EQ(told.event.client, id_of(&peer));
    memcpy(&info, told.bytes, sizeof info);
    CHECK(info.open && info.channels == 2 && info.queued == 0 && info.port > 0);
    CHECK(strncmp(info.remote, "127.", 4) == 0);
    CHECK_EQ(told.event.bytes.length, sizeof info + 2 * sizeof(uint32_t) + 5);
    uint64_t nobody[] = {id_of(&peer) ^ UINT64_C(1) << 24, UINT64_MAX};
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(fc_hub_inspect(world.hub, nobody[i], i), 0);
        told = ears_reply(&world);
        CHECK_EQ(told.event.kind, FC_EVENT_INFO);
        CHECK_EQ(told.event.number, i);
        CHECK_EQ(told.event.bytes.length, 0);
    }
    ears_close(&world);
    peer_leave(&peer);
    world_close(&world, 0, 0);
}

static void who_is_not_there_is_told_behind_its_end(void)
{
    struct fc_options options = options_with_events();
    struct peer peer;

    options.presence = false;
    world_open(&world, &options);
    peer_join(&peer, &world, 1, "/a");
    uint64_t id = id_of(&peer);
    CHECK_EQ(fc_hub_check(world.hub, id), 0); /* open: nothing is told */
    peer_reset(&peer);
    ears_expect_closed(&world, id, 1006, "");
    uint64_t nobody[] = {id, id ^ UINT64_C(1) << 24, UINT64_MAX};
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(fc_hub_check(world.hub, nobody[i]), 0);
        struct told told = ears_event(&world);
        CHECK_EQ(told.event.kind, FC_EVENT_MISSING);
        CHECK_EQ(told.event.client, nobody[i]);
    }
    ears_close(&world);
    world_close(&world, 0, 0);
}

static void run_all(void)
{
    RUN(a_client_hears_all_channels_that_it_was_accepted_to);
    RUN(subscriptions_come_and_go);
    RUN(a_subscription_begins_and_ends_exactly);
    RUN(a_thousand_channels_are_fine_for_one_client);
    RUN(patterns_hear_what_they_take_in);
    RUN(a_client_of_several_that_match_hears_a_message_once);
    RUN(names_that_are_none_are_refused);
    RUN(a_broadcast_reaches_everyone_once);
    RUN(what_is_for_one_client_keeps_its_order_with_the_rest);
    RUN(a_client_is_closed_behind_what_it_was_sent);
    RUN(python_hears_of_coming_and_going_in_order);
    RUN(every_accepted_client_has_an_end_also_if_it_never_came_in);
    RUN(a_stop_tells_of_everyone);
    RUN(a_flush_is_told_by_every_shard_behind_what_was_published);
    RUN(a_flush_is_told_when_large_rooms_are_through);
    RUN(a_client_can_be_looked_at);
    RUN(who_is_not_there_is_told_behind_its_end);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
