/* The whole core over loopback: who hears what and in which order, how connections begin and end. */
#include "check.h"
#include "frame.h"
#include "frames.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world;

static void open_world(void)
{
    struct fc_options options = world_options();

    world_open(&world, &options);
}

static void messages_reach_everyone_in_the_channel_and_nobody_else(void)
{
    struct peer here;
    struct peer there;
    struct peer elsewhere;

    open_world();
    peer_join(&here, &world, 0, "/a");
    peer_join(&there, &world, 1, "/a");
    peer_join(&elsewhere, &world, 1, "/b");
    peer_text(&here, "hello");
    peer_expect_text(&here, "hello");
    peer_expect_text(&there, "hello");
    peer_send(&there, false, FC_OP_BINARY, "in ", 3);
    peer_send(&there, true, FC_OP_PING, "amid", 4);
    peer_send(&there, true, FC_OP_CONTINUATION, "parts", 5);
    peer_expect(&there, FC_OP_PONG, "amid", 4);
    peer_expect(&there, FC_OP_BINARY, "in parts", 8);
    peer_expect(&here, FC_OP_BINARY, "in parts", 8);
    peer_text(&elsewhere, "alone");
    peer_expect_text(&elsewhere, "alone");
    peer_leave(&elsewhere);
    peer_leave(&here);
    peer_text(&there, "");
    peer_expect_text(&there, "");
    peer_leave(&there);

    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.opened, 3);
    CHECK_EQ(stats.received, 4);
    CHECK_EQ(stats.sent, 6);
    CHECK_EQ(stats.delivered, 6);
    CHECK_EQ(stats.violations, 0);
}

static void what_is_published_from_outside_reaches_all_shards(void)
{
    static char large[700000];
    struct peer peers[2];

    memset(large, 'L', sizeof large);
    open_world();
    CHECK_EQ(world_try_publish(&world, "/a", (struct fc_span){"early", 5}), 0);
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    world_publish(&world, "/a", true, "text", 4);
    world_publish(&world, "/b", true, "not here", 8);
    world_publish(&world, "/a", false, "\xFF\xFE", 2);
    world_publish(&world, "/a", false, large, sizeof large);
    world_publish(&world, "/a", true, "", 0);
    struct fc_span too_large = {large, FC_PAYLOAD_MAX + (size_t)1};
    CHECK_EQ(world_try_publish(&world, "/a", too_large), -EMSGSIZE);
    for (unsigned i = 0; i < 2; i++) {
        peer_expect_text(&peers[i], "text");
        peer_expect(&peers[i], FC_OP_BINARY, "\xFF\xFE", 2);
        peer_expect(&peers[i], FC_OP_BINARY, large, sizeof large);
        peer_expect_text(&peers[i], "");
        peer_leave(&peers[i]);
    }
    struct fc_hub_stats stats;
    fc_hub_read_stats(world.hub, &stats);
    CHECK_EQ(stats.published, 6);
    world_close(&world, 0, 0);
}

static void many_small_messages_of_one_read_arrive_complete(void)
{
    enum { MESSAGES = 3000 };
    struct frames frames = {0};
    struct peer peers[2];

    open_world();
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    for (uint32_t i = 0; i < MESSAGES; i++)
        frames_frame(&frames, true, FC_OP_BINARY, &i, sizeof i);
    peer_send_bytes(&peers[0], frames.bytes, frames.length);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        peer_expect(&peers[0], FC_OP_BINARY, &i, sizeof i);
        peer_expect(&peers[1], FC_OP_BINARY, &i, sizeof i);
    }
    frames_free(&frames);
    peer_leave(&peers[0]);
    peer_leave(&peers[1]);
    world_close(&world, 0, 0);
}

/* ---- order ---- */

enum { TALKERS = 6, SAYINGS = 300 };

static uint32_t heard[TALKERS][TALKERS * SAYINGS];

struct talker {
    struct peer peer;
    uint32_t index;
};

