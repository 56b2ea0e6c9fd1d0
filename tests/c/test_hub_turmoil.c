/* Everything at once, from several threads: what each client hears is still exact, and the counters add up. */
#include "check.h"
#include "frame.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world;

enum { TALKERS = 3, STEADY = 6, SWITCHERS = 6, CHANNELS = 5, SAYINGS = 400 };

static const char *const channels[CHANNELS] = {"a.0", "a.1", "a.2", "b.0", "b.1"};

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

struct talker {
    pthread_t thread;
    unsigned number;
};

struct switcher {
    pthread_t thread;
    uint64_t id;
    uint64_t seed;
};

static struct peer steady[STEADY];
static struct peer switching[SWITCHERS];
static atomic_bool over;

/* Talker t says its numbers in turn to one channel after the other. */
static void *talk(void *argument)
{
    const struct talker *talker = argument;
    uint32_t words[3];
    uint64_t reached;

    for (uint32_t i = 0; i < SAYINGS; i++) {
        uint32_t channel = (i + talker->number) % CHANNELS;
        words[0] = talker->number;
        words[1] = channel;
        words[2] = i;
        int error;
        WAIT_UNTIL((error = fc_hub_publish(world.hub, span(channels[channel]), false,
                                           (struct fc_span){words, sizeof words}, span(""), &reached)) != -EAGAIN);
        CHECK_EQ(error, 0);
    }
    return NULL;
}

static void look_around(void *context, struct fc_span name, uint64_t members)
{
    CHECK(context == NULL && name.length > 0 && members > 0);
}

/* Changes its client's subscriptions at random, and asks all that can be asked. */
static void *switch_about(void *argument)
{
    struct switcher *switcher = argument;
    static const char *const all[] = {"a.0", "a.1", "a.*", "*.0", ">", "b.>", "a.0", "*.*"};
    struct fc_channel_stats stats;
    uint64_t *ids;
    uint64_t n;
    size_t count;

    while (!atomic_load(&over)) {
        struct fc_span name = span(all[check_random(&switcher->seed) % 8]);
        switch (check_random(&switcher->seed) % 8) {
        case 0:
        case 1:
        case 2:
            CHECK_EQ(fc_hub_subscribe(world.hub, switcher->id, name), 0);
            break;
        case 3:
        case 4:
            CHECK_EQ(fc_hub_unsubscribe(world.hub, switcher->id, name), 0);
            break;
        case 5:
            CHECK_EQ(fc_hub_members(world.hub, name, &ids, &count), 0);
            free(ids);
            break;
        case 6:
            CHECK_EQ(fc_hub_count(world.hub, name, &n), 0);
            if (fc_hub_read_channel(world.hub, name, &stats))
                CHECK(stats.sent >= stats.delivered + stats.dropped + stats.gone);
            break;
        default:
            CHECK_EQ(fc_hub_channels(world.hub, look_around, NULL), 0);
        }
    }
    return NULL;
}

struct heard {
    uint32_t next[TALKERS][CHANNELS]; /* number that a later one isn't below */
    unsigned total;
};

/* No message twice, and those of one talker to one channel in their order. */
static void note(struct heard *heard, const struct frame *frame)
{
    uint32_t words[3];

    CHECK_EQ(frame->length, sizeof words);
    memcpy(words, frame->payload, sizeof words);
    CHECK(words[2] >= heard->next[words[0]][words[1]]);
    heard->next[words[0]][words[1]] = words[2] + 1;
    heard->total++;
}

