"""Broadcast over WebSocket to very many clients.

::

    import fastcast

    server = fastcast.Server(port=8000)

    @server.on_message
    def chat(client, message):
        server.publish(client.channel, message)

    server.run()
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from fastcast.errors import (
    BusError,
    ConfigError,
    FastcastError,
    OverloadError,
    PublishError,
    StartError,
)

if TYPE_CHECKING:
    from fastcast.client import Client, Unshared
    from fastcast.config import Config
    from fastcast.everywhere import Everywhere
    from fastcast.presence import Present
    from fastcast.publisher import Publisher
    from fastcast.request import Accept, Refuse, Request
    from fastcast.server import Server, serve

__version__ = metadata.version("fastcast")

__all__ = [
    "Accept",
    "BusError",
    "Client",
    "Config",
    "ConfigError",
    "Everywhere",
    "FastcastError",
    "OverloadError",
    "Present",
    "PublishError",
    "Publisher",
    "Refuse",
    "Request",
    "Server",
    "StartError",
    "Unshared",
    "serve",
]

# Looked up when first used: the command's --help needs neither asyncio nor the extension.
_HOMES = {
    "Accept": "fastcast.request",
    "Client": "fastcast.client",
    "Config": "fastcast.config",
    "Everywhere": "fastcast.everywhere",
    "Present": "fastcast.presence",
    "Publisher": "fastcast.publisher",
    "Refuse": "fastcast.request",
    "Request": "fastcast.request",
    "Server": "fastcast.server",
    "Unshared": "fastcast.client",
    "serve": "fastcast.server",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
