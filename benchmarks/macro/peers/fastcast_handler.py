"""fastcast with a Python handler: each message comes to Python, which broadcasts it."""

import asyncio
import signal

import uvloop

import fastcast


async def main() -> None:
    server = fastcast.serve(port=0, ping_interval=0)

    @server.on_message
    def handle(client: fastcast.Client, message: str | bytes) -> None:
        server.broadcast(message, client.channel)

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        print(f"listening 127.0.0.1 {server.port}", flush=True)
        await ended.wait()


uvloop.run(main())
