/*
 * target.c - the URL, its address and the source addresses.  Owned by the coordinating thread until the
 * workers start, constant afterwards.
 */
#include "target.h"

#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define MAX_RANGES 4096u
#define SLICE 254u /* of a /24, without its first and last address */

static int resolve(struct fc_target *target, const char *host, const char *port, char *problem, size_t room)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    /* IPv4 first: only there are source addresses for the taking. */
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0) {
        hints.ai_family = AF_INET6;
        code = getaddrinfo(host, port, &hints, &found);
    }
    if (code != 0) {
        snprintf(problem, room, "cannot resolve %s: %s", host, gai_strerror(code));
        return -EINVAL;
    }
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int parse_url(struct fc_target *target, const char *url, char *problem, size_t room)
{
    static const char scheme[] = "ws://";
    if (strncasecmp(url, scheme, sizeof scheme - 1) != 0) {
        snprintf(problem, room, "the URL does not start with ws://: %s", url);
        return -EINVAL;
    }
    const char *authority = url + sizeof scheme - 1;
    size_t length = strcspn(authority, "/?#");
    const char *path = authority + length;
    target->authority = strndup(authority, length);
    size_t path_length = strcspn(path, "#");
    if (asprintf(&target->path, "%s%.*s", *path == '/' ? "" : "/", (int)path_length, path) < 0)
        target->path = NULL;
    char *host = strndup(authority, length);
    if (target->authority == NULL || target->path == NULL || host == NULL) {
        free(host);
        return -ENOMEM;
    }
    char *name = host;
    char *end;
    if (*host == '[') {
        name = host + 1;
        end = strchr(name, ']');
        if (end != NULL)
            *end++ = '\0';
    } else {
        end = strchr(host, ':');
    }
    const char *port = "80";
    int code = 0;
    if (end == NULL && *host == '[') {
        code = -EINVAL;
    } else if (end != NULL && *end == ':') {
        *end = '\0';
        port = end + 1;
        char *rest;
        unsigned long number = strtoul(port, &rest, 10);
        code = *rest != '\0' || number == 0 || number > 65535 ? -EINVAL : 0;
    } else if (end != NULL && *end != '\0') {
        code = -EINVAL;
    }
    if (code != 0 || *name == '\0') {
        snprintf(problem, room, "the URL has no valid host and port: %s", url);
        code = -EINVAL;
    } else {
        code = resolve(target, name, port, problem, room);
    }
    free(host);
    return code;
}

static int add_range(struct fc_target *target, uint32_t first, uint32_t count)
{
    struct fc_target_range *ranges = realloc(target->ranges, (target->ranges_used + 1) * sizeof *ranges);
    if (ranges == NULL)
        return -ENOMEM;
    target->ranges = ranges;
    ranges[target->ranges_used++] = (struct fc_target_range){first, count};
    target->sources += count;
    return 0;
}

static int parse_source(struct fc_target *target, const char *text)
{
    char address[INET_ADDRSTRLEN];
    size_t length = strcspn(text, "/");
    unsigned long prefix = 32;
    if (length >= sizeof address)
        return -EINVAL;
    memcpy(address, text, length);
    address[length] = '\0';
    if (text[length] == '/') {
        char *rest;
        prefix = strtoul(text + length + 1, &rest, 10);
        if (*rest != '\0' || rest == text + length + 1 || prefix < 8 || prefix > 32)
            return -EINVAL;
    }
    struct in_addr parsed;
    if (inet_pton(AF_INET, address, &parsed) != 1)
        return -EINVAL;
    uint32_t size = (uint32_t)1 << (32 - prefix);
    uint32_t first = ntohl(parsed.s_addr) & ~(size - 1);
    /* The first and the last address of a network that has room for hosts are not hosts. */
    return size <= 2 ? add_range(target, first, size) : add_range(target, first + 1, size - 2);
}

static int parse_sources(struct fc_target *target, const char *sources, char *problem, size_t room)
{
    char *copy = strdup(sources);
    if (copy == NULL)
        return -ENOMEM;
    int code = 0;
    char *state;
    for (char *item = strtok_r(copy, ", ", &state); item != NULL && code == 0;
         item = strtok_r(NULL, ", ", &state)) {
        code = target->ranges_used < MAX_RANGES ? parse_source(target, item) : -E2BIG;
        if (code != 0)
            snprintf(problem, room, "not a source address or network: %s", item);
    }
    free(copy);
    if (code == 0 && target->address.ss_family != AF_INET) {
        snprintf(problem, room, "source addresses are IPv4 and the target is not");
        code = -EINVAL;
    }
    return code;
}

/* A slice that hardly any earlier run has used: ports that a recent run left in TIME_WAIT are then no
 * obstacle. */
static int choose_loopback(struct fc_target *target, uint32_t connections)
{
    uint32_t needed = (connections + FC_LOAD_PER_ADDRESS - 1) / FC_LOAD_PER_ADDRESS;
    uint16_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return -errno;
    uint32_t slice = random;
    while (needed > 0) {
        uint32_t count = needed < SLICE ? needed : SLICE;
        /* 127.0.0.0/24 is left to servers and to everybody else. */
        uint32_t third = slice % 0xffff + 1;
        int code = add_range(target, 0x7f000000u | third << 8 | 1, count);
        if (code != 0)
            return code;
        needed -= count;
        slice++;
    }
    return 0;
}

static bool is_loopback(const struct fc_target *target)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&target->address;
    return target->address.ss_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

int fc_target_init(struct fc_target *target, const char *url, const char *sources, uint32_t connections,
                   char *problem, size_t room)
{
    memset(target, 0, sizeof *target);
    int code = parse_url(target, url, problem, room);
    if (code == 0 && sources != NULL)
        code = parse_sources(target, sources, problem, room);
    else if (code == 0 && is_loopback(target))
        code = choose_loopback(target, connections);
    if (code != 0)
        fc_target_free(target);
    return code;
}

void fc_target_free(struct fc_target *target)
{
    free(target->authority);
    free(target->path);
    free(target->ranges);
    memset(target, 0, sizeof *target);
}

bool fc_target_source(const struct fc_target *target, uint32_t index, struct sockaddr_in *source)
{
    if (target->sources == 0)
        return false;
    uint32_t nth = index % target->sources;
    const struct fc_target_range *range = target->ranges;
    while (nth >= range->count) {
        nth -= range->count;
        range++;
    }
    *source = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(range->first + nth)};
    return true;
}