static void *talk_and_listen(void *argument)
{
    struct talker *talker = argument;

    for (uint32_t i = 0; i < SAYINGS; i++) {
        uint32_t number = talker->index * SAYINGS + i;
        peer_send(&talker->peer, true, FC_OP_BINARY, &number, sizeof number);
    }
    for (uint32_t i = 0; i < TALKERS * SAYINGS; i++) {
        struct frame frame = peer_receive(&talker->peer);
        CHECK_EQ(frame.length, sizeof(uint32_t));
        memcpy(&heard[talker->index][i], frame.payload, sizeof(uint32_t));
    }
    return NULL;
}

static void all_hear_all_talkers_in_one_order(void)
{
    static struct talker talkers[TALKERS];
    pthread_t threads[TALKERS];
    struct fc_options options = world_options();

    options.shards = 3;
    world_open(&world, &options);
    for (uint32_t i = 0; i < TALKERS; i++) {
        talkers[i].index = i;
        peer_join(&talkers[i].peer, &world, i % 3, "/a");
    }
    for (unsigned i = 0; i < TALKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, talk_and_listen, &talkers[i]), 0);
    for (unsigned i = 0; i < TALKERS; i++)
        pthread_join(threads[i], NULL);
    uint32_t next[TALKERS] = {0};
    for (uint32_t i = 0; i < TALKERS * SAYINGS; i++) {
        uint32_t talker = heard[0][i] / SAYINGS;
        CHECK_EQ(heard[0][i] % SAYINGS, next[talker]++);
    }
    for (unsigned i = 0; i < TALKERS; i++) {
        CHECK_BYTES(heard[i], sizeof heard[i], heard[0], sizeof heard[0]);
        peer_leave(&talkers[i].peer);
    }
    CHECK_EQ(world_close(&world, 0, 0).delivered, TALKERS * TALKERS * SAYINGS);
}

static void a_flush_interval_keeps_order_and_loses_nothing(void)
{
    struct fc_options options = world_options();
    struct peer peers[2];

    options.flush_interval = 20;
    world_open(&world, &options);
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    for (uint32_t i = 0; i < 500; i++)
        world_publish(&world, "/a", false, &i, sizeof i);
    for (uint32_t i = 0; i < 500; i++) {
        peer_expect(&peers[0], FC_OP_BINARY, &i, sizeof i);
        peer_expect(&peers[1], FC_OP_BINARY, &i, sizeof i);
    }
    peer_text(&peers[0], "last words"); /* who leaves isn't kept waiting, nor misses its own message */
    peer_send(&peers[0], true, FC_OP_CLOSE, "\x03\xE8", 2);
    peer_expect_text(&peers[0], "last words");
    peer_expect_close(&peers[0], 1000);
    peer_expect_end(&peers[0]);
    peer_close(&peers[0]);
    peer_expect_text(&peers[1], "last words");
    peer_leave(&peers[1]);
    world_close(&world, 0, 0);
}

/* ---- the beginning ---- */

static void a_head_in_any_pieces_with_frames_behind_it_opens(void)
{
    struct frames wire = {0};

    open_world();
    for (size_t split = 1; split < 70; split += split < 45 ? 4 : 1) {
        struct peer peer;
        char head[128];
        peer_connect(&peer, &world, 0, 0);
        int n = snprintf(head, sizeof head, "GET /a HTTP/1.1\r\nPeer: %u\r\n\r\n", peer.number);
        frames_add(&wire, head, (size_t)n);
        frames_text(&wire, "behind the head");
        frames_text(&wire, "too");
        size_t first = split < wire.length ? split : wire.length - 1;
        peer_send_bytes(&peer, wire.bytes, first);
        world_answer(&world);
        peer_send_bytes(&peer, wire.bytes + first, wire.length - first);
        peer_enter(&peer, &world);
        peer_expect_text(&peer, "behind the head");
        peer_expect_text(&peer, "too");
        peer_leave(&peer);
        frames_free(&wire);
    }
    world_close(&world, 0, 0);
}

