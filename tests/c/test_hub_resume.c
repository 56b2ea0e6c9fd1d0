/* Clients that come, subscribe and go at random while others publish, the clock ends messages and histories are forgotten:
 * whatever happens, each hears of each channel an unbroken row of offsets, and none of it a second time by a pattern. */
#include "check.h"
#include "faults.h"
#include "frame.h"
#include "heads.h"
#include "peer.h"
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHANNELS = 4, VISITORS = 8, TALKERS = 3, STEPS = 600, ROUNDS = 8 };

static const char *const names[CHANNELS] = {"c.0", "c.1", "c.2", "c.3"};

struct visitor {
    struct peer peer;
    bool is_here;
    bool has_pattern; /* and is then a member of all records, too */
    bool is_through;  /* has heard "end" */
    struct {
        bool is_known;
        char epoch[FC_EPOCH_SIZE];
        uint64_t offset;
    } at[CHANNELS];
};

static struct world world;
static struct visitor visitors[VISITORS];
static atomic_bool over;
static uint64_t seed;

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

static void *talk(void *argument)
{
    uint64_t random = seed * 1000 + (uintptr_t)argument;
    static char text[3000];

    while (!atomic_load(&over)) {
        size_t n = (size_t)check_random(&random) % (check_random(&random) % 8 ? 100 : sizeof text);
        world_publish(&world, names[check_random(&random) % CHANNELS], false, text, n);
        if (check_random(&random) % 4 == 0)
            usleep((unsigned)(check_random(&random) % 300));
    }
    return NULL;
}

static void *look_after(void *argument)
{
    while (!atomic_load(&over)) {
        fc_hub_expire(world.hub);
        usleep(500);
    }
    return argument;
}

static void leave(struct visitor *visitor)
{
    peer_close(&visitor->peer);
    visitor->is_here = false;
}

/* What the visitor hears must follow on what it has heard. */
static void check_head(struct visitor *visitor, const struct frame *frame)
{
    struct said said = heads_read(frame);
    unsigned channel;

    CHECK(said.what[0]);
    CHECK_EQ(sscanf(said.channel, "c.%u", &channel), 1);
    CHECK(channel < CHANNELS);
    if (!strcmp(said.what, "msg")) {
        bool is_anew = memcmp(visitor->at[channel].epoch, said.position, FC_EPOCH_SIZE) != 0;
        CHECK(visitor->at[channel].is_known);
        CHECK_EQ(said.offset, is_anew ? 1 : visitor->at[channel].offset + 1);
    }
    visitor->is_through |= said.length == 3 && !memcmp(said.text, "end", 3);
    visitor->at[channel].is_known = true;
    visitor->at[channel].offset = said.offset;
    memcpy(visitor->at[channel].epoch, said.position, FC_EPOCH_SIZE);
}

static void hear(struct visitor *visitor, unsigned most)
{
    while (most-- > 0 && visitor->is_here && peer_has_news(&visitor->peer)) {
        struct frame frame = peer_receive(&visitor->peer);
        if (frame.opcode == FC_OP_CLOSE)
            leave(visitor);
        else if (frame.opcode != FC_OP_PONG)
            check_head(visitor, &frame);
    }
}

static void come(struct visitor *visitor, uint64_t *random, unsigned shards)
{
    unsigned channel = (unsigned)(check_random(random) % CHANNELS);
    unsigned dice = (unsigned)(check_random(random) % 10);
    char since[FC_EPOCH_SIZE + 24] = "new";
    char path[160];

    if (dice < 3)
        strcpy(since, "all");
    else if (dice < 8 && visitor->at[channel].is_known)
        snprintf(since, sizeof since, "%.*s:%llu", FC_EPOCH_SIZE, visitor->at[channel].epoch,
                 (unsigned long long)visitor->at[channel].offset);
    visitor->has_pattern = check_random(random) % 3 == 0;
    if (visitor->has_pattern)
        snprintf(path, sizeof path, "c.*,c.0,c.1,c.2,c.3?since=%s", since);
    else
        snprintf(path, sizeof path, "%s?since=%s", names[channel], since);
    for (unsigned i = 0; i < CHANNELS; i++)
        visitor->at[i].is_known = false;
    heads_come(&visitor->peer, &world, (unsigned)check_random(random) % shards, path, dice % 2 ? 4096 : 0);
    visitor->is_here = true;
}

static void act(struct visitor *visitor, uint64_t *random)
{
    unsigned dice = (unsigned)(check_random(random) % 40);
    struct fc_span name = span(names[check_random(random) % CHANNELS]);
    uint64_t id = world.ids[visitor->peer.number];

    if (dice < 18)
        hear(visitor, 200);
    else if (dice < 26)
        CHECK_EQ(fc_hub_subscribe(world.hub, id, name), 0);
    else if (dice < 34 && !visitor->has_pattern)
        CHECK_EQ(fc_hub_unsubscribe(world.hub, id, name), 0);
    else if (dice == 38)
        CHECK_EQ(fc_hub_forget_histories(world.hub), 0);
    else if (dice == 39)
        leave(visitor);
    else
        peer_send(&visitor->peer, true, FC_OP_PING, "p", 1);
}

