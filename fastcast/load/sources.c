/*
 * sources.c - reads lists of addresses and deals them out.  Owned by the coordinating thread until the
 * workers start, constant afterwards.
 */
#include "sources.h"

#include "load.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MAX_RANGES 4096u
#define MAX_ADDRESSES ((uint32_t)1 << 24)
#define SLICE 254u /* of a /24, without its first and last address */

/* An address as two numbers; `network` is 0 for IPv4. */
struct place {
    uint64_t network;
    uint64_t number;
};

static bool parse_address(sa_family_t family, const char *text, struct place *place)
{
    if (family == AF_INET) {
        struct in_addr parsed;
        if (inet_pton(AF_INET, text, &parsed) != 1)
            return false;
        *place = (struct place){0, ntohl(parsed.s_addr)};
        return true;
    }
    uint64_t halves[2];
    _Static_assert(sizeof halves == sizeof(struct in6_addr), "two halves make an address");
    if (inet_pton(AF_INET6, text, halves) != 1)
        return false;
    *place = (struct place){be64toh(halves[0]), be64toh(halves[1])};
    return true;
}

static int add_range(struct fc_sources *sources, struct place first, uint64_t count)
{
    if (count > MAX_ADDRESSES - sources->count || sources->used == MAX_RANGES)
        return -E2BIG;
    struct fc_sources_range *ranges = realloc(sources->ranges, (sources->used + 1) * sizeof *ranges);
    if (ranges == NULL)
        return -ENOMEM;
    sources->ranges = ranges;
    ranges[sources->used++] = (struct fc_sources_range){first.network, first.number, (uint32_t)count};
    sources->count += (uint32_t)count;
    return 0;
}

static int add_network(struct fc_sources *sources, struct place place, const char *prefix)
{
    char *rest;
    unsigned bits = sources->family == AF_INET ? 32 : 128;
    unsigned long length = strtoul(prefix, &rest, 10);
    if (*prefix < '0' || *prefix > '9' || *rest != '\0' || length > bits || bits - length > 24)
        return -EINVAL;
    uint64_t size = (uint64_t)1 << (bits - length);
    place.number &= ~(size - 1);
    /* The first and the last address of an IPv4 network that has room for hosts are not hosts. */
    if (sources->family == AF_INET && size > 2) {
        place.number++;
        size -= 2;
    }
    return add_range(sources, place, size);
}

static int add_span(struct fc_sources *sources, struct place first, const char *end)
{
    struct place last = first;
    char *rest;
    if (sources->family == AF_INET && strchr(end, '.') == NULL) {
        unsigned long octet = strtoul(end, &rest, 10);
        if (*end < '0' || *end > '9' || *rest != '\0' || octet > 255)
            return -EINVAL;
        last.number = (first.number & ~(uint64_t)255) | octet;
    } else if (!parse_address(sources->family, end, &last)) {
        return -EINVAL;
    }
    if (last.network != first.network || last.number < first.number)
        return -EINVAL;
    return add_range(sources, first, last.number - first.number + 1);
}

/* Cuts `item` up. */
static int add_item(struct fc_sources *sources, char *item)
{
    struct place place;
    char *cut = item + strcspn(item, "/-");
    char kind = *cut;
    *cut = '\0';
    if (!parse_address(sources->family, item, &place))
        return -EINVAL;
    return kind == '/'   ? add_network(sources, place, cut + 1)
           : kind == '-' ? add_span(sources, place, cut + 1)
                         : add_range(sources, place, 1);
}

int fc_sources_parse(struct fc_sources *sources, sa_family_t family, const char *list, char *problem,
                     size_t room)
{
    *sources = (struct fc_sources){.family = family};
    char *copy = strdup(list);
    if (copy == NULL)
        return -ENOMEM;
    int code = 0;
    char *state;
    for (char *item = strtok_r(copy, ", ", &state); item != NULL && code == 0;
         item = strtok_r(NULL, ", ", &state)) {
        const char *given = list + (item - copy);
        int length = (int)strcspn(given, ", ");
        code = add_item(sources, item);
        if (code == -E2BIG)
            snprintf(problem, room, "too many source addresses: %.*s", length, given);
        else if (code == -EINVAL)
            snprintf(problem, room, "not a source address, network or range of IPv%c: %.*s",
                     family == AF_INET ? '4' : '6', length, given);
    }
    free(copy);
    if (code == 0 && sources->count == 0) {
        snprintf(problem, room, "the list of source addresses is empty");
        code = -EINVAL;
    }
    if (code != 0)
        fc_sources_free(sources);
    return code;
}

/* A slice that hardly any earlier run has used: ports that a recent run left in TIME_WAIT are then no
 * obstacle. */
int fc_sources_loopback(struct fc_sources *sources, uint32_t connections)
{
    uint32_t needed = (connections + FC_LOAD_PER_ADDRESS - 1) / FC_LOAD_PER_ADDRESS;
    uint16_t random;
    *sources = (struct fc_sources){.family = AF_INET};
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return -errno;
    for (uint32_t slice = random; needed > 0; slice++) {
        uint32_t count = needed < SLICE ? needed : SLICE;
        /* 127.0.0.0/24 is left to servers and to everybody else. */
        uint32_t third = slice % 0xffff + 1;
        int code = add_range(sources, (struct place){0, 0x7f000000u | third << 8 | 1}, count);
        if (code != 0) {
            fc_sources_free(sources);
            return code;
        }
        needed -= count;
    }
    return 0;
}

void fc_sources_free(struct fc_sources *sources)
{
    free(sources->ranges);
    memset(sources, 0, sizeof *sources);
}

socklen_t fc_sources_pick(const struct fc_sources *sources, uint32_t number, struct sockaddr_storage *address)
{
    if (sources->count == 0)
        return 0;
    uint32_t nth = number % sources->count;
    const struct fc_sources_range *range = sources->ranges;
    while (nth >= range->count) {
        nth -= range->count;
        range++;
    }
    uint64_t found = range->first + nth;
    if (sources->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl((uint32_t)found)};
        memcpy(address, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    uint64_t halves[2] = {htobe64(range->network), htobe64(found)};
    memcpy(&in6.sin6_addr, halves, sizeof halves);
    memcpy(address, &in6, sizeof in6);
    return sizeof in6;
}
