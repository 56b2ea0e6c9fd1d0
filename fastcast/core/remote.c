/* The address of a client's socket, asked of the kernel when somebody wants to know it: it isn't kept. */
#include "remote.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

void fc_remote_of(const struct fc_client *client, char text[FC_REMOTE_MAX], uint16_t *port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
    socklen_t size = sizeof address;
    const void *host = NULL;

    text[0] = 0;
    *port = 0;
    /* It fails when the client has gone already; then nobody will miss it. */
    if (getpeername((int)client->fd, &address.any, &size))
        return;
    if (address.any.sa_family == AF_INET) {
        host = &address.in.sin_addr;
        *port = ntohs(address.in.sin_port);
    } else if (address.any.sa_family == AF_INET6) {
        host = &address.in6.sin6_addr;
        *port = ntohs(address.in6.sin6_port);
    }
    if (host && !inet_ntop(address.any.sa_family, host, text, FC_REMOTE_MAX))
        text[0] = 0;
}
