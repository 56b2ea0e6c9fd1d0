/* The hub under test, and what is asked of it when it has gone. One world at a time; used by the main thread. */
#include "world.h"

#include "check.h"
#include "faults.h"
#include "io.h"
#include "peer.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum fc_io_choice world_io = FC_IO_EPOLL;

static unsigned count_entries(const char *path)
{
    DIR *directory = opendir(path);
    unsigned n = 0;

    CHECK(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

unsigned world_count_fds(void)
{
    return count_entries("/proc/self/fd");
}

unsigned world_count_tasks(void)
{
    return count_entries("/proc/self/task");
}

static struct fc_span span(const char *text)
{
    return (struct fc_span){text, strlen(text)};
}

/* TSan takes equal fd numbers for the same file, whatever table they are in, and reports races that aren't. */
#ifdef __SANITIZE_THREAD__
#define SHARED_TABLE true
#else
#define SHARED_TABLE false
#endif

struct fc_options world_options(void)
{
    return (struct fc_options){
        .shards = 2,
        .listeners_each = 1,
        .max_connections = UINT32_MAX,
        .max_handshakes = UINT32_MAX,
        .max_message = 1 << 20,
        .max_queue = 8 << 20,
        .max_backlog = 64 << 20,
        .max_head = 8192,
        .handshake_timeout = 60000,
        .ping_interval = 0,
        .ping_timeout = 60000,
        .close_timeout = 60000,
        .io = world_io,
        .shared_table = SHARED_TABLE,
        .timeout = span(WORLD_TIMEOUT),
        .too_large = span(WORLD_TOO_LARGE),
        .full = span(WORLD_FULL),
        .too_many = span(WORLD_TOO_MANY),
    };
}

/* Another address for each process, so that one run's connections aren't in the way of the next's. */
static int listen_somewhere(struct sockaddr_in *address)
{
    unsigned run = (unsigned)getpid();
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0); /* as the server does */
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(0x7F000001 | (1 + run / 250 % 250) << 16 | (run % 250) << 8);
    CHECK_EQ(bind(fd, (struct sockaddr *)address, length), 0);
    CHECK_EQ(listen(fd, 512), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)address, &length), 0);
    return fd;
}

int world_try(struct world *world, const struct fc_options *given)
{
    struct fc_options options = *given;
    int listeners[WORLD_SHARDS];

    CHECK(options.shards <= WORLD_SHARDS && options.listeners_each == 1);
    *world = (struct world){.shards = options.shards};
    world->fds_before = world_count_fds();
    world->tasks_before = world_count_tasks();
    for (unsigned i = 0; i < options.shards; i++)
        listeners[i] = listen_somewhere(&world->addresses[i]);
    options.listeners = listeners;

    int error = fc_hub_create(&world->hub, &options);
    if (error) {
        for (unsigned i = 0; i < options.shards; i++)
            close(listeners[i]); /* they stay the caller's */
    } else if ((error = fc_hub_start(world->hub))) {
        CHECK_EQ(fc_hub_running(world->hub), 0);
        fc_hub_destroy(world->hub);
    }
    if (error) {
        CHECK_EQ(world_count_fds(), world->fds_before);
        WAIT_UNTIL(world_count_tasks() == world->tasks_before);
    }
    return error;
}

void world_open(struct world *world, const struct fc_options *options)
{
    CHECK_EQ(world_try(world, options), 0);
    CHECK_EQ(fc_hub_running(world->hub), options->shards);
    CHECK_EQ(fc_hub_shards(world->hub), options->shards);
    CHECK(fc_hub_capacity(world->hub) > 0);
}

/* Channels in a path have commas between them. An empty one names none. */
static size_t split(const char *path, size_t length, struct fc_span channels[WORLD_CHANNELS])
{
    size_t count = 0;

    for (size_t begin = 0, end; length > 0 && begin <= length; begin = end + 1) {
        const char *comma = memchr(path + begin, ',', length - begin);
        end = comma ? (size_t)(comma - path) : length;
        CHECK(count < WORLD_CHANNELS);
        channels[count++] = (struct fc_span){path + begin, end - begin};
    }
    return count;
}

/* "new", "all", or "EPOCH:OFFSET". */
static void resume(struct fc_answer *answer, const char *since, struct fc_position *position)
{
    answer->resume = !strncmp(since, "new", 3) ? FC_RESUME_NEW : FC_RESUME_ALL;
    if (since[FC_EPOCH_SIZE] != ':')
        return;
    memcpy(position->epoch, since, FC_EPOCH_SIZE);
    position->offset = strtoull(since + FC_EPOCH_SIZE + 1, NULL, 10);
    answer->resume = FC_RESUME_SINCE;
    answer->positions = position;
    answer->position_count = 1;
}

/* "GET /path HTTP/1.1\r\nPeer: number\r\n...": what peer_ask sends. */
static struct fc_answer judge(struct world *world, const struct fc_event *request,
                              struct fc_span channels[WORLD_CHANNELS], struct fc_position *position)
{
    struct fc_answer answer = {.client = request->client, .response = span(WORLD_REFUSED)};
    const char *head = request->bytes.bytes;
    const char *path = memchr(head, ' ', request->bytes.length);
    const char *number = memmem(head, request->bytes.length, "Peer: ", 6);

