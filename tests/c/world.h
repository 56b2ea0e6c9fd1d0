/* A hub to test, from the outside: its listeners on loopback, the part of Python that answers requests, and the checks
 * that nothing is left when it has gone. */
#ifndef WORLD_H
#define WORLD_H

#include "fastcast.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define WORLD_SHARDS 8
#define WORLD_PEERS 1024
#define WORLD_CHANNELS 16

#define WORLD_ACCEPTED "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
#define WORLD_REFUSED "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#define WORLD_TIMEOUT "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#define WORLD_TOO_LARGE "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#define WORLD_FULL "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

#define WORLD_TOO_MANY "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

struct world {
    struct fc_hub *hub;
    unsigned shards;
    struct sockaddr_in addresses[WORLD_SHARDS]; /* each shard has a port of its own, so that a test chooses */
    uint64_t ids[WORLD_PEERS];                  /* of the client of each peer, by the peer's number; 0: none yet */
    unsigned peers;
    unsigned fds_before;
    unsigned tasks_before;
};

/* The backend that world_options asks for. */
extern enum fc_io_choice world_io;

/* Two shards, generous limits, no pings. */
struct fc_options world_options(void);

/* Creates and starts. On an error nothing is left; the caller's listeners are closed as well. */
int world_try(struct world *world, const struct fc_options *options);
void world_open(struct world *world, const struct fc_options *options);

/* Answers all requests that wait: opens the channels that the path names, with commas between them, but refuses what begins
 * with /refuse; behind ?since= may stand what the client wants of their histories. Remembers the ids of the peers that
 * asked. */
void world_answer(struct world *world);

/* Publishes from outside of the shards; waits while they are behind. */
void world_publish(struct world *world, const char *channel, bool text, const void *payload, size_t n);

/* Tries to, once. */
int world_try_publish(struct world *world, const char *channel, struct fc_span payload);

/* All shards' counters together. */
struct fc_shard_stats world_stats(struct world *world);

/* Whether somebody is so far behind that publishing is refused. */
bool world_is_congested(struct world *world);

/* Stops with that much time, in milliseconds, waits for the shards to end, checks that the counters add up and that no
 * message, fd and thread is left. Returns the final counters. `keep_fds`: peers that aren't closed yet. */
struct fc_shard_stats world_close(struct world *world, uint32_t timeout, unsigned keep_fds);

/* File descriptors and threads of this process. */
unsigned world_count_fds(void);
unsigned world_count_tasks(void);

/* To be called first. The main thread is spared from faults. */
void world_prepare(void);

/* The same, and runs the tests with each backend that is to be had here. */
void world_run_with_each_backend(void (*run_all)(void));

#endif
