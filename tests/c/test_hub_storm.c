/* When more connect than can be served: a bound on handshakes, the newest first, and those who waited too long not at
 * all. */
#include "check.h"
#include "exchange.h"
#include "peer.h"
#include "world.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { SHARDS = 8, SHARE = FC_ASKED_MAX / SHARDS, LATE = 5 };

static struct world world;
static struct peer early[SHARE];
static struct peer late[LATE];
static struct peer member;

/* Somebody's message goes through the shard's loop several times. */
static void pass_some_rounds(void)
{
    peer_text(&member, "goes on");
    peer_expect_text(&member, "goes on");
}

/* As many requests as the first shard may hand to Python, which doesn't answer; the next ones wait. */
static void open_busy_world(uint32_t handshake_timeout)
{
    struct fc_options options = world_options();

    options.shards = SHARDS;
    options.handshake_timeout = handshake_timeout;
    world_open(&world, &options);
    peer_join(&member, &world, 0, "/member");
    for (unsigned i = 0; i < SHARE; i++) {
        peer_connect(&early[i], &world, 0, 0);
        peer_ask(&early[i], "/early");
    }
    WAIT_UNTIL(world_stats(&world).asked == SHARE);
}

static void come_late(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char path[32];
        uint64_t before = world_stats(&world).accepted;
        snprintf(path, sizeof path, "/late/%u", i);
        peer_connect(&late[i], &world, 0, 0);
        peer_ask(&late[i], path);
        WAIT_UNTIL(world_stats(&world).accepted == before + 1);
        pass_some_rounds();
    }
    CHECK_EQ(world_stats(&world).asked, SHARE);
    CHECK_EQ(world_stats(&world).handshakes, SHARE + n);
}

static void close_all(struct peer *peers, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        peer_close(&peers[i]);
}

struct taken {
    char path[16];
    struct fc_answer answer; /* that it may come in */
};

/* Takes that many requests, no more and no fewer. */
static void take_requests(struct taken *taken, unsigned n)
{
    static const struct fc_span channel = {"/a", 2};

    for (unsigned i = 0; i < n;) {
        struct fc_events *requests;
        WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
        CHECK(requests->count <= n - i);
        for (size_t k = 0; k < requests->count; k++, i++) {
            char line[64];
            snprintf(line, sizeof line, "%.*s", (int)requests->events[k].bytes.length,
                     (const char *)requests->events[k].bytes.bytes);
            CHECK_EQ(sscanf(line, "GET %15s ", taken[i].path), 1);
            taken[i].answer = (struct fc_answer){.client = requests->events[k].client,
                                                 .response = {WORLD_ACCEPTED, strlen(WORLD_ACCEPTED)},
                                                 .accept = true,
                                                 .channels = &channel,
                                                 .channel_count = 1};
        }
        fc_hub_release(world.hub, requests);
    }
}

static void let_in(const struct taken *taken, unsigned n)
{
    struct fc_answer answers[SHARE];

    CHECK(n <= SHARE);
    for (unsigned i = 0; i < n; i++)
        answers[i] = taken[i].answer;
    CHECK_EQ(fc_hub_answer(world.hub, answers, n), 0);
}

static void the_newest_request_is_asked_first(void)
{
    static struct taken taken[SHARE];

    open_busy_world(60000);
    come_late(LATE);
    take_requests(taken, SHARE);
    let_in(taken, SHARE);
    take_requests(taken, LATE);
    for (unsigned i = 0; i < LATE; i++) {
        char path[16];
        int n = snprintf(path, sizeof path, "/late/%u", LATE - 1 - i);
        CHECK_BYTES(taken[i].path, strlen(taken[i].path), path, (size_t)n);
    }
    let_in(taken, LATE);
    for (unsigned i = 0; i < LATE; i++)
        peer_expect_bytes(&late[i], WORLD_ACCEPTED);
    CHECK_EQ(world_stats(&world).handshakes, 0);
    close_all(late, LATE);
    close_all(early, SHARE);
    peer_leave(&member);
    struct fc_shard_stats stats = world_close(&world, 5000, 0);
    CHECK_EQ(stats.opened, 1 + SHARE + LATE);
    CHECK_EQ(stats.shed, 0);
}

static void who_has_waited_too_long_gets_a_503(void)
{
    open_busy_world(500);
    come_late(LATE);
    for (unsigned i = 0; i < LATE; i++) {
        peer_expect_bytes(&late[i], WORLD_FULL);
        peer_expect_end(&late[i]); /* not a reset, though nobody has read its request */
    }
    CHECK_EQ(world_stats(&world).shed, LATE);
    CHECK_EQ(world_stats(&world).requests, 1 + SHARE);
    for (unsigned i = 0; i < SHARE; i++)
        peer_expect_bytes(&early[i], WORLD_FULL);
    CHECK_EQ(world_stats(&world).handshakes, 0);
    world_answer(&world); /* too late, and no harm */
    close_all(late, LATE);
    close_all(early, SHARE);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).shed, LATE);
}