static void whatever_happens_each_hears_a_message_once_and_in_order(void)
{
    static const char *const subscriptions[STEADY] = {"a.0,a.1,a.2,b.0,b.1", ">", "*.*,>", "a.*,b.*", "a.>,b.0,b.1",
                                                      "a.0,a.*,b.>,*.1"};
    struct fc_options options = world_options();
    struct talker talkers[TALKERS];
    struct switcher switchers[SWITCHERS];
    uint64_t reached;

    atomic_store(&over, false);
    world_open(&world, &options);
    for (unsigned i = 0; i < STEADY; i++)
        peer_join(&steady[i], &world, i % 2, subscriptions[i]);
    for (unsigned i = 0; i < SWITCHERS; i++) {
        peer_join(&switching[i], &world, i % 2, "");
        switchers[i] = (struct switcher){.id = world.ids[switching[i].number], .seed = i};
        CHECK_EQ(pthread_create(&switchers[i].thread, NULL, switch_about, &switchers[i]), 0);
    }
    for (unsigned i = 0; i < TALKERS; i++) {
        talkers[i].number = i;
        CHECK_EQ(pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]), 0);
    }
    for (unsigned i = 0; i < STEADY; i++) {
        struct heard heard = {0};
        while (heard.total < TALKERS * SAYINGS) {
            struct frame frame = peer_receive(&steady[i]);
            note(&heard, &frame);
        }
    }
    for (unsigned i = 0; i < TALKERS; i++)
        CHECK_EQ(pthread_join(talkers[i].thread, NULL), 0);
    atomic_store(&over, true);
    for (unsigned i = 0; i < SWITCHERS; i++)
        CHECK_EQ(pthread_join(switchers[i].thread, NULL), 0);
    for (unsigned i = 0; i < SWITCHERS; i++) {
        struct heard heard = {0};
        CHECK_EQ(fc_hub_send(world.hub, switchers[i].id, true, span("that's all")), 0);
        struct frame frame = peer_receive(&switching[i]);
        for (; frame.opcode == FC_OP_BINARY; frame = peer_receive(&switching[i]))
            note(&heard, &frame);
        CHECK_BYTES(frame.payload, frame.length, "that's all", 10);
    }
    WAIT_UNTIL(fc_hub_broadcast(world.hub, true, span("good-bye"), &reached) != -EAGAIN);
    CHECK_EQ(reached, STEADY + SWITCHERS);
    for (unsigned i = 0; i < STEADY; i++) {
        peer_expect_text(&steady[i], "good-bye");
        peer_leave(&steady[i]);
    }
    for (unsigned i = 0; i < SWITCHERS; i++) {
        peer_expect_text(&switching[i], "good-bye");
        peer_leave(&switching[i]);
    }
    world_close(&world, 0, 0);
}

/* While some come and others go, everybody who is there hears each broadcast once. */
static void broadcasts_and_channels_are_exact_while_clients_come_and_go(void)
{
    enum { ROUNDS = 60, VISITORS = 8 };
    struct fc_options options = world_options();
    struct peer peers[2];
    char text[32];
    uint64_t reached;

    world_open(&world, &options);
    for (unsigned i = 0; i < 2; i++)
        peer_join(&peers[i], &world, i, "a.0,a.*");
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct peer visitors[VISITORS];
        for (unsigned i = 0; i < VISITORS; i++) {
            snprintf(text, sizeof text, "%u.%u", round, i);
            CHECK_EQ(fc_hub_broadcast(world.hub, true, span(text), &reached), 0);
            world_publish(&world, "a.0", true, text, strlen(text));
            peer_join(&visitors[i], &world, i % 2, "a.0");
            CHECK_EQ(fc_hub_broadcast(world.hub, true, span("!"), &reached), 0);
            CHECK_EQ(reached, 3 + i);
        }
        for (unsigned i = 0; i < VISITORS; i++) {
            /* Exactly what was published since it came: its own "!", and two of each later visitor, and that one's "!". */
            unsigned marks = 0;
            unsigned texts = 0;
            while (marks < VISITORS - i) {
                struct frame frame = peer_receive(&visitors[i]);
                if (frame.length == 1)
                    marks++;
                else
                    texts++;
            }
            while (texts < 2 * (VISITORS - 1 - i)) {
                struct frame frame = peer_receive(&visitors[i]);
                CHECK(frame.length > 1);
                texts++;
            }
            if (i % 3)
                peer_leave(&visitors[i]);
            else
                peer_reset(&visitors[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned n = 0; n < 3 * VISITORS; n++)
                CHECK_EQ(peer_receive(&peers[i]).opcode, FC_OP_TEXT);
        }
        WAIT_UNTIL(world_stats(&world).clients == 2);
    }
    for (unsigned i = 0; i < 2; i++)
        peer_leave(&peers[i]);
    world_close(&world, 0, 0);
}

static void run_all(void)
{
    RUN(whatever_happens_each_hears_a_message_once_and_in_order);
    RUN(broadcasts_and_channels_are_exact_while_clients_come_and_go);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