static void a_refused_request_gets_its_response_and_the_end(void)
{
    struct peer peer;

    open_world();
    peer_connect(&peer, &world, 0, 0);
    peer_ask(&peer, "/refuse");
    WAIT_UNTIL((world_answer(&world), peer_has_news(&peer)));
    peer_expect_bytes(&peer, WORLD_REFUSED);
    peer_expect_end(&peer);
    peer_close(&peer);
    WAIT_UNTIL(world_stats(&world).connections == 0);
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.refused, 1);
    CHECK_EQ(stats.opened, 0);
}

static void a_head_that_is_too_large_is_refused_with_431(void)
{
    struct fc_options options = world_options();
    char large[400];

    options.max_head = 200;
    memset(large, 'a', sizeof large);
    memcpy(large, "GET /", 5);
    memcpy(large + sizeof large - 4, "\r\n\r\n", 4);
    world_open(&world, &options);
    for (size_t n = 201; n <= sizeof large; n += sizeof large - 201) { /* not complete; complete */
        struct peer peer;
        peer_connect(&peer, &world, 1, 0);
        peer_send_bytes(&peer, large, n);
        peer_expect_bytes(&peer, WORLD_TOO_LARGE);
        peer_expect_end(&peer);
        peer_close(&peer);
    }
    CHECK_EQ(world_close(&world, 5000, 0).requests, 0);
}

static void answers_to_those_who_are_gone_or_never_were_do_nothing(void)
{
    struct fc_options options = world_options();
    struct fc_events *requests;
    struct peer peer;

    options.handshake_timeout = 1000;
    world_open(&world, &options);
    struct pollfd news = {.fd = fc_hub_event_fd(world.hub), .events = POLLIN};
    peer_connect(&peer, &world, 0, 0);
    peer_ask(&peer, "/a");
    CHECK_EQ(poll(&news, 1, CHECK_PATIENCE_S * 1000), 1);
    requests = fc_hub_requests(world.hub);
    CHECK(requests && requests->count == 1);
    CHECK(!fc_hub_requests(world.hub));
    uint64_t id = requests->events[0].client;
    fc_hub_release(world.hub, requests);
    fc_hub_reset_event(world.hub);
    CHECK_EQ(poll(&news, 1, 0), 0);
    peer_reset(&peer);
    WAIT_UNTIL(world_stats(&world).closed == 1); /* nobody answers: it times out */

    struct fc_span response = {WORLD_ACCEPTED, strlen(WORLD_ACCEPTED)};
    struct fc_span channel = {"/a", 2};
    struct fc_span other = {"/b", 2};
    struct fc_answer answers[] = {
        {id, response, true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0},
        {id ^ UINT64_C(1) << 24, response, true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0}, /* another generation */
        {id + 5000, response, true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0},              /* a slot that never was */
        {UINT64_MAX, response, true, &channel, 1, {0}, FC_RESUME_OFF, NULL, 0},             /* a shard that isn't */
        {0, response, false, NULL, 0, {0}, FC_RESUME_OFF, NULL, 0},
    };
    CHECK_EQ(fc_hub_answer(world.hub, answers, 5), 0);
    CHECK_EQ(fc_hub_answer(world.hub, answers, 0), 0);
    peer_join(&peer, &world, 0, "/a"); /* behind those answers, perhaps in the same slot */
    CHECK(world.ids[peer.number] != id);
    CHECK_EQ(fc_hub_answer(world.hub, &(struct fc_answer){world.ids[peer.number], response, true, &other, 1, {0}, FC_RESUME_OFF, NULL, 0}, 1), 0);
    peer_text(&peer, "still in its channel");
    peer_expect_text(&peer, "still in its channel");
    peer_leave(&peer);
    CHECK_EQ(world_close(&world, 0, 0).opened, 1);
}

