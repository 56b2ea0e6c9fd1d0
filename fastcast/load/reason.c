/*
 * reason.c - errno in words.  Pure, any thread.
 */
#include "reason.h"

#include <errno.h>
#include <string.h>

const char *fc_reason(int error, char *text, size_t room)
{
    switch (error) {
    case EMFILE: return "too few descriptors for the process (EMFILE)";
    case ENFILE: return "too few descriptors on the machine (ENFILE)";
    case EADDRNOTAVAIL: return "no free port at the source (EADDRNOTAVAIL)";
    case EADDRINUSE: return "source address in use (EADDRINUSE)";
    case ECONNREFUSED: return "connection refused (ECONNREFUSED)";
    case ECONNRESET: return "reset by the server (ECONNRESET)";
    case EPIPE: return "closed by the server (EPIPE)";
    case ETIMEDOUT: return "no answer from the host (ETIMEDOUT)";
    case ENOBUFS: return "no buffer space in the kernel (ENOBUFS)";
    case ENOMEM: return "out of memory (ENOMEM)";
    case ENETUNREACH: return "network unreachable (ENETUNREACH)";
    case EHOSTUNREACH: return "host unreachable (EHOSTUNREACH)";
    case EPERM: return "forbidden by a firewall (EPERM)";
    default: return strerror_r(error, text, room);
    }
}
