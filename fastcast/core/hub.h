/* A hub: its shards, and what they share. */
#ifndef FC_HUB_H
#define FC_HUB_H

#include "exchange.h"
#include "fastcast.h"

#include <pthread.h>
#include <stdatomic.h>

struct fc_shard;

struct fc_hub {
    struct fc_exchange exchange;
    struct fc_shard **shards;
    unsigned threads; /* that were started: of the first shards */
    unsigned joined;  /* of those */
    uint8_t *bytes; /* what the options point to: these three */
    struct fc_rule *rules;
    int *listeners;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned reported; /* shards that listen or have failed, under the lock */
    atomic_ullong published;
};

#endif