    CHECK(path++ && number);
    unsigned peer = (unsigned)strtoul(number + 6, NULL, 10);
    CHECK(peer < WORLD_PEERS);
    world->ids[peer] = request->client;
    if (strncmp(path, "/refuse", 7) != 0) {
        answer.response = span(WORLD_ACCEPTED);
        answer.accept = true;
        size_t length = strcspn(path, " ?");
        answer.channel_count = split(path, length, channels);
        answer.channels = channels;
        if (path[length] == '?')
            resume(&answer, path + length + strlen("?since="), position);
    }
    return answer;
}

void world_answer(struct world *world)
{
    static struct fc_span channels[FC_EVENTS][WORLD_CHANNELS];
    static struct fc_position positions[FC_EVENTS];
    struct fc_answer answers[FC_EVENTS];
    struct fc_events *requests;

    fc_hub_reset_event(world->hub);
    while ((requests = fc_hub_requests(world->hub))) {
        for (size_t i = 0; i < requests->count; i++)
            answers[i] = judge(world, &requests->events[i], channels[i], &positions[i]);
        CHECK_EQ(fc_hub_answer(world->hub, answers, requests->count), 0);
        fc_hub_release(world->hub, requests);
    }
}

int world_try_publish(struct world *world, const char *channel, struct fc_span payload)
{
    uint64_t reached;

    return fc_hub_publish(world->hub, span(channel), true, payload, (struct fc_span){0}, &reached);
}

void world_publish(struct world *world, const char *channel, bool text, const void *payload, size_t n)
{
    int error;

    uint64_t reached;

    WAIT_UNTIL((error = fc_hub_publish(world->hub, span(channel), text, (struct fc_span){payload, n},
                                       (struct fc_span){0}, &reached)) != -EAGAIN);
    CHECK_EQ(error, 0);
}

bool world_is_congested(struct world *world)
{
    return world_try_publish(world, "/nobody is here", span("")) == -EAGAIN;
}

struct fc_shard_stats world_stats(struct world *world)
{
    struct fc_shard_stats sum = {0};

    for (unsigned i = 0; i < world->shards; i++) {
        struct fc_shard_stats one;
        fc_hub_read_shard_stats(world->hub, i, &one);
#define ADD(name) sum.name += one.name;
        FC_COUNTERS(ADD)
        FC_GAUGES(ADD)
#undef ADD
        sum.capacity += one.capacity;
    }
    return sum;
}

static void check_sums(struct world *world)
{
    for (unsigned i = 0; i < world->shards; i++) {
        struct fc_shard_stats one;
        fc_hub_read_shard_stats(world->hub, i, &one);
        CHECK_EQ(one.sent, one.delivered + one.dropped + one.gone);
        CHECK_EQ(one.accepted, one.closed);
#define CHECK_ZERO(name) CHECK_EQ(one.name, 0);
        FC_GAUGES(CHECK_ZERO)
#undef CHECK_ZERO
    }
}

struct fc_shard_stats world_close(struct world *world, uint32_t timeout, unsigned keep_fds)
{
    struct fc_hub_stats stats;
    struct fc_events *messages;

    world_answer(world);
    fc_hub_stop(world->hub, timeout);
    WAIT_UNTIL(fc_hub_running(world->hub) == 0);
    check_sums(world);
    struct fc_shard_stats sum = world_stats(world);
    CHECK(!fc_hub_requests(world->hub));
    while ((messages = fc_hub_events(world->hub)))
        fc_hub_release(world->hub, messages);
    fc_hub_read_stats(world->hub, &stats);
    CHECK_EQ(stats.messages, 0);
    CHECK_EQ(stats.message_bytes, 0);
    CHECK_EQ(stats.channels, stats.histories); /* these outlive the clients */
    CHECK_EQ(stats.threads, 0);
    fc_hub_destroy(world->hub);
    CHECK_EQ(world_count_fds(), world->fds_before + keep_fds);
    WAIT_UNTIL(world_count_tasks() == world->tasks_before);
    return sum;
}

static void *do_nothing(void *argument)
{
    return argument;
}

void world_prepare(void)
{
    pthread_t first;

    /* With its first thread a program gets TSan's own thread as well, which would spoil the count. */
    CHECK_EQ(pthread_create(&first, NULL, do_nothing, NULL), 0);
    pthread_join(first, NULL);
    fault_spare_this_thread(true);
}

void world_run_with_each_backend(void (*run_all)(void))
{
    struct fc_io *io;

    world_prepare();
    world_io = FC_IO_EPOLL;
    run_all();
    int error = fc_io_open_uring(&io);
    if (error) {
        printf("io_uring isn't to be had here: %s\n", strerror(-error));
        return;
    }
    fc_io_close(io);
    printf("with io_uring:\n");
    world_io = FC_IO_URING;
    run_all();
}
