"""Includes and imports run one way, and other rules of the source that a reader relies on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastcast"
CORE = PACKAGE / "core"
LOAD = PACKAGE / "load"
BENCH = PACKAGE / "bench"
ADMIN = PACKAGE / "admin"
BUS = PACKAGE / "bus"

MOST_LINES = 620

# From the top down: a file includes its own layer and those below. A new file needs a place here.
LAYERS = (
    ("door.c", "door.h", "door_history.c", "hub.c", "hub.h"),
    ("shard.c",),
    ("accept.c", "accept.h", "inspect.c", "inspect.h", "sweep.c", "sweep.h"),
    ("conn.c", "conn.h", "fanout.c", "fanout.h", "resume.c", "resume.h"),
    ("marks.c", "marks.h", "read.c", "read.h", "shared.c", "shared.h", "write.c", "write.h"),
    ("publish.c", "publish.h", "shard.h"),
    ("exchange.c", "exchange.h", "extra.c", "room.c", "waiting.c", "waiting.h"),
    ("extra.h", "room.h"),
    ("inbox.c", "inbox.h", "mailbox.c", "mailbox.h", "queue.c", "queue.h", "remote.c", "remote.h"),
    ("client.c", "client.h"),
    ("address.c", "address.h", "channel.c", "channel.h", "history.c", "history.h"),
    ("patterns.c", "patterns.h", "rules.c", "rules.h"),
    ("head.c", "head.h", "inbound.c", "inbound.h", "io.h", "io_epoll.c", "io_uring.c", "ready.c", "ready.h"),
    ("message.c", "message.h"),
    ("frame.c", "frame.h", "topic.c", "topic.h"),
    ("utf8.c", "utf8.h"),
    ("utf8_simd.c", "utf8_simd.h"),
    ("clock.h", "fastcast.h", "hash.h", "late.c", "late.h"),
)

# The steps of the loop call each other: to drop a client is a step of writing, and to write one of dropping.
STEPS = {"accept", "conn", "fanout", "read", "resume", "write"}

IMPORTS = {
    "__init__": {"client", "config", "errors", "everywhere", "presence", "publisher", "request", "server"},
    "__main__": {"cli"},
    "admission": {
        "_core",
        "channels",
        "config",
        "handshake",
        "history",
        "launch",
        "proxies",
        "request",
        "tokens",
    },
    "application": {"errors", "server"},
    "batches": {"errors"},
    "channels": {"history", "options"},
    "cli": {"__init__", "application", "config", "descriptors", "errors", "flags", "server"},
    "client": {"_core", "channels", "errors", "questions"},
    "config": {"channels", "consistency", "history", "options", "proxies", "shards"},
    "consistency": {"channels", "errors", "options"},
    "descriptors": set[str](),
    "dispatch": {"errors"},
    "everywhere": {"bus", "channels", "errors", "presence", "server"},
    "flags": {"channels", "options"},
    "history": {"options"},
    "options": {"errors"},
    "errors": set[str](),
    "handshake": {"responses"},
    "intake": {"_core", "admission", "client", "config", "dispatch", "history", "presence", "questions"},
    "launch": {"_core", "config", "errors", "listen", "shards"},
    "listen": {"errors"},
    "presence": set[str](),
    "proxies": {"options"},
    "publish_command": {"errors", "publisher"},
    "publisher": {"batches", "channels", "client", "errors"},
    "questions": {"_core"},
    "request": {"channels", "handshake", "responses"},
    "responses": set[str](),
    "server": {
        "_core",
        "admin",
        "admission",
        "bus",
        "channels",
        "client",
        "config",
        "errors",
        "everywhere",
        "intake",
        "launch",
        "presence",
        "request",
        "signals",
        "watch",
    },
    "signals": set[str](),
    "shards": set[str](),
    "tokens": {"config", "consistency", "errors", "request"},
    "watch": {"doctor.advice", "doctor.facts", "listen"},
}

# The load client in C.
LOAD_LAYERS = (
    ("load.c",),
    ("results.c", "results.h"),
    ("conductor.c", "conductor.h", "snapshot.c"),
    ("snapshot.h", "worker.c"),
    ("closing.c", "closing.h", "judge.c", "judge.h", "opening.c", "opening.h", "traffic.c", "traffic.h"),
    ("worker.h",),
    ("arrivals.c", "arrivals.h", "capacity.c", "capacity.h", "link.c", "link.h", "probe.c", "probe.h"),
    ("plan.c", "plan.h", "report.c", "target.c", "target.h"),
    ("sources.c", "sources.h"),
    ("load.h",),
    ("handshake.c", "handshake.h", "histogram.c", "histogram.h", "ledger.c", "ledger.h"),
    ("counters.h", "digest.c", "digest.h", "payload.c", "payload.h", "reason.c", "reason.h"),
    ("timers.c", "timers.h", "wire.c", "wire.h"),
)

# The command above it: a module imports those of the layers below its own.
BENCH_LAYERS = (
    ("command",),
    ("agent", "driver", "progress", "run", "web"),
    ("merge", "report"),
    ("summary",),
    ("series", "verdict"),
    ("distribution", "engine", "environment", "link", "scenario", "words"),
    ("__init__",),
)
BENCH_BORROWS = {"__init__", "client", "config", "descriptors", "errors", "flags", "options", "server"}

# The admin port: the same.
ADMIN_LAYERS = (
    ("__init__",),
    ("port",),
    ("application",),
    ("attempts", "host", "messages"),
    ("problem",),
)
ADMIN_BORROWS = {"channels", "client", "config", "errors", "listen"}

# What connects servers: the same.
BUS_LAYERS = (
    ("__init__",),
    ("bus", "nats", "redis"),
    ("jetstream", "records"),
    ("incoming", "interest", "outbox", "peers", "relay"),
    ("line", "tails", "twins", "wire"),
    ("backoff", "coverage", "engine", "names"),
)
BUS_BORROWS = {"_core", "channels", "client", "config", "errors", "history", "presence"}

HANDSHAKE_DOES_WITHOUT = {"asyncio", "socket", "select", "selectors", "ssl", "threading", "os"}

CORE_PYX_IMPORTS = {
    "errno",
    "os",
    "cpython.buffer",
    "cpython.bytes",
    "libc.stdlib",
    "libc.string",
    "libc.stdint",
}


def sources(*suffixes: str) -> list[Path]:
    """The package's own source files, without what a build leaves there."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in suffixes)


