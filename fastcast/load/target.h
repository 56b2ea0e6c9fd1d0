/*
 * target.h - where connections go and where they come from.
 *
 * Built once by the coordinating thread, read-only while the load runs; fc_target_free() gives its memory
 * back.
 */
#ifndef FC_TARGET_H
#define FC_TARGET_H

#include "sources.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct fc_target {
    struct sockaddr_storage address;
    socklen_t address_size;
    char *authority; /* of the URL, for the Host field */
    char *path;      /* with its query; at least "/" */
    struct fc_sources sources;
};

/* Resolves `url` and chooses source addresses: those of `sources`, or, for an IPv4 loopback target, enough of
 * a random slice of 127.0.0.0/8 for `connections`.  Returns 0, or -errno with one line in `problem`. */
int fc_target_init(struct fc_target *target, const char *url, const char *sources, uint32_t connections,
                   char *problem, size_t room);

/* Whether the target is this machine by a loopback address. */
bool fc_target_is_loopback(const struct fc_target *target);

void fc_target_free(struct fc_target *target);

#endif