/* A client that has gone while Python decides is found out by the answer. */
static void an_answer_finds_that_its_client_has_gone(void)
{
    struct peer peers[2];

    open_world();
    for (unsigned i = 0; i < 2; i++) {
        peer_connect(&peers[i], &world, i, 0);
        peer_ask(&peers[i], "/a");
    }
    WAIT_UNTIL(world_stats(&world).asked == 2);
    peer_close(&peers[0]);
    peer_reset(&peers[1]);
    WAIT_UNTIL((world_answer(&world), world_stats(&world).connections == 0));
    world_close(&world, 0, 0);
}

/* ---- the end ---- */

static void a_close_is_echoed_behind_what_came_before_it(void)
{
    static const struct {
        const char *payload;
        size_t n;
        uint16_t answer;
    } cases[] = {{"\x03\xE8", 2, 1000}, {"", 0, FC_CLOSE_NO_STATUS}, {"\x0F\xA0" "a reason", 10, 4000}};
    struct peer listener;

    open_world();
    peer_join(&listener, &world, 1, "/a");
    for (unsigned i = 0; i < 3; i++) {
        struct peer peer;
        struct frames frames = {0};
        peer_join(&peer, &world, 0, "/a");
        frames_text(&frames, "last words");
        frames_frame(&frames, true, FC_OP_CLOSE, cases[i].payload, cases[i].n);
        frames_text(&frames, "too late");
        peer_send_bytes(&peer, frames.bytes, frames.length);
        frames_free(&frames);
        peer_expect_text(&peer, "last words");
        peer_expect_close(&peer, cases[i].answer);
        peer_expect_end(&peer);
        peer_close(&peer);
        peer_expect_text(&listener, "last words");
    }
    peer_leave(&listener);
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.received, 3);
    CHECK_EQ(stats.violations, 0);
}

static void an_error_of_the_client_is_answered_with_its_code(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        uint16_t code;
    } cases[] = {
        {"\xC1\x80", 2, 1002},                           /* RSV1 */
        {"\x81\x02hi", 4, 1002},                         /* not masked */
        {"\x81\x81\0\0\0\0\xFF", 7, 1007},               /* no text */
        {"\x82\xFF\0\0\0\0\x01\0\0\0\0\0\0\0", 14, 1009}, /* 16 MiB */
        {"\x88\x81\0\0\0\0\x03", 7, 1002},               /* half a close code */
    };

    open_world();
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peer peer;
        peer_join(&peer, &world, i % 2, "/a");
        peer_text(&peer, "before");
        peer_send_bytes(&peer, cases[i].bytes, cases[i].n);
        peer_expect_text(&peer, "before");
        peer_expect_close(&peer, cases[i].code);
        peer_expect_end(&peer);
        peer_close(&peer);
    }
    CHECK_EQ(world_close(&world, 5000, 0).violations, sizeof cases / sizeof *cases);
}

/* In every state: before the head, amid it, asked, open, amid a frame, amid a message. */
static void clients_that_vanish_leave_nothing(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool opens;
    } cases[] = {
        {"", 0, false},
        {"GET /", 5, false},
        {"", 0, true},
        {"\x81", 1, true},
        {"\x81\x8A\0\0\0\0half", 10, true},
        {"\x01\x84\0\0\0\0part", 10, true},
    };

    open_world();
    for (unsigned i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct peer peer;
        if (cases[i / 2].opens)
            peer_join(&peer, &world, i % 2, "/a");
        else
            peer_connect(&peer, &world, i % 2, 0);
        peer_send_bytes(&peer, cases[i / 2].bytes, cases[i / 2].n);
        WAIT_UNTIL(world_stats(&world).connections == 1);
        if (i % 2)
            peer_reset(&peer);
        else
            peer_close(&peer);
        WAIT_UNTIL(world_stats(&world).connections == 0);
    }
    world_close(&world, 0, 0);
}

/* ---- a handler ---- */