static struct fc_options options_of(uint64_t round)
{
    static const uint64_t kept[] = {1, 50, 5000};
    struct fc_options options = world_options();

    options.policy = round % 2 ? FC_POLICY_CLOSE : FC_POLICY_DROP_OLDEST;
    options.keep_messages = kept[round % 3];
    options.keep_time = round % 4 == 0 ? 30 : 0;
    options.max_history = round % 5 == 0 ? 20000 : 64 << 20;
    options.max_queue = round % 2 ? 30000 : 8 << 20;
    options.shards = 1 + (unsigned)(round % 3);
    options.flush_interval = round % 7 == 0 ? 5 : 0;
    return options;
}

static void one_round(uint64_t round)
{
    struct fc_options options = options_of(round);
    pthread_t threads[TALKERS + 1];
    uint64_t random = seed = round;

    world_open(&world, &options);
    memset(visitors, 0, sizeof visitors);
    atomic_store(&over, false);
    for (uintptr_t i = 0; i < TALKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, talk, (void *)i), 0);
    CHECK_EQ(pthread_create(&threads[TALKERS], NULL, look_after, NULL), 0);
    for (unsigned step = 0; step < STEPS && world.peers < WORLD_PEERS - 1; step++) {
        struct visitor *visitor = &visitors[check_random(&random) % VISITORS];
        if (visitor->is_here)
            act(visitor, &random);
        else
            come(visitor, &random, options.shards);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i <= TALKERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < VISITORS; i++) {
        for (unsigned quiet = 0; visitors[i].is_here && quiet < 10; quiet++) {
            if (peer_has_news(&visitors[i].peer))
                quiet = 0;
            hear(&visitors[i], UINT32_MAX);
            usleep(1000);
        }
        if (visitors[i].is_here)
            leave(&visitors[i]);
    }
    world_close(&world, 3000, 0);
}

static void rows_are_unbroken_whatever_happens(void)
{
    for (uint64_t round = 1; round <= ROUNDS; round++)
        one_round(round);
}

/* ---- without memory ---- */

static void enter(struct visitor *visitor, const char *path)
{
    heads_come(&visitor->peer, &world, 1, path, 0);
    visitor->is_here = true;
}

/* Whoever is dropped comes back to where it was. Returns how often. */
static unsigned hear_all(struct visitor *visitor)
{
    unsigned returns = 0;

    while (!visitor->is_through) {
        struct frame frame;
        if (peer_try(&visitor->peer, &frame)) {
            check_head(visitor, &frame);
            continue;
        }
        char path[FC_EPOCH_SIZE + 64] = "c.0?since=all";
        if (visitor->at[0].is_known)
            snprintf(path, sizeof path, "c.0?since=%.*s:%llu", FC_EPOCH_SIZE, visitor->at[0].epoch,
                     (unsigned long long)visitor->at[0].offset);
        leave(visitor);
        enter(visitor, path);
        returns++;
    }
    leave(visitor);
    return returns;
}

static void without_memory_nobody_is_left_with_a_hole(void)
{
    enum { LISTENERS = 3, SAYINGS = 4, FAILURES = 40 };
    static const uint8_t saying[] = {0x80 | FC_OP_TEXT, 0x80 | 1, 0, 0, 0, 0, 'x'};
    struct fc_options options = world_options();
    struct peer talker;
    unsigned returns = 0;

    options.keep_messages = 1000;
    options.max_history = 1 << 20;
    for (unsigned long fail = 0; fail < FAILURES; fail++) {
        world_open(&world, &options);
        memset(visitors, 0, sizeof visitors);
        peer_join(&talker, &world, 0, "c.0");
        for (unsigned i = 0; i < LISTENERS; i++)
            enter(&visitors[i], i < 2 ? "c.0?since=new" : "c.*,c.0?since=new");
        fault_clear();
        fault_arm(FAULT_ALLOCATION, fail, 2, ENOMEM);
        for (unsigned i = 0; i < SAYINGS; i++) /* if the talker hasn't been dropped */
            (void)send(talker.fd, saying, sizeof saying, MSG_NOSIGNAL);
        for (unsigned patience = 20; world_stats(&world).received < SAYINGS && patience > 0; patience--)
            usleep(500); /* it may have lost its voice */
        usleep(1000);
        fault_clear();
        peer_close(&talker);
        world_publish(&world, "c.0", true, "end", 3);
        for (unsigned i = 0; i < LISTENERS; i++)
            returns += hear_all(&visitors[i]);
        world_close(&world, 1000, 0);
    }
    CHECK(returns > 3);
}

static void run_all(void)
{
    RUN(without_memory_nobody_is_left_with_a_hole);
    RUN(rows_are_unbroken_whatever_happens);
}

int main(void)
{
    world_run_with_each_backend(run_all);
    return 0;
}
