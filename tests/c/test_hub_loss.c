/* Memory that fails: who resumes and has missed something is dropped, so that it comes back for it; and nobody else is. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "heads.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { FAILURES = 24 };

static struct world world;

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

static void say(const char *channel, const char *text)
{
    world_publish(&world, channel, true, text, strlen(text));
}

static void subscribe(const struct peer *peer, const char *channel)
{
    CHECK_EQ(fc_hub_subscribe(world.hub, world.ids[peer->number], span(channel)), 0);
}

static void open_world(void)
{
    struct fc_options options = world_options();

    options.keep_messages = 100;
    options.max_history = 1 << 20;
    world_open(&world, &options);
}

/* Holds the shard in a write, so that what is said until it's let go lies in its mailbox together. */
static void hold_shard(void)
{
    fault_clear();
    fault_catch_sender();
    say("/bait", "caught");
    WAIT_UNTIL(fault_sender_is_caught());
}

/* Lets it go on, without memory once, until it has dealt with all of that. */
static void let_it_fail(unsigned long after, struct peer *bait)
{
    fault_arm(FAULT_ALLOCATION, after, 1, ENOMEM);
    fault_let_go();
    peer_expect_text(bait, "caught");
    WAIT_UNTIL((say("/bait", "served"), peer_has_news(bait))); /* one may be what there's no memory for */
    fault_clear();
}

/* Hears "end", and up to there an unbroken row of offsets behind the last. False: it was cut off before. */
static bool hears_all(struct peer *peer, uint64_t last)
{
    struct said said = {0};
    struct frame frame;

    while (strcmp(said.text, "end") != 0) {
        if (!peer_try(peer, &frame))
            return false;
        said = heads_read(&frame);
        if (!strcmp(said.what, "msg"))
            CHECK_EQ(said.offset, last + 1);
        last = said.offset;
    }
    return true;
}

/* After a loss somebody enters while the channel has still something due. Later ones have nothing to do with that. */
static void who_comes_after_a_loss_stays(void)
{
    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        struct peer bait, member, next, later;
        open_world();
        heads_come(&member, &world, 0, "b?since=new", 0);
        heads_expect(&member, "at", 0, "");
        heads_come(&later, &world, 0, "/a?since=new", 0);
        heads_expect(&later, "at", 0, "");
        peer_join(&bait, &world, 0, "/bait");
        fc_hub_reset_event(world.hub);
        peer_connect(&next, &world, 0, 0);
        peer_ask(&next, "b?since=new");
        CHECK_EQ(poll(&(struct pollfd){fc_hub_event_fd(world.hub), POLLIN, 0}, 1, CHECK_PATIENCE_S * 1000), 1);
        hold_shard();
        for (unsigned i = 0; i < 5; i++) /* more than there's room for at first */
            say("b", "lost");
        world_answer(&world);
        CHECK(world.ids[next.number]);
        let_it_fail(fail, &bait);
        subscribe(&later, "b");
        heads_expect(&later, "at", 5, "");
        say("b", "6");
        heads_expect(&later, "msg", 6, "6");
        peer_close(&member);
        peer_close(&next);
        peer_close(&later);
        peer_close(&bait);
        world_close(&world, 1000, 0);
    }
}

/* What the shard can't hold comes before the subscription that lies behind it in the mailbox. */
static void a_subscription_behind_a_loss_has_lost_nothing(void)
{
    unsigned behind = 0;

    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        struct peer bait, member, next;
        open_world();
        heads_come(&member, &world, 0, "b?since=new", 0);
        heads_come(&next, &world, 0, "/a?since=new", 0);
        heads_expect(&next, "at", 0, "");
        peer_join(&bait, &world, 0, "/bait");
        hold_shard();
        for (unsigned i = 0; i < 5; i++)
            say("b", "lost");
        subscribe(&next, "b");
        let_it_fail(fail, &bait);
        say("b", "end");
        bool member_stays = hears_all(&member, 0);
        bool next_stays = hears_all(&next, 0);
        behind += !member_stays && next_stays; /* where all of a room is lost at its turn, both go */
        peer_close(&member);
        peer_close(&next);
        peer_close(&bait);
        world_close(&world, 1000, 0);
    }
    CHECK(behind > 0);
}

