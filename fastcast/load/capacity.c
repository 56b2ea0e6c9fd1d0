/*
 * capacity.c - reads the kernel's limits and tries the source addresses.  No state; the coordinating thread
 * calls it once.
 */
#include "capacity.h"

#include "plan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT_RANGE "/proc/sys/net/ipv4/ip_local_port_range"
#define PORTS_RESERVED "/proc/sys/net/ipv4/ip_local_reserved_ports"

#define ADDRESS_TEXT (INET6_ADDRSTRLEN + 1)

/* Reads a small file; an empty text when it cannot. */
static void slurp(const char *path, char *text, size_t room)
{
    FILE *file = fopen(path, "re");
    size_t size = file != NULL ? fread(text, 1, room - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    text[size] = '\0';
}

uint32_t fc_capacity_ports(const char *range, const char *reserved)
{
    unsigned long low, high;
    if (sscanf(range, "%lu %lu", &low, &high) != 2 || low > high || high > 65535)
        return 0;
    uint32_t ports = (uint32_t)(high - low + 1);
    char *rest = (char *)reserved;
    /* The kernel prints what is reserved in order and without overlaps. */
    while (*rest >= '0' && *rest <= '9') {
        unsigned long first = strtoul(rest, &rest, 10);
        unsigned long last = *rest == '-' ? strtoul(rest + 1, &rest, 10) : first;
        first = first < low ? low : first;
        last = last > high ? high : last;
        if (first <= last)
            ports -= (uint32_t)(last - first + 1);
        rest += *rest == ',';
    }
    return ports;
}

static void write_address(const struct sockaddr_storage *address, char text[ADDRESS_TEXT])
{
    const void *bytes = address->ss_family == AF_INET
                            ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
                            : (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr;
    if (inet_ntop(address->ss_family, bytes, text, ADDRESS_TEXT) == NULL)
        snprintf(text, ADDRESS_TEXT, "?");
}

/* An interface that an address could be added to. */
static void name_interface(bool loopback, char name[IF_NAMESIZE])
{
    struct ifaddrs *all;
    snprintf(name, IF_NAMESIZE, "%s", loopback ? "lo" : "eth0");
    if (loopback || getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *each = all; each != NULL; each = each->ifa_next) {
        if ((each->ifa_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP && each->ifa_addr != NULL &&
            each->ifa_addr->sa_family == AF_INET) {
            snprintf(name, IF_NAMESIZE, "%s", each->ifa_name);
            break;
        }
    }
    freeifaddrs(all);
}

static int check_ports(const struct fc_load_options *options, const struct fc_target *target, char *problem,
                       size_t room)
{
    char range[64];
    char reserved[4096];
    char interface[IF_NAMESIZE];
    slurp(PORT_RANGE, range, sizeof range);
    slurp(PORTS_RESERVED, reserved, sizeof reserved);
    uint32_t ports = fc_capacity_ports(range, reserved);
    uint32_t sources = target->sources.count > 0 ? target->sources.count : 1;
    if (ports == 0 || options->connections <= (uint64_t)ports * sources)
        return 0;
    uint32_t needed = (options->connections - 1) / ports + 1;
    name_interface(fc_target_is_loopback(target), interface);
    snprintf(problem, room,
             "too few ports: %" PRIu32 " source address%s with %" PRIu32 " ports each (ip_local_port_range) "
             "make %" PRIu64 " connections to one server, and %" PRIu32 " are asked for: %" PRIu32
             " more address%s would do (add them, as in: ip addr add %s dev %s; then give all by --source)",
             sources, sources == 1 ? "" : "es", ports, (uint64_t)ports * sources, options->connections,
             needed - sources, needed - sources == 1 ? "" : "es",
             target->address.ss_family == AF_INET ? "10.0.0.2/24" : "fd00::2/64", interface);
    return -EADDRNOTAVAIL;
}

/* Whether each source address that will be used is one of this machine's. */
static int check_sources(const struct fc_load_options *options, const struct fc_target *target, char *problem,
                         size_t room)
{
    uint32_t count = target->sources.count;
    struct sockaddr_storage address;
    char text[ADDRESS_TEXT];
    char interface[IF_NAMESIZE];
    int code = 0;
    count = count < options->connections ? count : options->connections;
    for (uint32_t i = 0; i < count && code == 0; i++) {
        socklen_t size = fc_sources_pick(&target->sources, i, &address);
        int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *)&address, size) != 0)
            code = -errno;
        if (fd >= 0)
            close(fd);
    }
    if (code != 0) {
        write_address(&address, text);
        name_interface(false, interface);
        snprintf(problem, room, "source address %s cannot be used: %s (add it by: ip addr add %s/%d dev %s)",
                 text, strerror(-code), text, address.ss_family == AF_INET ? 24 : 64, interface);
    }
    return code;
}

