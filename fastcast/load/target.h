/*
 * target.h - where connections go and where they come from.
 *
 * Built once by the coordinating thread, read-only while the load runs; fc_target_free() gives its memory
 * back.
 */
#ifndef FC_TARGET_H
#define FC_TARGET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* `count` consecutive IPv4 addresses from `first`, in host order. */
struct fc_target_range {
    uint32_t first;
    uint32_t count;
};

struct fc_target {
    struct sockaddr_storage address;
    socklen_t address_size;
    char *authority; /* of the URL, for the Host field */
    char *path;      /* with its query; at least "/" */
    struct fc_target_range *ranges;
    unsigned ranges_used;
    uint32_t sources; /* addresses in all ranges; 0: the kernel chooses */
};

/* Resolves `url` and chooses source addresses: those of `sources`, or, for an IPv4 loopback target, enough of
 * a random slice of 127.0.0.0/8 for `connections`.  Returns 0, or -errno with one line in `problem`. */
int fc_target_init(struct fc_target *target, const char *url, const char *sources, uint32_t connections,
                   char *problem, size_t room);

void fc_target_free(struct fc_target *target);

/* The source address of the connection with this index; false when the kernel is to choose. */
bool fc_target_source(const struct fc_target *target, uint32_t index, struct sockaddr_in *source);

#endif
