/*
 * target.c - the URL, its address and the source addresses.  Owned by the coordinating thread until the
 * workers start, constant afterwards.
 */
#include "target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* `prefers` is the family to ask for first. */
static int resolve(struct fc_target *target, int prefers, const char *host, const char *port, char *problem,
                   size_t room)
{
    struct addrinfo hints = {.ai_family = prefers, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0) {
        hints.ai_family = prefers == AF_INET ? AF_INET6 : AF_INET;
        code = getaddrinfo(host, port, &hints, &found);
    }
    if (code != 0) {
        snprintf(problem, room, "cannot resolve %s: %s", host, gai_strerror(code));
        return -EHOSTUNREACH;
    }
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* Cuts "HOST[:PORT]" or "[IPv6][:PORT]" up (RFC 3986 section 3.2).  False when it is neither. */
static bool split_authority(char *authority, char **host, const char **port)
{
    char *end = strchr(authority, ':');
    *host = authority;
    *port = "80";
    if (*authority == '[') {
        *host = authority + 1;
        end = strchr(authority, ']');
        if (end == NULL)
            return false;
        *end++ = '\0';
    }
    if (end != NULL && *end == ':') {
        char *rest;
        *end = '\0';
        *port = end + 1;
        unsigned long number = strtoul(*port, &rest, 10);
        if (**port < '0' || **port > '9' || *rest != '\0' || number == 0 || number > 65535)
            return false;
    } else if (end != NULL && *end != '\0') {
        return false;
    }
    return **host != '\0';
}

static bool is_printable(const char *text)
{
    while (*text > ' ' && *text != 0x7f)
        text++;
    return *text == '\0';
}

static int parse_url(struct fc_target *target, const char *url, int prefers, char *problem, size_t room)
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
    if (asprintf(&target->path, "%s%.*s", *path == '/' ? "" : "/", (int)strcspn(path, "#"), path) < 0)
        target->path = NULL;
    char *copy = strndup(authority, length);
    if (target->authority == NULL || target->path == NULL || copy == NULL) {
        free(copy);
        return -ENOMEM;
    }
    char *host;
    const char *port;
    int code = -EINVAL;
    /* What goes into the request as it stands must not end its line. */
    if (!is_printable(url) || !split_authority(copy, &host, &port))
        snprintf(problem, room, "the URL has no valid host and port, or a space in it: %s", url);
    else
        code = resolve(target, prefers, host, port, problem, room);
    free(copy);
    return code;
}

bool fc_target_is_loopback(const struct fc_target *target)
{
    if (target->address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&target->address;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)&target->address;
    return ntohl(in->sin_addr.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
}

int fc_target_init(struct fc_target *target, const char *url, const char *sources, uint32_t connections,
                   char *problem, size_t room)
{
    memset(target, 0, sizeof *target);
    /* IPv4 first, since on loopback only it has source addresses for the taking; but not when those that are
     * given are of IPv6. */
    int prefers = sources != NULL && strchr(sources, ':') != NULL ? AF_INET6 : AF_INET;
    int code = parse_url(target, url, prefers, problem, room);
    if (code == 0 && sources != NULL)
        code = fc_sources_parse(&target->sources, target->address.ss_family, sources, problem, room);
    else if (code == 0 && target->address.ss_family == AF_INET && fc_target_is_loopback(target))
        code = fc_sources_loopback(&target->sources, connections);
    if (code != 0)
        fc_target_free(target);
    return code;
}

void fc_target_free(struct fc_target *target)
{
    free(target->authority);
    free(target->path);
    fc_sources_free(&target->sources);
    memset(target, 0, sizeof *target);
}