static void who_gives_up_while_waiting_is_not_asked_about(void)
{
    open_busy_world(60000);
    come_late(LATE);
    double began = check_now();
    WAIT_UNTIL(check_now() - began > 1.2); /* hanging up at once may be a habit: of those who only read */
    for (unsigned i = 1; i < LATE; i++)
        peer_close(&late[i]);
    WAIT_UNTIL(world_stats(&world).shed == LATE - 1);
    CHECK_EQ(world_stats(&world).handshakes, SHARE + 1);
    world_answer(&world);
    peer_enter(&late[0], &world);
    close_all(early, SHARE);
    peer_leave(&late[0]);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).requests, 1 + SHARE + 1);
}

/* Hanging up at once may be a habit. After a second it isn't, though no event says so again. */
static void who_has_hung_up_at_once_does_not_wait_for_long(void)
{
    open_busy_world(60000);
    come_late(LATE);
    close_all(late, LATE);
    WAIT_UNTIL(world_stats(&world).shed == LATE);
    CHECK_EQ(world_stats(&world).handshakes, SHARE);
    world_answer(&world);
    close_all(early, SHARE);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).requests, 1 + SHARE);
}

static void who_shuts_down_at_once_still_gets_its_answer(void)
{
    struct fc_options options = world_options();

    world_open(&world, &options);
    peer_connect(&late[0], &world, 0, 0);
    peer_ask(&late[0], "/refuse");
    CHECK_EQ(shutdown(late[0].fd, SHUT_WR), 0);
    WAIT_UNTIL(world_stats(&world).asked == 1);
    world_answer(&world);
    peer_expect_bytes(&late[0], WORLD_REFUSED);
    peer_expect_end(&late[0]);
    peer_close(&late[0]);
    CHECK_EQ(world_close(&world, 5000, 0).shed, 0);
}

static void no_more_handshakes_than_allowed_are_in_progress(void)
{
    struct fc_options options = world_options();

    options.max_handshakes = 5; /* two shards: two each */
    world_open(&world, &options);
    peer_join(&member, &world, 0, "/member");
    for (unsigned i = 0; i < LATE; i++)
        peer_connect(&late[i], &world, 0, 0);
    for (unsigned i = 0; i < LATE; i++) {
        unsigned left = LATE - i;
        unsigned taken = 1 + i + (left < 2 ? left : 2);
        WAIT_UNTIL(world_stats(&world).accepted >= taken);
        pass_some_rounds();
        CHECK_EQ(world_stats(&world).accepted, taken);
        CHECK_EQ(world_stats(&world).handshakes, left < 2 ? left : 2);
        if (i % 2 == 0) {
            peer_ask(&late[i], "/a");
            peer_enter(&late[i], &world);
        } else {
            peer_close(&late[i]);
        }
    }
    WAIT_UNTIL(world_stats(&world).handshakes == 0);
    for (unsigned i = 0; i < LATE; i += 2)
        peer_leave(&late[i]);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).accepted, 1 + LATE);
}

static void every_shard_may_have_a_handshake(void)
{
    struct fc_options options = world_options();

    options.max_handshakes = 1;
    world_open(&world, &options);
    peer_join(&late[0], &world, 0, "/a");
    peer_join(&late[1], &world, 1, "/a");
    peer_leave(&late[0]);
    peer_leave(&late[1]);
    CHECK_EQ(world_close(&world, 5000, 0).opened, 2);
}

/* ---- every way out of a handshake ---- */

/* Who sends nothing has a place for as long as a request may take; then it's the next one's. */
static void the_silent_do_not_keep_their_places(void)
{
    struct fc_options options = world_options();

    options.max_handshakes = 2; /* one for each shard */
    options.handshake_timeout = 300;
    world_open(&world, &options);
    for (unsigned i = 0; i < LATE; i++)
        peer_connect(&late[i], &world, 0, 0);
    peer_ask(&late[LATE - 1], "/a"); /* the last in the kernel's line, behind four that are silent */
    peer_enter(&late[LATE - 1], &world);
    CHECK_EQ(world_stats(&world).handshakes, 0);
    CHECK_EQ(world_stats(&world).handshake_timeouts, LATE - 1);
    for (unsigned i = 0; i < LATE - 1; i++) {
        peer_expect_bytes(&late[i], WORLD_TIMEOUT);
        peer_expect_end(&late[i]);
    }
    peer_leave(&late[LATE - 1]);
    close_all(late, LATE - 1);
    CHECK_EQ(world_close(&world, 5000, 0).shed, 0);
}

