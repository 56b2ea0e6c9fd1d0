"""Broadcast over WebSocket to very many clients.

::

    import fastcast

    async with fastcast.serve(port=8000) as server:
        server.broadcast("hello")
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from fastcast.errors import ConfigError, FastcastError, OverloadError, StartError

if TYPE_CHECKING:
    from fastcast.config import Config
    from fastcast.server import Client, Server, serve

__version__ = metadata.version("fastcast")

__all__ = [
    "Client",
    "Config",
    "ConfigError",
    "FastcastError",
    "OverloadError",
    "Server",
    "StartError",
    "serve",
]

# Looked up when first used: the command's --help needs neither asyncio nor the extension.
_HOMES = {
    "Config": "fastcast.config",
    "Client": "fastcast.server",
    "Server": "fastcast.server",
    "serve": "fastcast.server",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
