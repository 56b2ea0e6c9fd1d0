"""picows: callbacks on the transport; the header is written once into a buffer that all sends share."""

from __future__ import annotations

import asyncio
import socket

import harness
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

# send_reuse_external_bytearray() writes the header into the space that the caller leaves before the payload.
HEADROOM = 14

transports: set[WSTransport] = set()


class Chat(WSListener):
    """One listener serves every connection: all it needs comes with the call."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        transports.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif kind is WSMsgType.BINARY or kind is WSMsgType.TEXT:
            message = bytearray(HEADROOM) + frame.get_payload_as_memoryview()
            for receiver in transports:
                receiver.send_reuse_external_bytearray(kind, message, HEADROOM)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        transports.discard(transport)


async def start(listener: socket.socket) -> asyncio.Server:
    chat = Chat()

    def route(_request: WSUpgradeRequest) -> WSListener:
        return chat

    return await ws_create_server(
        route,
        sock=listener,
        backlog=harness.BACKLOG,
        websocket_handshake_timeout=None,
        max_frame_size=harness.MAX_MESSAGE,
    )


harness.run(start)