/* Its Close has come, and what was said before it is still for it. */
static void who_leaves_hears_no_hole(void)
{
    static const uint8_t two[] = {0x81, 0x81, 0, 0, 0, 0, '1', 0x81, 0x81, 0, 0, 0, 0, '2'};
    static const uint8_t bye[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8};

    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        struct peer bait, member, talker;
        struct frame frame;
        uint64_t last = 0;
        open_world();
        heads_come(&member, &world, 0, "b?since=new", 0);
        heads_expect(&member, "at", 0, "");
        peer_join(&talker, &world, 0, "b");
        peer_join(&bait, &world, 0, "/bait");
        hold_shard();
        peer_send_bytes(&talker, two, sizeof two);
        peer_send_bytes(&member, bye, sizeof bye);
        let_it_fail(fail, &bait);
        while (peer_try(&member, &frame) && frame.opcode != FC_OP_CLOSE) {
            struct said said = heads_read(&frame);
            CHECK_EQ(said.offset, last + 1);
            last = said.offset;
        }
        peer_close(&member);
        peer_close(&talker);
        peer_close(&bait);
        world_close(&world, 1000, 0);
    }
}

static int record(uint64_t offset, const char *text)
{
    uint64_t reached;

    return fc_hub_record(world.hub, span("b"), true, span(text), span(""), offset, FC_RECORD, &reached);
}

/* A message whose offset others have given is lost: a gap, for who is here and for who comes. */
static void what_cannot_be_recorded_is_a_gap(void)
{
    const struct fc_position begin = {"abcdefabcdef", 10};
    unsigned failed = 0;

    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        struct peer peers[2];
        open_world();
        CHECK_EQ(fc_hub_lead_history(world.hub, span("b"), &begin, NULL, 0), 0);
        heads_come(&peers[0], &world, 0, "b?since=abcdefabcdef:10", 0);
        heads_expect(&peers[0], "at", 10, "");
        fault_clear();
        fault_spare_this_thread(false);
        fault_arm(FAULT_ALLOCATION, fail, 1, ENOMEM);
        int error = record(11, "11");
        fault_arm(FAULT_ALLOCATION, 0, 0, 0);
        fault_spare_this_thread(true);
        CHECK(error == 0 || error == -ENOMEM);
        failed += error != 0;
        CHECK_EQ(record(12, "end"), 0);
        bool has_heard = hears_all(&peers[0], 10);
        CHECK(has_heard || fault_injected(FAULT_ALLOCATION) > 0); /* by the shard, perhaps */
        heads_come(&peers[1], &world, 0, "b?since=abcdefabcdef:10", 0);
        CHECK(hears_all(&peers[1], 0));
        peer_close(&peers[0]);
        peer_close(&peers[1]);
        world_close(&world, 1000, 0);
    }
    CHECK(failed > 0);
}

/* And so is what can't be kept of what is stored. */
static void what_cannot_be_kept_is_a_gap(void)
{
    const struct fc_position begin = {"abcdefabcdef", 10};
    const struct fc_stored stored[] = {{11, true, {"11", 2}}, {12, true, {"12", 2}}, {13, true, {"13", 2}}};
    unsigned failed = 0;

    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        struct peer peer;
        open_world();
        fault_clear();
        fault_spare_this_thread(false);
        fault_arm(FAULT_ALLOCATION, fail, 1, ENOMEM);
        int error = fc_hub_lead_history(world.hub, span("b"), &begin, stored, 3);
        fault_clear();
        fault_spare_this_thread(true);
        if (error) {
            CHECK_EQ(error, -ENOMEM);
            failed++;
        }
        heads_come(&peer, &world, 0, "b?since=abcdefabcdef:10", 0);
        if (error && record(14, "end") == -EINVAL) { /* nothing was begun */
            peer_close(&peer);
        } else {
            if (!error)
                CHECK_EQ(record(14, "end"), 0);
            CHECK(hears_all(&peer, 0));
            peer_leave(&peer);
        }
        world_close(&world, 1000, 0);
    }
    CHECK(failed > 3);
}

static void run_all(void)
{
    RUN(who_comes_after_a_loss_stays);
    RUN(a_subscription_behind_a_loss_has_lost_nothing);
    RUN(who_leaves_hears_no_hole);
    RUN(what_cannot_be_recorded_is_a_gap);
    RUN(what_cannot_be_kept_is_a_gap);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
