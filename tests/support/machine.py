"""A machine that is made up, for the doctor to examine."""

from __future__ import annotations

from dataclasses import replace

from fastcast.doctor.facts import Facts, Probe

GIB = 2**30

N = 200_000
"""Connections that fit it easily, in every role."""

ROOMY = Facts(
    sysctls={
        "fs.epoll.max_user_watches": (10_000_000,),
        "fs.file-max": (10_000_000,),
        "fs.file-nr": (1000, 0, 10_000_000),
        "fs.nr_open": (1_048_576,),
        "kernel.io_uring_disabled": (0,),
        "kernel.pid_max": (4_194_304,),
        "kernel.threads-max": (192_730,),
        "net.core.somaxconn": (65_535,),
        "net.ipv4.ip_local_port_range": (32_768, 60_999),
        "net.ipv4.tcp_ehash_entries": (1_048_576,),
        "net.ipv4.tcp_max_syn_backlog": (65_536,),
        "net.ipv4.tcp_max_tw_buckets": (1_000_000,),
        "net.ipv4.tcp_mem": (4_000_000, 5_000_000, 8_000_000),
        "net.ipv4.tcp_rmem": (4096, 131_072, 6_291_456),
        "net.ipv4.tcp_syncookies": (1,),
        "net.ipv4.tcp_tw_reuse": (1,),
        "net.ipv4.tcp_wmem": (4096, 16_384, 4_194_304),
        "net.netfilter.nf_conntrack_buckets": (262_144,),
        "net.netfilter.nf_conntrack_count": (100,),
        "net.netfilter.nf_conntrack_max": (1_048_576,),
        "vm.max_map_count": (65_530,),
        "vm.overcommit_memory": (0,),
    },
    cores=2,
    nofile_soft=1_048_576,
    nofile_hard=1_048_576,
    nproc=100_000,
    threads=500,
    memory_total=64 * GIB,
    memory_available=60 * GIB,
    commit_room=30 * GIB,
    addresses=64,
    probe=Probe(private_tables=True, uring_error=0, tracking=True),
)


def with_sysctl(name: str, *values: int, facts: Facts = ROOMY) -> Facts:
    """The machine with one sysctl set; with no values, without it."""
    others = {key: each for key, each in facts.sysctls.items() if key != name}
    return replace(facts, sysctls=others | ({name: values} if values else {}))
