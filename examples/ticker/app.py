"""A price ticker: whoever can't keep up skips prices that are out of date, and never sees an old one late.

Run it with ``python examples/ticker/app.py``. Prices go to one channel with the symbol as the key, and the
policy is ``latest``: of what waits for a slow client, a newer price takes the place of the older one of the
same symbol. TICKER_INTERVAL is the time between two rounds of prices, in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from pathlib import Path

import fastcast

INTERVAL = float(os.environ.get("TICKER_INTERVAL", "0.1"))
CHANNEL = "prices"

prices = {"AMBR": 31.2, "BRCH": 118.4, "CLVR": 7.85, "DUNE": 64.1, "ELMS": 242.0, "FERN": 15.3}
prices |= {"GALE": 88.8, "HAZE": 3.42, "IRIS": 51.7, "JADE": 176.5, "KELP": 22.9, "LARK": 409.0}

server = fastcast.Server(
    fastcast.Config.load({}, os.environ),  # FASTCAST_PORT=9000, and every other option
    html=Path(__file__).with_name("page.html").read_bytes(),
    slow="latest",
    max_queue="16KiB",
    relay="off",  # clients have nothing to say
)


@server.on_connect
def admit(request: fastcast.Request) -> fastcast.Accept:
    # A plain function, on the loop that publishes: no price falls between this picture and the first update.
    return fastcast.Accept([CHANNEL], hello=[quote(symbol) for symbol in prices])


def quote(symbol: str) -> str:
    return json.dumps({"symbol": symbol, "price": round(prices[symbol], 2)})


async def trade() -> None:
    """Move a few prices, again and again."""
    while True:
        for symbol in random.sample(sorted(prices), k=len(prices) // 2):
            prices[symbol] *= random.lognormvariate(0, 0.001)
            server.publish(CHANNEL, quote(symbol), key=symbol)
        await asyncio.sleep(INTERVAL)


async def main() -> None:
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    async with server:
        print(server.describe(), flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await trade()


if __name__ == "__main__":
    asyncio.run(main())
