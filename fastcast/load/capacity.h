/*
 * capacity.h - whether this machine has what a run needs, asked before anything is opened.
 */
#ifndef FC_CAPACITY_H
#define FC_CAPACITY_H

#include "load.h"
#include "target.h"

/* How many ports a source address has for connections, given what ip_local_port_range ("32768 60999") and
 * ip_local_reserved_ports ("8080,40000-40010") say.  0 when the former makes no sense. */
uint32_t fc_capacity_ports(const char *range, const char *reserved);

/* Checks ports, source addresses and descriptors for `threads` threads.  Returns 0; -EADDRNOTAVAIL, -EMFILE
 * or -ENFILE with one line in `problem` that says what there is, what is needed and what would do. */
int fc_capacity_check(const struct fc_load_options *options, const struct fc_target *target, uint32_t threads,
                    char *problem, size_t room);

#endif
