/* When more connect than can be served: a bound on handshakes, the newest first, and those who waited too long not at
 * all. */
#include "check.h"
#include "exchange.h"
#include "peer.h"
#include "world.h"

#include <stdio.h>
#include <string.h>
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

static void the_newest_request_is_asked_first(void)
{
    struct fc_answer answers[LATE];
    unsigned asked = 0;

    open_busy_world(60000);
    come_late(LATE);
    world_answer(&world);
    while (asked < LATE) {
        struct fc_events *requests;
        WAIT_UNTIL((requests = fc_hub_requests(world.hub)));
        for (size_t i = 0; i < requests->count; i++, asked++) {
            char line[32];
            int n = snprintf(line, sizeof line, "GET /late/%u ", LATE - 1 - asked);
            CHECK(asked < LATE);
            CHECK(requests->events[i].bytes.length > (size_t)n);
            CHECK_BYTES(requests->events[i].bytes.bytes, (size_t)n, line, (size_t)n);
            answers[asked] = (struct fc_answer){.client = requests->events[i].client,
                                                .response = {WORLD_ACCEPTED, strlen(WORLD_ACCEPTED)},
                                                .channel = {"/late", 5}};
        }
        fc_hub_release(world.hub, requests);
    }
    CHECK_EQ(fc_hub_answer(world.hub, answers, LATE), 0);
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
    RUN(who_shuts_down_at_once_still_gets_its_answer);
    RUN(no_more_handshakes_than_allowed_are_in_progress);
    RUN(every_shard_may_have_a_handshake);
    RUN(more_shards_than_processors_lose_nothing);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
