/*
 * sources.h - the addresses that connections come from.
 *
 * Built by the coordinating thread, constant while the load runs.
 */
#ifndef FC_SOURCES_H
#define FC_SOURCES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* `count` consecutive addresses; the number of an IPv4 address is its value, of an IPv6 one its low half. */
struct fc_sources_range {
    uint64_t network; /* the high half of an IPv6 address */
    uint64_t first;
    uint32_t count;
};

struct fc_sources {
    sa_family_t family;
    struct fc_sources_range *ranges;
    unsigned used;
    uint32_t count; /* addresses in all ranges; 0: the kernel chooses */
};

/* Reads a list, separated by commas or spaces: addresses ("10.0.0.1", "fd00::1"), networks ("10.0.0.0/24",
 * "fd00::/120", without an IPv4 network's first and last address) and ranges ("10.0.0.1-20",
 * "10.0.0.1-10.0.1.20", "fd00::1-fd00::ff").  All are of `family`.  Returns 0, or -errno with one line in
 * `problem`. */
int fc_sources_parse(struct fc_sources *sources, sa_family_t family, const char *list, char *problem,
                     size_t room);

/* Enough addresses of a random slice of 127.0.0.0/8 for `connections`.  Returns 0 or -errno. */
int fc_sources_loopback(struct fc_sources *sources, uint32_t connections);

void fc_sources_free(struct fc_sources *sources);

/* The address of the connection with this number, and its size; 0 when the kernel is to choose. */
socklen_t fc_sources_pick(const struct fc_sources *sources, uint32_t number, struct sockaddr_storage *address);

#endif
