"""The doctor's arithmetic: each limit on both sides of its boundary, on machines that are made up."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest

from fastcast import launch
from fastcast.config import Config
from fastcast.doctor import needs
from fastcast.doctor.facts import Facts, Group, Probe
from fastcast.doctor.needs import Check, Role, Verdict, check_all
from tests.support.machine import GIB, ROOMY, N, with_sysctl


def check(facts: Facts, name: str, role: Role = Role.SERVER, connections: int = N) -> Check:
    """The one check of this name."""
    found = [each for each in check_all(facts, connections, role) if each.name == name]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("role", list(Role))
def test_everything_fits_a_roomy_machine_and_there_is_nothing_to_set(role: Role) -> None:
    checks = check_all(ROOMY, N, role)
    assert [each.name for each in checks if each.verdict is not Verdict.FITS] == []
    assert [each.name for each in checks if each.settings] == []


@pytest.mark.parametrize("role", list(Role))
def test_a_machine_that_tells_nothing_is_unknown_and_never_an_error(role: Role) -> None:
    verdicts = {each.name: each.verdict for each in check_all(Facts(nofile_hard=1024), N, role)}
    assert verdicts["memory"] is Verdict.UNKNOWN
    assert verdicts["fs.file-max"] is Verdict.UNKNOWN
    assert verdicts["ports x addresses"] is Verdict.UNKNOWN
    assert verdicts["nofile hard"] is Verdict.SHORT
    notes = {each.name: each.note for each in check_all(Facts(), N, role)}
    assert {notes[name] for name in ("memory", "fs.file-max", "kernel.threads-max")} == {needs.UNSEEN}


def test_what_is_unknown_has_no_line_to_set() -> None:
    checks = check_all(Facts(nofile_hard=1_048_576, probe=ROOMY.probe), N, Role.BOTH)
    assert [each.name for each in checks if each.settings] == []


class TestBoundaries:
    """Short below the need, tight from there on, fits with a tenth to spare."""

    @pytest.mark.parametrize(
        "name",
        [
            "fs.epoll.max_user_watches",
            "fs.file-max",
            "kernel.pid_max",
            "kernel.threads-max",
            "net.netfilter.nf_conntrack_max",
            "vm.max_map_count",
        ],
    )
    def test_of_a_number_that_the_kernel_enforces(self, name: str) -> None:
        need = check(ROOMY, name).need
        assert need is not None
        below, at, above = (check(with_sysctl(name, value), name) for value in (need - 1, need, 2 * need))
        assert [below.verdict, at.verdict, above.verdict] == [Verdict.SHORT, Verdict.TIGHT, Verdict.FITS]
        assert above.lines == []
        (line,) = below.lines
        assert line.startswith(f"sysctl -w {name}=")
        # What the line sets is enough.
        raised = with_sysctl(name, int(line.partition("=")[2]))
        assert check(raised, name).verdict is Verdict.FITS

    def test_of_nr_open(self) -> None:
        need = check(ROOMY, "fs.nr_open").need
        assert need is not None
        assert check(with_sysctl("fs.nr_open", need), "fs.nr_open").verdict is Verdict.FITS
        assert check(with_sysctl("fs.nr_open", need - 1), "fs.nr_open").verdict is Verdict.SHORT

    def test_of_memory(self) -> None:
        need = check(ROOMY, "memory").need
        assert need is not None
        assert check(replace(ROOMY, memory_available=need - 1), "memory").verdict is Verdict.SHORT
        assert check(replace(ROOMY, memory_available=need), "memory").verdict is Verdict.TIGHT
        assert check(replace(ROOMY, memory_available=2 * need), "memory").verdict is Verdict.FITS

    def test_of_the_control_group(self) -> None:
        need = check(ROOMY, "memory").need
        assert need is not None
        used = 12_345
        for limit, verdict in ((need + used - 1, Verdict.SHORT), (2 * need + used, Verdict.FITS)):
            facts = replace(ROOMY, cgroup_memory=Group("/sys/fs/cgroup/x/memory.max", limit, used))
            found = check(facts, "cgroup memory")
            assert (found.verdict, found.value, found.need) == (verdict, limit - used, need)
            assert bool(found.lines) == (verdict is Verdict.SHORT)
            assert all(line.endswith(" > /sys/fs/cgroup/x/memory.max") for line in found.lines)

    def test_of_the_processes_of_a_control_group(self) -> None:
        few = replace(ROOMY, cgroup_pids=Group("/sys/fs/cgroup/x/pids.max", 20, 15))
        assert check(few, "cgroup pids").verdict is Verdict.SHORT
        enough = replace(ROOMY, cgroup_pids=Group("/sys/fs/cgroup/x/pids.max", 2000, 15))
        assert check(enough, "cgroup pids").verdict is Verdict.FITS

    def test_of_processes_of_a_user_of_which_root_has_none(self) -> None:
        few = replace(ROOMY, nproc=501, own_threads=500)
        assert check(few, "nproc").verdict is Verdict.SHORT
        assert check(few, "nproc").lines == ["ulimit -u 1024"]
        assert check(replace(few, own_threads=50), "nproc").verdict is Verdict.FITS
        names = [each.name for each in check_all(replace(few, privileged=True), N, Role.SERVER)]
        assert "nproc" not in names


class TestOpenFiles:
    """RLIMIT_NOFILE counts for each thread where it has an fd table of its own."""

    @pytest.mark.parametrize("limit", [128, 200, 1024, 4096, 20_000, 524_288])
    @pytest.mark.parametrize("connections", [1000, 39_000, 200_000, 1_000_000, 10_000_000])
    def test_shards_are_as_many_as_the_server_starts(
        self, monkeypatch: pytest.MonkeyPatch, limit: int, connections: int
    ) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: {0, 1})
        started = launch.shards_of(Config(max_connections=connections))
        assert needs.shards_for(connections, limit, 2) == started

    def test_a_million_fit_in_tables_of_twenty_thousand(self) -> None:
        facts = replace(ROOMY, nofile_soft=20_000, nofile_hard=20_000)
        assert check(facts, "nofile hard", connections=1_000_000).verdict is Verdict.FITS

    def test_one_shared_table_must_hold_them_all(self) -> None:
        shared = replace(ROOMY, nofile_hard=20_000, probe=Probe(private_tables=False))
        found = check(shared, "nofile hard")
        assert found.verdict is Verdict.SHORT
        assert found.need is not None
        assert N < found.need < N + 1000
        assert check(replace(shared, nofile_hard=found.need), "nofile hard").verdict is Verdict.TIGHT
        assert check(replace(shared, nofile_hard=found.need - 1), "nofile hard").verdict is Verdict.SHORT

    @pytest.mark.parametrize("role", list(Role))
    def test_what_is_needed_is_the_least_that_fits(self, role: Role) -> None:
        need = check(ROOMY, "nofile hard", role).need
        assert need is not None
        assert check(replace(ROOMY, nofile_hard=need), "nofile hard", role).verdict is Verdict.TIGHT
        short = check(replace(ROOMY, nofile_hard=need - 1), "nofile hard", role)
        assert short.verdict is Verdict.SHORT
        (line,) = short.lines
        raised = int(line.removeprefix("ulimit -n "))
        assert check(replace(ROOMY, nofile_hard=raised), "nofile hard", role).verdict is Verdict.FITS

    def test_no_limit_is_enough(self) -> None:
        assert check(replace(ROOMY, nofile_soft=None, nofile_hard=None), "nofile hard").value is None
        facts = replace(ROOMY, nofile_soft=None, nofile_hard=None)
        assert check(facts, "nofile hard").verdict is Verdict.FITS

    def test_a_low_soft_limit_is_raised_by_the_command(self) -> None:
        found = check(replace(ROOMY, nofile_soft=1024, nofile_hard=524_288), "nofile soft")
        assert (found.verdict, found.note) == (Verdict.FITS, "raised to the hard limit at the start")

    def test_a_line_that_exceeds_nr_open_raises_that_first(self) -> None:
        facts = with_sysctl("fs.nr_open", 4096, facts=replace(ROOMY, probe=Probe(private_tables=False)))
        found = check(replace(facts, nofile_soft=4096, nofile_hard=4096), "fs.nr_open")
        limit = check(replace(facts, nofile_soft=4096, nofile_hard=4096), "nofile hard")
        assert found.lines == [f"sysctl -w fs.nr_open={limit.lines[0].removeprefix('ulimit -n ')}"]

    def test_a_line_for_a_limit_that_is_tight_already_is_no_obstacle(self) -> None:
        shared = replace(ROOMY, probe=Probe(private_tables=False))
        need = check(shared, "nofile hard").need
        assert need is not None
        facts = with_sysctl("fs.nr_open", need, facts=replace(shared, nofile_soft=need, nofile_hard=need))
        found = check(facts, "fs.nr_open")
        raised = check(facts, "nofile hard").lines[0].removeprefix("ulimit -n ")
        assert (found.verdict, found.lines) == (Verdict.TIGHT, [f"sysctl -w fs.nr_open={raised}"])

    def test_more_than_there_can_be_shards_for_is_short(self) -> None:
        many = check(replace(ROOMY, nofile_hard=8192), "nofile hard", connections=100_000_000)
        assert many.verdict is Verdict.SHORT

    def test_root_passes_file_max_at_the_cost_of_others(self) -> None:
        small = with_sysctl("fs.file-max", 1000)
        assert check(small, "fs.file-max").verdict is Verdict.SHORT
        assert check(replace(small, privileged=True), "fs.file-max").verdict is Verdict.TIGHT

    def test_files_that_are_open_already_count(self) -> None:
        before = check(ROOMY, "fs.file-max").need
        after = check(with_sysctl("fs.file-nr", 51_000, 0, 10_000_000), "fs.file-max").need
        assert before is not None
        assert after == before + 50_000


class TestMemory:
    """Both sides of a connection count where both are on the machine."""

    def test_both_ends_take_twice_as_much(self) -> None:
        one, both = (check(ROOMY, "memory", role).need for role in (Role.SERVER, Role.BOTH))
        assert one is not None
        assert both is not None
        assert 1.9 < both / one < 2.1

    def test_a_million_takes_some_four_and_a_half_gibibytes(self) -> None:
        need = check(ROOMY, "memory", connections=1_000_000).need
        assert need is not None
        assert 4.3 * GIB < need < 5 * GIB

    def test_pages_for_a_message_to_each(self) -> None:
        def verdict(pressure: int, most: int) -> Verdict:
            name = "net.ipv4.tcp_mem"
            return check(with_sysctl(name, pressure, pressure, most), name).verdict

        assert verdict(N, 2 * N) is Verdict.FITS
        assert verdict(N - 1, 2 * N) is Verdict.TIGHT
        assert verdict(N // 20, N // 10) is Verdict.TIGHT
        assert verdict(N // 20, N // 10 - 1) is Verdict.SHORT

    def test_pages_are_never_to_be_more_than_half_of_the_memory(self) -> None:
        name = "net.ipv4.tcp_mem"
        facts = with_sysctl(name, 1000, 1000, 1000, facts=replace(ROOMY, memory_total=GIB))
        (line,) = check(facts, name).lines
        assert int(line.strip("'").split()[-1]) * 4096 == GIB // 2

    def test_pages_are_not_seen_in_another_namespace(self) -> None:
        assert check(with_sysctl("net.ipv4.tcp_mem"), "net.ipv4.tcp_mem").verdict is Verdict.UNKNOWN
        assert check(with_sysctl("net.ipv4.tcp_mem"), "net.ipv4.tcp_wmem").verdict is Verdict.UNKNOWN

    @pytest.mark.parametrize(("name", "place"), [("net.ipv4.tcp_wmem", 2), ("net.ipv4.tcp_rmem", 1)])
    def test_a_hundredth_of_the_clients_may_stall(self, name: str, place: int) -> None:
        # 2,000 of them.
        fair = ROOMY.sysctls["net.ipv4.tcp_mem"][1] * 4096 // 2000
        for buffer, verdict in ((fair, Verdict.FITS), (fair + 1, Verdict.TIGHT)):
            values = [4096, 16_384, 2 * fair]
            values[place] = buffer
            found = check(with_sysctl(name, *values), name)
            assert found.verdict is verdict
            for line in found.lines:
                lower = [int(word) for word in line.partition("=")[2].strip("'").split()]
                assert lower[place] <= fair
                assert lower == sorted(lower)

    def test_strict_overcommit_must_cover_the_stacks(self) -> None:
        name = "vm.overcommit_memory"
        strict = with_sysctl(name, 2)
        need = check(strict, name).need
        assert need is not None
        assert check(replace(strict, commit_room=need - 1), name).verdict is Verdict.SHORT
        assert check(replace(strict, commit_room=2 * need), name).verdict is Verdict.FITS
        assert check(replace(ROOMY, commit_room=0), name).verdict is Verdict.FITS


class TestQueues:
    """When everybody comes back at once."""

    def test_a_short_queue_is_tight_and_a_hopeless_one_short(self) -> None:
        name = "net.core.somaxconn"
        shards = 2  # with 1,048,576 files in a table
        need = check(ROOMY, name).need
        assert need == 65_535  # (200,000 - 60,000) / 2 is more than there can be
        hundredth = N // 100 // shards
        for value, verdict in (
            (need, Verdict.FITS),
            (need - 1, Verdict.TIGHT),
            (hundredth, Verdict.TIGHT),
            (hundredth - 1, Verdict.SHORT),
        ):
            assert check(with_sysctl(name, value), name).verdict is verdict

    def test_more_shards_have_more_queues(self) -> None:
        few_files = replace(ROOMY, nofile_hard=20_000)
        assert check(few_files, "net.core.somaxconn").need == -(-(N - 60_000) // 11)

    def test_who_may_use_less_of_the_processors_accepts_less(self) -> None:
        few = replace(ROOMY, nofile_hard=20_000, quota=0.5)
        assert check(few, "net.core.somaxconn").need == -(-(N - 15_000) // 11)
        assert check(few, "cores").note == "accept some 15,000 a second; its group may use 0.5"
        many = replace(few, quota=8.0)
        assert check(many, "net.core.somaxconn").need == -(-(N - 60_000) // 11)

    def test_the_syn_backlog_counts_only_without_cookies(self) -> None:
        name = "net.ipv4.tcp_max_syn_backlog"
        assert check(with_sysctl(name, 16), name).verdict is Verdict.FITS
        without = with_sysctl("net.ipv4.tcp_syncookies", 0)
        assert check(with_sysctl(name, 16, facts=without), name).verdict is Verdict.SHORT
        assert check(with_sysctl(name, 100_000, facts=without), name).verdict is Verdict.FITS

    @pytest.mark.parametrize(("value", "verdict"), [(0, "tight"), (1, "fits"), (2, "tight")])
    def test_cookies_are_to_be_sent_when_a_queue_is_full_and_only_then(
        self, value: int, verdict: str
    ) -> None:
        found = check(with_sysctl("net.ipv4.tcp_syncookies", value), "net.ipv4.tcp_syncookies")
        assert found.verdict.value == verdict
        assert found.lines == ([] if value == 1 else ["sysctl -w net.ipv4.tcp_syncookies=1"])

    def test_a_load_client_has_no_queues(self) -> None:
        names = {each.name for each in check_all(ROOMY, N, Role.LOAD)}
        assert names & {"net.core.somaxconn", "net.ipv4.tcp_syncookies", "io_uring"} == set()


class TestTables:
    """Connection tracking, and the hash of all connections."""

    def test_a_connection_within_the_machine_is_one_entry(self) -> None:
        name = "net.netfilter.nf_conntrack_max"
        assert check(ROOMY, name, Role.BOTH).need == N + 100

    @pytest.mark.parametrize(
        "facts",
        [
            replace(ROOMY, probe=replace(ROOMY.probe, tracking=False)),
            with_sysctl("net.netfilter.nf_conntrack_max"),
            with_sysctl("net.netfilter.nf_conntrack_max", 0),
        ],
    )
    def test_a_table_that_nobody_uses_is_no_limit(self, facts: Facts) -> None:
        found = check(facts, "net.netfilter.nf_conntrack_max", connections=100_000_000)
        assert (found.verdict, found.need) == (Verdict.FITS, None)

    def test_chains_are_short_before_the_kernel_refuses_a_connection(self) -> None:
        name = "net.netfilter.nf_conntrack_buckets"
        need = check(ROOMY, name).need
        assert need == 32_768  # 400,200 entries, 16 in a bucket, and a power of two
        assert check(with_sysctl(name, need), name).verdict is Verdict.FITS
        assert check(with_sysctl(name, 20_000), name).verdict is Verdict.TIGHT
        assert check(with_sysctl(name, 16_384), name).verdict is Verdict.SHORT

    def test_long_chains_of_connections_only_take_time(self) -> None:
        name = "net.ipv4.tcp_ehash_entries"
        assert check(with_sysctl(name, N // 4), name).verdict is Verdict.FITS
        found = check(with_sysctl(name, N // 4 - 1), name)
        assert found.verdict is Verdict.TIGHT
        assert "thash_entries=262144" in found.lines[0]
        assert "tcp_child_ehash_entries=262144" in found.lines[1]

    def test_a_namespace_that_shares_the_hash_tells_a_negative_number(self) -> None:
        name = "net.ipv4.tcp_ehash_entries"
        assert check(with_sysctl(name, -262_144), name).value == 262_144


class TestPorts:
    """A source address has some 28,000 of them for one destination."""

    NAME = "ports x addresses"

    def test_a_server_needs_none(self) -> None:
        found = check(replace(ROOMY, addresses=1), self.NAME)
        assert (found.verdict, found.need) == (Verdict.FITS, None)

    def test_loopback_has_addresses_enough(self) -> None:
        found = check(replace(ROOMY, addresses=0), self.NAME, Role.BOTH, 10_000_000)
        assert found.verdict is Verdict.FITS

    def test_too_few_are_told_exactly(self) -> None:
        found = check(replace(ROOMY, addresses=1, device="ens5"), self.NAME, Role.LOAD)
        assert (found.verdict, found.value, found.need) == (Verdict.SHORT, 28_232, N)
        assert found.lines == [
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
            "ip addr add ADDRESS/PREFIX dev ens5  # for 6 more addresses",
        ]
        raised = with_sysctl(
            "net.ipv4.ip_local_port_range", 1024, 65_535, facts=replace(ROOMY, addresses=1 + 6)
        )
        assert check(raised, self.NAME, Role.LOAD).verdict is Verdict.FITS

    def test_reserved_ports_are_not_there(self) -> None:
        facts = replace(ROOMY, addresses=2, reserved_ports=232)
        assert check(facts, self.NAME, Role.LOAD).value == 56_000

    def test_both_sides_of_the_boundary(self) -> None:
        facts = replace(ROOMY, addresses=1)
        for connections, verdict in (
            (28_233, Verdict.SHORT),
            (28_232, Verdict.TIGHT),
            (14_116, Verdict.FITS),
        ):
            assert check(facts, self.NAME, Role.LOAD, connections).verdict is verdict

    @pytest.mark.parametrize(
        ("reuse", "role", "addresses", "verdict"),
        [
            (0, Role.LOAD, 8, "tight"),
            (0, Role.LOAD, 16, "fits"),
            (1, Role.LOAD, 8, "fits"),
            (2, Role.LOAD, 8, "tight"),
            (2, Role.BOTH, 0, "fits"),
        ],
    )
    def test_ports_of_the_last_run_are_used_again(
        self, reuse: int, role: Role, addresses: int, verdict: str
    ) -> None:
        facts = with_sysctl("net.ipv4.tcp_tw_reuse", reuse, facts=replace(ROOMY, addresses=addresses))
        assert check(facts, "net.ipv4.tcp_tw_reuse", role).verdict.value == verdict

    def test_too_few_places_in_time_wait_are_no_obstacle(self) -> None:
        name = "net.ipv4.tcp_max_tw_buckets"
        assert check(with_sysctl(name, N), name, Role.LOAD).verdict is Verdict.FITS
        assert check(with_sysctl(name, N - 1), name, Role.LOAD).verdict is Verdict.TIGHT


class TestUring:
    """io_uring saves CPU time; without it nothing is lost."""

    @pytest.mark.parametrize(
        ("error", "verdict"), [(0, Verdict.FITS), (1, Verdict.TIGHT), (None, Verdict.UNKNOWN)]
    )
    def test_what_was_tried_counts(self, error: int | None, verdict: Verdict) -> None:
        facts = replace(ROOMY, probe=replace(ROOMY.probe, uring_error=error))
        assert check(facts, "io_uring").verdict is verdict
        assert check(facts, "io_uring").lines == []

    def test_the_switch_is_named_where_it_is_the_reason(self) -> None:
        facts = replace(ROOMY, probe=replace(ROOMY.probe, uring_error=1))
        found = check(with_sysctl("kernel.io_uring_disabled", 2, facts=facts), "io_uring")
        assert found.lines == ["sysctl -w kernel.io_uring_disabled=0"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(9999, "9,999"), (28_232, "28.2 k"), (1_940_000, "1.94 M"), (473_654_305_648, "474 G")],
)
def test_large_numbers_are_short_for_people(number: int, text: str) -> None:
    assert needs._short(number) == text
