"""One run on two agents, at two loopback addresses."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.load import Running, agent, bench, started, url
from tests.support.server import ServerProcess, running
from tests.support.wire import TIMEOUT


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server as it is by default."""
    with running() as process:
        yield process


@pytest.fixture(scope="module")
def agents() -> Iterator[list[str]]:
    """Two agents, and where they are."""
    with agent("127.0.0.2") as (_, one), agent("127.0.0.3") as (_, other):
        yield [one, other]


def test_they_are_one_run(server: ServerProcess, agents: list[str]) -> None:
    ended = bench(
        url(server.address),
        *("--connections", "1000", "--senders", "4", "--messages", "5", "--json", "-"),
        *("--agents", ",".join(agents)),
    )
    assert ended.code == 0, ended.stderr
    figures = ended.figures
    assert figures["connections"]["made"] == 1000
    # Every receiver has the messages of the other agent's senders, too.
    assert figures["deliveries"]["received"] == 20 * 1000
    assert figures["one_order"] is True
    assert figures["order_digest"]
    # Only the agent of its sender can time a message.
    assert figures["latency_us"]["count"] == 20 * 500
    assert figures["agents"].keys() == set(agents)


@pytest.mark.parametrize(
    "options",
    [
        ("--rate", "50", "--senders", "3"),
        ("--storm",),
        ("--churn", "20", "--rate", "20"),
        ("--arrivals", "500@2000"),
    ],
    ids=" ".join,
)
def test_each_way_to_put_load_on_it(
    server: ServerProcess, agents: list[str], options: tuple[str, ...]
) -> None:
    connections = () if "--arrivals" in options else ("--connections", "500")
    ended = bench(url(server.address), *connections, *options, "--agents", ",".join(agents))
    assert ended.code == 0, ended.stdout + ended.stderr


def test_an_interrupted_run_has_its_summary(server: ServerProcess, agents: list[str]) -> None:
    with started(
        url(server.address), "--connections", "200", "--hold", "1h", "--agents", ",".join(agents)
    ) as run:
        run.await_stderr(r" s  hold ")
        run.signal(signal.SIGINT)
        ended = run.wait()
    assert ended.code == 130
    assert "200 of 200" in ended.stdout


def test_a_driver_that_dies_ends_the_run(server: ServerProcess, agents: list[str]) -> None:
    with started(
        url(server.address), "--connections", "200", "--hold", "1h", "--agents", ",".join(agents)
    ) as run:
        run.await_stderr(r" s  hold ")
        run.kill()
    # An agent is busy until the run has ended.
    ended = again(server, agents)
    assert ended == 0


def again(server: ServerProcess, agents: list[str]) -> int:
    """Try a small run until no agent is busy any more; the exit code of the one that wasn't refused."""
    for _ in range(round(TIMEOUT)):
        ended = bench(url(server.address), "--connections", "10", "--agents", ",".join(agents), "--quiet")
        if "is busy" not in ended.stderr:
            return ended.code
    raise AssertionError("the agents stay busy")


def test_an_agent_that_dies_is_one_line(server: ServerProcess, agents: list[str]) -> None:
    dying: Running
    with started("--agent", "127.0.0.4:0") as dying:
        where = dying.await_stdout(r"agent at (\S+)")[1]
        with started(
            url(server.address), "--connections", "200", "--hold", "1h", "--agents", f"{agents[0]},{where}"
        ) as run:
            run.await_stderr(r" s  hold ")
            dying.kill()
            ended = run.wait()
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1] == (
        f"fastcast: error: agent {where}: the connection was lost; the run has no result"
    )


def test_nobody_there_is_3_and_one_line(server: ServerProcess) -> None:
    ended = bench(url(server.address), "--agents", "127.0.0.2:1")
    assert (ended.code, ended.stdout) == (3, "")
    assert ended.stderr == "fastcast: error: agent 127.0.0.2:1: Connection refused\n"


def test_a_token_is_asked_for(server: ServerProcess) -> None:
    with agent("127.0.0.2", "--token", "secret") as (_, where):
        options = (url(server.address), "--connections", "10", "--quiet", "--agents", where)
        refused = bench(*options)
        assert refused.code == 3
        assert refused.stderr == f"fastcast: error: agent {where}: the token is not the agent's\n"
        assert bench(*options, "--token", "secret").code == 0


def test_an_address_that_is_taken_is_3_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = bench("--agent", str(port))
    assert ended.code == 3
    assert ended.stderr == f"fastcast: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
