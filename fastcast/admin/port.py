"""The admin port's life: it listens, and ends within a second."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fastcast.admin.application import make_application
from fastcast.admin.host import Host
from fastcast.config import Config
from fastcast.errors import StartError
from fastcast.listen import BACKLOG, listen

_log = logging.getLogger("fastcast")


def _shorten(record: logging.LogRecord) -> bool:
    """Anybody can send what isn't HTTP: no reason for a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg += f": {type(error).__name__}"
    return True


_http_log = logging.getLogger("fastcast.admin")
_http_log.addFilter(_shorten)

# Seconds for requests that are under way when the server has ended: all they can still get is a refusal.
_GRACE: Final = 1.0

# Bytes of a request's first line: two names that are too long by far are still told so.
_LONGEST_LINE: Final = 32_768


class Admin:
    """Serves HTTP for one server, on the loop of that server.

    The configuration's ``admin_token`` is what every request must bring.
    """

    def __init__(self, server: Host, config: Config) -> None:
        self._config = config
        self._server = server  # the application knows it only while this lives
        self._application = make_application(server, config.admin_token or "", config.max_message)
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port it listens on; 0 before the start."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises StartError when the address can't be had."""
        config = self._config
        try:
            [sockets] = listen(config.admin_host, config.admin_port or 0, 1)
        except StartError as error:
            raise StartError(f"admin port: {error}") from error
        self._port = sockets[0].getsockname()[1]
        self._runner = web.AppRunner(
            self._application,
            access_log=None,
            logger=_http_log,
            # What isn't inflated can't blow up: an encoded body is refused.
            auto_decompress=False,
            shutdown_timeout=_GRACE,
            max_line_size=_LONGEST_LINE,
        )
        try:
            await self._runner.setup()
            for each in sockets:
                await web.SockSite(self._runner, each, backlog=BACKLOG).start()
        except BaseException:
            await self.stop()
            for each in sockets:
                each.close()
            raise
        host = f"[{config.admin_host}]" if ":" in config.admin_host else config.admin_host
        _log.info("admin port at http://%s:%d/", host, self._port)

    async def stop(self) -> None:
        """Stop listening, and let requests that are under way end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