/* Each piece puts it in front of those who wait. It's read then, and the others are as well. */
static void a_request_that_trickles_in_is_in_nobodys_way(void)
{
    static const char end[] = " HTTP/1.1\r\nPeer: 0\r\n\r\n";
    struct fc_options options = world_options();
    struct peer slow;

    options.max_handshakes = 4; /* two for each shard */
    world_open(&world, &options);
    peer_connect(&slow, &world, 0, 0);
    peer_send_bytes(&slow, "GET /a", 6);
    for (unsigned i = 0; i < sizeof end - 1; i++) {
        struct peer quick;
        peer_send_bytes(&slow, end + i, 1);
        peer_join(&quick, &world, 0, "/b");
        CHECK(world_stats(&world).handshakes <= 1);
        peer_leave(&quick);
    }
    peer_enter(&slow, &world);
    peer_leave(&slow);
    CHECK_EQ(world_close(&world, 5000, 0).opened, sizeof end);
}

/* Another piece is no reason for more time. */
static void a_request_that_never_ends_gets_a_408(void)
{
    struct fc_options options = world_options();
    struct peer slow;

    options.handshake_timeout = 300;
    world_open(&world, &options);
    peer_connect(&slow, &world, 0, 0);
    peer_send_bytes(&slow, "GET /", 5);
    WAIT_UNTIL(peer_has_news(&slow) || (peer_send_bytes(&slow, "a", 1), false));
    peer_expect_bytes(&slow, WORLD_TIMEOUT);
    peer_expect_end(&slow);
    peer_close(&slow);
    CHECK_EQ(world_close(&world, 5000, 0).handshake_timeouts, 1);
}

