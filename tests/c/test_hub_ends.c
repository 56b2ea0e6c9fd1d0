/* How a hub begins and ends: starts that fail leave nothing, stops deliver what was published and keep their
 * deadline. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct world world;

/* ---- beginning ---- */

static void relay_one_message(void)
{
    struct peer peers[2];

    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    peer_text(&peers[0], "works");
    for (unsigned i = 0; i < 2; i++) {
        peer_expect_text(&peers[i], "works");
        peer_leave(&peers[i]);
    }
}

static void a_hub_has_a_table_for_each_shard_or_shares_one(void)
{
    struct fc_options options = world_options();

    options.shared_table = true;
    world_open(&world, &options);
    CHECK(!fc_hub_private_tables(world.hub));
    relay_one_message();
    world_close(&world, 0, 0);
#ifndef __SANITIZE_THREAD__ /* see world_options */
    options.shared_table = false;
    world_open(&world, &options);
    CHECK(fc_hub_private_tables(world.hub));
    CHECK_EQ(world_count_fds(), world.fds_before + 5); /* two wake-ups and doors, one event fd: no listener */
    relay_one_message();
    world_close(&world, 0, 0);
#endif
}

static void where_tables_cannot_be_unshared_they_are_shared(void)
{
    struct fc_options options = world_options();

    options.shared_table = false;
    fault_arm(FAULT_CLOSE_RANGE, 0, 100, EPERM);
    world_open(&world, &options);
    CHECK_EQ(fault_injected(FAULT_CLOSE_RANGE), 2);
    CHECK(!fc_hub_private_tables(world.hub));
    relay_one_message();
    world_close(&world, 0, 0);
}

static void without_io_uring_epoll_is_used_unless_uring_is_asked_for(void)
{
    struct fc_options options = world_options();

    options.io = FC_IO_AUTO;
    fault_arm(FAULT_URING_SETUP, 0, 100, EPERM);
    world_open(&world, &options);
    CHECK(strcmp(fc_hub_backend(world.hub), "epoll") == 0);
    CHECK_EQ(fc_hub_uring_error(world.hub), EPERM);
    relay_one_message();
    world_close(&world, 0, 0);

    options.io = FC_IO_URING;
    CHECK_EQ(world_try(&world, &options), -EPERM);

    fault_clear();
    options.io = world_io;
    world_open(&world, &options);
    CHECK(strcmp(fc_hub_backend(world.hub), world_io == FC_IO_URING ? "io_uring" : "epoll") == 0);
    CHECK_EQ(fc_hub_uring_error(world.hub), 0);
    world_close(&world, 0, 0);
}

/* Starts again and again with another call failing each time. It may do without what failed, but otherwise must tell
 * the error; world_try checks that nothing is left. Returns how many starts failed. */
static unsigned fail_each_call(enum fault kind, int error)
{
    struct fc_options options = world_options();
    unsigned failed = 0;

    fault_spare_this_thread(false); /* creating is done by this one */
    for (unsigned long n = 0;; n++) {
        fault_clear();
        fault_arm(kind, n, 1, error);
        int result = world_try(&world, &options);
        unsigned long injected = fault_injected(kind);
        fault_clear();
        if (result) {
            CHECK_EQ(result, -error);
            CHECK_EQ(injected, 1);
            failed++;
        } else {
            world_close(&world, 0, 0);
        }
        if (injected == 0)
            break;
    }
    fault_spare_this_thread(true);
    return failed;
}

static void a_start_that_fails_leaves_nothing(void)
{
    CHECK(fail_each_call(FAULT_ALLOCATION, ENOMEM) >= 12);
    CHECK_EQ(fail_each_call(FAULT_EVENTFD, EMFILE), 3);
    CHECK(fail_each_call(FAULT_SOCKETPAIR, EMFILE) >= 2);
    CHECK_EQ(fail_each_call(FAULT_EPOLL_CREATE, EMFILE), 2);
    CHECK_EQ(fail_each_call(FAULT_EPOLL_CTL, ENOSPC), 2 * 3); /* two shards: mailbox, door and listener */
    CHECK_EQ(fail_each_call(FAULT_THREAD, EAGAIN), 2);
}

static void options_that_make_no_sense_are_refused(void)
{
    struct fc_options good = world_options();
    struct fc_options bad[] = {good, good, good, good};

    bad[0].shards = 0;
    bad[1].max_message = 0;
    bad[2].max_head = 0;
    bad[3].listeners_each = 0;
    for (unsigned i = 0; i < 4; i++) {
        struct fc_hub *hub;
        CHECK_EQ(fc_hub_create(&hub, &bad[i]), -EINVAL);
    }
}

/* ---- ending ---- */