static void a_handler_gets_messages_instead_of_the_channel(void)
{
    struct fc_options options = world_options();
    struct fc_events *taken;
    struct peer peers[2];

    options.handled = true;
    world_open(&world, &options);
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    peer_text(&peers[0], "question");
    WAIT_UNTIL((taken = fc_hub_events(world.hub)));
    CHECK_EQ(taken->count, 1);
    CHECK_EQ(taken->events[0].client, world.ids[peers[0].number]);
    CHECK_BYTES(taken->events[0].bytes.bytes, taken->events[0].bytes.length, "question", 8);
    CHECK_BYTES(taken->events[0].channel.bytes, taken->events[0].channel.length, "/a", 2);
    CHECK(taken->events[0].text);
    fc_hub_release(world.hub, taken);
    world_publish(&world, "/a", true, "answer", 6);
    for (unsigned i = 0; i < 2; i++) {
        peer_expect_text(&peers[i], "answer");
        peer_leave(&peers[i]);
    }
    struct fc_shard_stats stats = world_close(&world, 0, 0);
    CHECK_EQ(stats.received, 1);
    CHECK_EQ(stats.sent, 2);
}

/* What comes right behind the head is told to the handler at once, however the rounds of the shard fall. */
static void a_handler_is_told_of_frames_behind_the_head(void)
{
    struct fc_options options = world_options();
    options.handled = true;
    world_open(&world, &options);
    for (unsigned i = 0; i < 200; i++) {
        struct frames request = {0};
        struct fc_events *taken;
        struct peer peer;
        char head[64];
        peer_connect(&peer, &world, 0, 0);
        int n = snprintf(head, sizeof head, "GET /a HTTP/1.1\r\nPeer: %u\r\n\r\n", peer.number);
        frames_add(&request, head, (size_t)n);
        frames_text(&request, "hello");
        peer_send_bytes(&peer, request.bytes, request.length);
        frames_free(&request);
        struct pollfd news = {.fd = fc_hub_event_fd(world.hub), .events = POLLIN};
        while (!(taken = fc_hub_events(world.hub))) {
            world_answer(&world); /* resets the event fd first */
            if ((taken = fc_hub_events(world.hub)))
                break;
            CHECK_EQ(poll(&news, 1, CHECK_PATIENCE_S * 1000), 1);
        }
        CHECK_BYTES(taken->events[0].bytes.bytes, taken->events[0].bytes.length, "hello", 5);
        fc_hub_release(world.hub, taken);
        peer_expect_bytes(&peer, WORLD_ACCEPTED);
        peer_leave(&peer);
    }
    world_close(&world, 0, 0);
}

/* Messages that nobody took hold their channel, whose clients have gone. */
static void messages_that_no_handler_took_end_with_the_hub(void)
{
    struct fc_options options = world_options();
    struct peer peer;

    options.handled = true;
    world_open(&world, &options);
    peer_join(&peer, &world, 0, "/a");
    peer_text(&peer, "for nobody");
    peer_leave(&peer);
    fc_hub_destroy(world.hub); /* the leak checks are the test */
    CHECK_EQ(world_count_fds(), world.fds_before);
}

static void run_all(void)
{
    RUN(messages_reach_everyone_in_the_channel_and_nobody_else);
    RUN(what_is_published_from_outside_reaches_all_shards);
    RUN(many_small_messages_of_one_read_arrive_complete);
    RUN(all_hear_all_talkers_in_one_order);
    RUN(a_flush_interval_keeps_order_and_loses_nothing);
    RUN(a_head_in_any_pieces_with_frames_behind_it_opens);
    RUN(a_refused_request_gets_its_response_and_the_end);
    RUN(a_head_that_is_too_large_is_refused_with_431);
    RUN(answers_to_those_who_are_gone_or_never_were_do_nothing);
    RUN(an_answer_finds_that_its_client_has_gone);
    RUN(a_close_is_echoed_behind_what_came_before_it);
    RUN(an_error_of_the_client_is_answered_with_its_code);
    RUN(clients_that_vanish_leave_nothing);
    RUN(a_handler_gets_messages_instead_of_the_channel);
    RUN(a_handler_is_told_of_frames_behind_the_head);
    RUN(messages_that_no_handler_took_end_with_the_hub);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