static void *try_own_table(void *refused)
{
    /* Nothing is that high: this closes nothing, but shows whether the kernel would let it. */
    *(bool *)refused = syscall(SYS_close_range, ~0u - 1, ~0u, FC_PLAN_UNSHARE) != 0;
    return NULL;
}

/* On a thread that is good for nothing afterwards. */
static bool own_tables_work(void)
{
    pthread_t thread;
    bool refused = true;
    if (pthread_create(&thread, NULL, try_own_table, &refused) != 0)
        return false;
    pthread_join(thread, NULL);
    return !refused;
}

static int check_descriptors(const struct fc_load_options *options, uint32_t threads, char *problem,
                             size_t room)
{
    uint32_t table = fc_plan_table();
    uint64_t there = (uint64_t)table * threads;
    struct rlimit limit = {0, 0};
    if (options->connections <= table)
        return 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (options->connections > there) {
        snprintf(problem, room,
                 "too few descriptors: %" PRIu32 " connections are asked for, and %" PRIu32
                 " threads with %" PRIu64 " descriptors each (RLIMIT_NOFILE) have room for %" PRIu64
                 ": ulimit -n %" PRIu32 " would do",
                 options->connections, threads, (uint64_t)limit.rlim_cur, there,
                 (options->connections - 1) / threads + 1 + fc_plan_table_reserve());
        return -EMFILE;
    }
    if (!own_tables_work()) {
        snprintf(problem, room,
                 "too few descriptors: %" PRIu32 " connections are asked for, the kernel refuses threads a "
                 "table of their own, and that of the process, of %" PRIu64
                 " (RLIMIT_NOFILE), has room for %" PRIu32 ": ulimit -n %" PRIu32 " would do",
                 options->connections, (uint64_t)limit.rlim_cur, table,
                 options->connections + fc_plan_table_reserve());
        return -EMFILE;
    }
    return 0;
}

static int check_files(const struct fc_load_options *options, const struct fc_target *target, char *problem,
                       size_t room)
{
    char text[128];
    uint64_t used, unused, most;
    slurp("/proc/sys/fs/file-nr", text, sizeof text);
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &used, &unused, &most) != 3)
        return 0;
    /* On loopback the server's ends are files of this machine, too. */
    uint64_t needed = (uint64_t)options->connections * (fc_target_is_loopback(target) ? 2 : 1);
    if (most >= used && needed <= most - used)
        return 0;
    snprintf(problem, room,
             "too few files on this machine: %" PRIu64 " are needed%s, %" PRIu64 " are open, and fs.file-max "
             "is %" PRIu64 ": sysctl -w fs.file-max=%" PRIu64 " would do",
             needed, fc_target_is_loopback(target) ? " for both ends" : "", used, most,
             (needed + used) / 1000 * 1000 + 10000);
    return -ENFILE;
}

int fc_capacity_check(const struct fc_load_options *options, const struct fc_target *target, uint32_t threads,
                    char *problem, size_t room)
{
    int code = check_ports(options, target, problem, room);
    if (code == 0)
        code = check_sources(options, target, problem, room);
    if (code == 0)
        code = check_descriptors(options, threads, problem, room);
    return code != 0 ? code : check_files(options, target, problem, room);
}