/* A full shard hands clients over without end; the other one's bound holds all the same. */
static void who_is_handed_over_waits_for_a_place_as_well(void)
{
    enum { MOST = 60, FDS = 64, FDS_OF_A_SHARED_TABLE = 220 };
    static struct peer peers[MOST];
    struct fc_options options = world_options();
    struct rlimit before;

    options.max_handshakes = 2; /* one for each shard */
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit low = {.rlim_cur = options.shared_table ? FDS_OF_A_SHARED_TABLE : FDS, .rlim_max = before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    world_open(&world, &options);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    unsigned each = (unsigned)fc_hub_capacity(world.hub) / 2;
    CHECK(each > LATE && 2 * each <= MOST);
    for (unsigned i = 0; i < each; i++)
        peer_join(&peers[i], &world, 0, "/a");
    peer_join(&member, &world, 1, "/member");
    for (unsigned i = 0; i < LATE; i++)
        peer_connect(&late[i], &world, 0, 0);
    WAIT_UNTIL(world_stats(&world).handed_over == LATE);
    for (unsigned i = 0; i < LATE; i++) {
        WAIT_UNTIL(world_stats(&world).handshakes > 0);
        pass_some_rounds();
        CHECK_EQ(world_stats(&world).handshakes, 1);
        peer_ask(&late[i], "/a");
        peer_enter(&late[i], &world);
    }
    for (unsigned i = 0; i < LATE; i++)
        peer_leave(&late[i]);
    for (unsigned i = 0; i < each; i++)
        peer_leave(&peers[i]);
    peer_leave(&member);
    CHECK_EQ(world_close(&world, 5000, 0).full, 0);
}

/* Silent, amid its request, in the middle of those who wait, and while Python decides. */
static void a_reset_in_any_state_leaves_nothing(void)
{
    open_busy_world(60000);
    come_late(LATE);
    peer_reset(&early[0]); /* noticed when the answer comes */
    peer_reset(&late[0]);
    peer_reset(&late[LATE / 2]);
    peer_reset(&late[LATE - 1]);
    pass_some_rounds();
    world_answer(&world);
    for (unsigned i = 0; i < LATE; i++) {
        if (i != 0 && i != LATE / 2 && i != LATE - 1) {
            peer_enter(&late[i], &world);
            peer_leave(&late[i]);
        }
    }
    close_all(early + 1, SHARE - 1);
    for (unsigned i = 0; i < 2; i++)
        peer_connect(&late[i], &world, 0, 0);
    peer_send_bytes(&late[1], "GET /", 5);
    WAIT_UNTIL(world_stats(&world).handshakes == 2);
    peer_reset(&late[0]);
    peer_reset(&late[1]);
    WAIT_UNTIL(world_stats(&world).handshakes == 0 && world_stats(&world).connections == 1);
    peer_leave(&member);
    world_close(&world, 5000, 0);
}

static void who_is_one_too_many_has_a_place_until_it_is_told(void)
{
    struct fc_options options = world_options();

    options.max_connections = 1;
    options.max_handshakes = 2;
    world_open(&world, &options);
    peer_join(&member, &world, 0, "/member");
    for (unsigned i = 0; i < LATE; i++)
        peer_connect(&late[i], &world, 0, 0);
    for (unsigned i = 0; i < LATE; i++) {
        WAIT_UNTIL(world_stats(&world).handshakes == 1);
        CHECK_EQ(world_stats(&world).accepted, 2 + i);
        peer_ask(&late[i], "/a");
        peer_expect_bytes(&late[i], WORLD_FULL);
        peer_expect_end(&late[i]);
    }
    close_all(late, LATE);
    peer_leave(&member);
    struct fc_shard_stats stats = world_close(&world, 5000, 0);
    CHECK_EQ(stats.full, LATE);
    CHECK_EQ(stats.requests, 1);
}

/* The first shard has requests that Python has taken, and others that wait; the second has one that isn't complete, and
 * one that hasn't begun. */
static void open_world_in_every_state(void)
{
    struct fc_events *requests;

    open_busy_world(60000);
    while ((requests = fc_hub_requests(world.hub)))
        fc_hub_release(world.hub, requests);
    come_late(LATE - 2);
    peer_connect(&late[LATE - 2], &world, 1, 0);
    peer_send_bytes(&late[LATE - 2], "GET /", 5);
    peer_connect(&late[LATE - 1], &world, 1, 0);
    WAIT_UNTIL(world_stats(&world).handshakes == SHARE + LATE);
}

static void a_stop_answers_every_handshake(void)
{
    open_world_in_every_state();
    fc_hub_stop(world.hub, 60000);
    for (unsigned i = 0; i < LATE; i++) {
        peer_expect_bytes(&late[i], WORLD_FULL);
        peer_expect_end(&late[i]);
    }
    for (unsigned i = 0; i < SHARE; i++) {
        peer_expect_bytes(&early[i], WORLD_FULL);
        peer_expect_end(&early[i]);
    }
    peer_expect_close(&member, 1001);
    close_all(late, LATE);
    close_all(early, SHARE);
    peer_close(&member);
    CHECK_EQ(world_close(&world, 0, 0).shed, 0);
}

static void a_stop_without_patience_leaves_nobody(void)
{
    open_world_in_every_state();
    fc_hub_stop(world.hub, 0);
    WAIT_UNTIL(fc_hub_running(world.hub) == 0);
    for (unsigned i = 0; i < LATE; i++)
        peer_await_end(&late[i]);
    close_all(late, LATE);
    close_all(early, SHARE);
    peer_close(&member);
    world_close(&world, 0, 0);
}

static void more_shards_than_processors_lose_nothing(void)
{
    enum { EACH = 3, MESSAGES = 200 };
    struct fc_options options = world_options();
    struct peer peers[SHARDS * EACH];
    char text[32];

    options.shards = SHARDS;
    world_open(&world, &options);
    for (unsigned i = 0; i < SHARDS * EACH; i++)
        peer_join(&peers[i], &world, i % SHARDS, "/a");
    for (unsigned k = 0; k < MESSAGES; k++) {
        snprintf(text, sizeof text, "message %u", k);
        peer_text(&peers[k % EACH], text);
    }
    for (unsigned i = 0; i < SHARDS * EACH; i++) {
        unsigned next[EACH] = {0};
        for (unsigned k = 0; k < MESSAGES; k++) { /* in each sender's order */
            unsigned number;
            struct frame frame = peer_receive(&peers[i]);
            snprintf(text, sizeof text, "%.*s", (int)frame.length, (const char *)frame.payload);
            CHECK_EQ(sscanf(text, "message %u", &number), 1);
            CHECK_EQ(number, next[number % EACH]++ * EACH + number % EACH);
        }
    }
    for (unsigned i = 0; i < SHARDS * EACH; i++)
        peer_leave(&peers[i]);
    CHECK_EQ(world_close(&world, 5000, 0).delivered, (uint64_t)SHARDS * EACH * MESSAGES);
}

static void run_all(void)
{
    RUN(the_newest_request_is_asked_first);
    RUN(who_has_waited_too_long_gets_a_503);
    RUN(who_gives_up_while_waiting_is_not_asked_about);
    RUN(who_has_hung_up_at_once_does_not_wait_for_long);
    RUN(who_shuts_down_at_once_still_gets_its_answer);
    RUN(no_more_handshakes_than_allowed_are_in_progress);
    RUN(every_shard_may_have_a_handshake);
    RUN(the_silent_do_not_keep_their_places);
    RUN(a_request_that_trickles_in_is_in_nobodys_way);
    RUN(a_request_that_never_ends_gets_a_408);
    RUN(who_is_handed_over_waits_for_a_place_as_well);
    RUN(a_reset_in_any_state_leaves_nothing);
    RUN(who_is_one_too_many_has_a_place_until_it_is_told);
    RUN(a_stop_answers_every_handshake);
    RUN(a_stop_without_patience_leaves_nobody);
    RUN(more_shards_than_processors_lose_nothing);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