def includes(file: Path) -> list[str]:
    """The project's own headers that a C file includes."""
    return re.findall(r'^\s*#\s*include\s*"([^"]+)"', file.read_text("utf-8"), re.MULTILINE)


def layer_of(name: str, layers: Sequence[Sequence[str]] = LAYERS) -> int:
    """The place of a file; AssertionError when it has none."""
    found = [number for number, files in enumerate(layers) if name in files]
    assert len(found) == 1, f"{name} has no place in its layers"
    return found[0]


def own_imports(file: Path) -> set[str]:
    """The project's own modules that a file imports, without the package's name."""
    return {
        name.partition(".")[2] or "__init__"
        for name in imported(ast.parse(file.read_text("utf-8")))
        if name.split(".")[0] == "fastcast"
    }


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module


class TestCore:
    """The C core."""

    @pytest.mark.parametrize("file", sorted(CORE.glob("*.[ch]")), ids=lambda file: file.name)
    def test_includes_run_down(self, file: Path) -> None:
        for header in includes(file):
            if {file.stem, Path(header).stem} <= STEPS and file.suffix == ".c":
                continue
            assert layer_of(file.name) <= layer_of(header), f"{file.name} includes {header}"

    def test_headers_do_not_include_each_other_in_a_circle(self) -> None:
        above: dict[str, set[str]] = {}

        def visit(header: str, path: tuple[str, ...]) -> None:
            assert header not in path, " → ".join((*path, header))
            if header not in above:
                for name in includes(CORE / header):
                    visit(name, (*path, header))
                above[header] = set(path)

        for file in CORE.glob("*.h"):
            visit(file.name, ())

    def test_every_place_is_taken(self) -> None:
        there = {file.name for file in CORE.glob("*.[ch]")}
        assert {name for files in LAYERS for name in files} - there == set()

    @pytest.mark.parametrize("file", sources(".c", ".h"), ids=lambda file: f"{file.parent.name}/{file.name}")
    def test_no_python_in_it(self, file: Path) -> None:
        assert not re.search(r"#\s*include\s*[<\"]Python\.h|\bPy_?[A-Z]\w*\(", file.read_text("utf-8"))

    @pytest.mark.parametrize("file", sorted(CORE.glob("*.c")), ids=lambda file: file.name)
    def test_only_the_io_and_the_thread_wait_for_the_kernel(self, file: Path) -> None:
        waits = re.findall(
            r"\b(epoll_\w+|io_uring_\w+|poll|select|nanosleep|usleep|sleep)\s*\(", file.read_text("utf-8")
        )
        assert waits == [] or file.name.startswith("io_")

    @pytest.mark.parametrize("file", sources(".c"), ids=lambda file: f"{file.parent.name}/{file.name}")
    def test_file_opens_with_what_it_is_for(self, file: Path) -> None:
        assert re.match(r"/\*\s+\S", file.read_text("utf-8"))


