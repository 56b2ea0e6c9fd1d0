"""What agents and their driver say to each other: JSON objects, one a line, over TCP.

====================  ===============  ==========================================================
from the driver       fields           meaning
====================  ===============  ==========================================================
``hello``             version, token   first; answered with ``hello``, or with ``error``
``run``               options          the part of the run that is this agent's
``go``                phase            all agents are ready for the phase
``stop``                               end early, and tell the result
====================  ===============  ==========================================================

====================  ===============  ==========================================================
from the agent        fields           meaning
====================  ===============  ==========================================================
``hello``             version
``gate``              phase            ready for the phase, waits for ``go``
``snapshot``          snapshot         how the run gets on
``result``            result           the last line of a run
``error``             error, message   the last line of a run or of a greeting that failed
====================  ===============  ==========================================================

An error is ``usage`` when the options contradict each other, ``start`` when the run can't start, and
``refused`` when the agent will have none of it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from fastcast.options import MIB

MOST_TOLD: Final = 8 * MIB
"""Bytes in one line of an agent: a result has seven histograms of some thousand buckets."""

MOST_ORDERED: Final = MIB
"""Bytes in one line of a driver, who is a stranger at first."""

GREETING_SECONDS: Final = 10.0
"""For the greeting of either side."""


class LinkError(Exception):
    """The other side has gone, or says what makes no sense."""


class Link:
    """One connection between a driver and an agent; to be closed by who made it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, kind: str, **fields: Any) -> None:
        """Send a line; one to a side that has gone is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"type": kind, **fields}).encode() + b"\n")

    async def hear(self) -> Mapping[str, Any]:
        """The next line. Raises LinkError when there will be none, or it is no object with a type."""
        try:
            line = await self._reader.readuntil(b"\n")
            told = json.loads(line)
        except (OSError, asyncio.IncompleteReadError):
            raise LinkError("the connection was lost") from None
        except (asyncio.LimitOverrunError, ValueError, RecursionError):
            raise LinkError("it said something that is not of the protocol") from None
        if not isinstance(told, dict) or not isinstance(told.get("type"), str):
            raise LinkError("it said something that is not of the protocol")
        return told

    async def close(self) -> None:
        """Send what is still to be sent, and close."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), GREETING_SECONDS)
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def reason(error: OSError) -> str:
    """Why a connection, or listening, failed; asyncio's own words repeat the address."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def address(text: str, default_host: str = "") -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; with a default host, of ``PORT``, too.

    Raises :exc:`ValueError` with what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        host = default_host
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        form = "HOST:PORT or PORT" if default_host else "HOST:PORT"
        raise ValueError(f"{text!r} is not an address (write {form})")
    return host, int(port)


def written(host: str, port: int) -> str:
    """What ``address`` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
