"""What clients send, on its way to the bus, which may have no room for it, or refuse it."""

from __future__ import annotations

from typing import cast

import pytest

from fastcast.bus.relay import Relay
from fastcast.client import Client, Data
from fastcast.errors import BusError, OverloadError
from tests.support.hosting import Run


class Sender:
    """Stands in for a client."""

    channel = "/a"


class Bus:
    """Takes what `errors` lets it, one after the other; then everything."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.took: list[Data] = []

    def broadcast(self, message: Data) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.took.append(message)

    def publish(self, channel: str, message: Data) -> None:
        assert channel == Sender.channel
        self.broadcast(message)


@pytest.mark.parametrize("to_all", [False, True])
def test_what_the_bus_refuses_is_dropped_and_told_of_once(
    run: Run, caplog: pytest.LogCaptureFixture, to_all: bool
) -> None:
    too_long = ValueError("the message is longer than the bus takes, 5 bytes")

    async def main() -> None:
        bus = Bus(
            too_long, too_long, OverloadError("full"), OverloadError("full"), too_long, BusError("lost")
        )
        relay = Relay(bus.publish, bus.broadcast, to_all=to_all)
        sender = cast(Client, Sender())
        for _ in range(2):
            assert relay(sender, "too long") is None
        waits = relay(sender, "too long, as it turns out when there is room")
        assert waits is not None
        await waits
        assert relay(sender, "to nobody") is None
        assert relay(sender, "hello") is None
        assert bus.took == ["hello"]

    run(main())
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.message.endswith(str(too_long))