class TestLoad:
    """The load client and its command."""

    @pytest.mark.parametrize("file", sorted(LOAD.glob("*.[ch]")), ids=lambda file: file.name)
    def test_includes_run_down(self, file: Path) -> None:
        for header in includes(file):
            assert layer_of(file.name, LOAD_LAYERS) <= layer_of(header, LOAD_LAYERS)

    @pytest.mark.parametrize("file", sorted(BENCH.glob("*.py")), ids=lambda file: file.name)
    def test_imports_run_down(self, file: Path) -> None:
        for name in own_imports(file):
            if name.startswith("bench."):
                below = layer_of(name.removeprefix("bench."), BENCH_LAYERS)
                assert layer_of(file.stem, BENCH_LAYERS) < below
            elif name != "bench":
                assert name in BENCH_BORROWS
                assert name != "server" or file.stem == "web"

    def test_every_place_is_taken(self) -> None:
        there = {file.name for file in LOAD.glob("*.[ch]")} | {file.stem for file in BENCH.glob("*.py")}
        assert {name for files in (*LOAD_LAYERS, *BENCH_LAYERS) for name in files} - there == set()

    def test_stub_is_what_the_module_is(self) -> None:
        check("mypy.stubtest", "fastcast._load")


class TestDoor:
    """_core.pyx converts, and does nothing else."""

    PYX = "".join((PACKAGE / name).read_text("utf-8") for name in ("_core.pyx", "_convert.pxi"))

    def test_imports_nothing_that_reaches_the_system(self) -> None:
        modules = re.findall(
            r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", self.PYX, re.MULTILINE
        )
        assert {first or second for first, second in modules} == CORE_PYX_IMPORTS
        assert set(re.findall(r"\bos\.(\w+)", self.PYX)) == {"strerror"}

    def test_declares_functions_of_the_core_and_of_python_only(self) -> None:
        # frame.h is for the functions by which tests and benchmarks get at single frames.
        declared = self.PYX + (PACKAGE / "_core.pxd").read_text("utf-8")
        assert set(re.findall(r'cdef extern from "([^"]+)"', declared)) == {
            "fastcast.h",
            "frame.h",
            "Python.h",
        }

    def test_stub_is_what_the_module_is(self) -> None:
        check("mypy.stubtest", "fastcast._core")


class TestPython:
    """The Python layer."""

    @pytest.mark.parametrize("file", sorted(PACKAGE.glob("*.py")), ids=lambda file: file.name)
    def test_imports_run_one_way(self, file: Path) -> None:
        assert own_imports(file) <= IMPORTS[file.stem]

    @pytest.mark.parametrize(
        "file",
        sorted((*ADMIN.glob("*.py"), *BUS.glob("*.py"))),
        ids=lambda file: f"{file.parent.name}/{file.name}",
    )
    def test_imports_of_the_admin_port_and_the_bus_run_down(self, file: Path) -> None:
        part = file.parent.name
        layers, borrows = {"admin": (ADMIN_LAYERS, ADMIN_BORROWS), "bus": (BUS_LAYERS, BUS_BORROWS)}[part]
        for name in own_imports(file):
            if name.startswith(f"{part}."):
                assert layer_of(file.stem, layers) < layer_of(name.removeprefix(f"{part}."), layers)
            else:
                assert name in borrows

    def test_handshake_is_free_of_input_and_output(self) -> None:
        found = set(imported(ast.parse((PACKAGE / "handshake.py").read_text("utf-8"))))
        assert found & HANDSHAKE_DOES_WITHOUT == set()

    def test_command_line_has_no_sockets(self) -> None:
        assert "socket" not in set(imported(ast.parse((PACKAGE / "cli.py").read_text("utf-8"))))

    def test_annotations_hold(self) -> None:
        check("mypy", "--strict", "fastcast")

    def test_importing_the_package_loads_neither_the_loop_nor_the_extension(self) -> None:
        code = "import sys, fastcast.cli; print({'asyncio', 'uvloop', 'fastcast._core'} & set(sys.modules))"
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert output == "set()\n"


@pytest.mark.parametrize(
    "file", sources(".py", ".pyi", ".pyx", ".pxd", ".c", ".h"), ids=lambda file: file.name
)
def test_file_is_short_enough_to_have_one_subject(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= MOST_LINES


def check(module: str, *arguments: str) -> None:
    """Run a checker from the root; AssertionError with what it found."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