static void a_stop_delivers_what_was_published_before_it(void)
{
    enum { MESSAGES = 200, SIZE = 50000 };
    static uint8_t block[SIZE];
    struct fc_options options = world_options();
    struct peer peers[3];

    options.max_queue = 100 << 20;
    options.max_backlog = 400 << 20;
    world_open(&world, &options);
    for (unsigned i = 0; i < 3; i++) {
        peer_connect(&peers[i], &world, i % 2, i == 0 ? 4096 : 0);
        peer_ask(&peers[i], "/a");
        peer_enter(&peers[i], &world);
    }
    for (unsigned k = 0; k < MESSAGES; k++) {
        memset(block, (int)k, SIZE);
        world_publish(&world, "/a", false, block, SIZE);
    }
    fc_hub_stop(world.hub, 100000);
    CHECK_EQ(world_try_publish(&world, "/a", (struct fc_span){"late", 4}), -ESHUTDOWN);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = 0; k < MESSAGES; k++) {
            memset(block, (int)k, SIZE);
            peer_expect(&peers[i], FC_OP_BINARY, block, SIZE);
        }
        peer_expect_close(&peers[i], 1001);
        peer_send(&peers[i], true, FC_OP_CLOSE, "\x03\xE9", 2);
        peer_expect_end(&peers[i]);
        peer_close(&peers[i]);
    }
    CHECK_EQ(world_close(&world, 100000, 0).delivered, 3 * MESSAGES);
}

static void a_stop_ends_by_its_deadline(void)
{
    struct fc_options options = world_options();
    struct peer peers[2];

    world_open(&world, &options);
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "/a");
    fc_hub_stop(world.hub, 100000);
    for (unsigned i = 0; i < 2; i++)
        peer_expect_close(&peers[i], 1001); /* and isn't answered */
    CHECK_EQ(fc_hub_running(world.hub), 2);
    world_close(&world, 300, 2); /* asked again, with less time */
    for (unsigned i = 0; i < 2; i++) {
        peer_await_end(&peers[i]);
        peer_close(&peers[i]);
    }
}

static void a_stop_tells_those_who_are_not_in_yet(void)
{
    struct fc_options options = world_options();
    struct peer silent;
    struct peer asking;

    world_open(&world, &options);
    peer_connect(&silent, &world, 0, 0);
    peer_connect(&asking, &world, 1, 0);
    peer_ask(&asking, "/a");
    WAIT_UNTIL(world_stats(&world).asked == 1 && world_stats(&world).connections == 2);
    fc_hub_stop(world.hub, 100000);
    peer_expect_bytes(&silent, WORLD_FULL);
    peer_expect_end(&silent);
    peer_expect_bytes(&asking, WORLD_FULL);
    peer_expect_end(&asking);
    world_answer(&world); /* too late, and harmless */
    peer_close(&silent);
    peer_close(&asking);
    world_close(&world, 100000, 0);
}

static void a_client_that_was_leaving_gets_its_own_close(void)
{
    struct fc_options options = world_options();
    struct peer peer;

    world_open(&world, &options);
    peer_join(&peer, &world, 0, "/a");
    peer_text(&peer, "last words");
    peer_send(&peer, true, FC_OP_CLOSE, "\x0F\xA0", 2);
    fc_hub_stop(world.hub, 100000);
    /* Whichever came first, ends well. */
    struct frame frame = peer_receive(&peer);
    if (frame.opcode == FC_OP_TEXT)
        frame = peer_receive(&peer);
    CHECK_EQ(frame.opcode, FC_OP_CLOSE);
    peer_expect_end(&peer);
    peer_close(&peer);
    world_close(&world, 100000, 0);
}

static void a_hub_can_be_destroyed_at_any_time(void)
{
    struct fc_options options = world_options();
    struct peer peer;
    struct peer asking;

    world_open(&world, &options);
    fc_hub_destroy(world.hub);
    CHECK_EQ(world_count_fds(), world.fds_before);

    world_open(&world, &options);
    peer_join(&peer, &world, 0, "/a");
    peer_connect(&asking, &world, 1, 0);
    peer_ask(&asking, "/a");
    peer_text(&peer, "unheard");
    world_publish(&world, "/a", true, "unheard", 7);
    fc_hub_destroy(world.hub);
    CHECK_EQ(world_count_fds(), world.fds_before + 2);
    WAIT_UNTIL(world_count_tasks() == world.tasks_before);
    peer_await_end(&peer);
    peer_await_end(&asking);
    peer_close(&peer);
    peer_close(&asking);
}

static void run_all(void)
{
    RUN(a_hub_has_a_table_for_each_shard_or_shares_one);
    RUN(where_tables_cannot_be_unshared_they_are_shared);
    RUN(without_io_uring_epoll_is_used_unless_uring_is_asked_for);
    RUN(a_start_that_fails_leaves_nothing);
    RUN(options_that_make_no_sense_are_refused);
    RUN(a_stop_delivers_what_was_published_before_it);
    RUN(a_stop_ends_by_its_deadline);
    RUN(a_stop_tells_those_who_are_not_in_yet);
    RUN(a_client_that_was_leaving_gets_its_own_close);
    RUN(a_hub_can_be_destroyed_at_any_time);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
