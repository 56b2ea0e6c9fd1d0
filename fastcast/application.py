"""Finds the server of a program: ``fastcast serve module:server``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Final

from fastcast.errors import ConfigError
from fastcast.server import Server

_FORM: Final = re.compile(r"(?P<module>[\w.]+):(?P<attribute>[\w.]+)")


def find(application: str) -> Server:
    """The server that ``module:attribute`` names, or that the function of that name returns.

    The module is imported, from the current directory if it is there. Raises ConfigError when there is no
    such module, attribute, or server; an exception of the program's own is not caught.
    """
    match = _FORM.fullmatch(application)
    if match is None:
        raise ConfigError(f"{application!r} is not MODULE:SERVER, such as chat:server")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(match["module"])
    except ModuleNotFoundError as error:
        # One that the program misses is the program's own exception.
        if error.name is None or not f"{match['module']}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"{application}: there is no module {error.name!r} in {here}") from None
    for name in match["attribute"].split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{application}: there is no {name!r} in {match['module']}")
        found = getattr(found, name)
    if not isinstance(found, Server) and callable(found):
        found = found()
    if not isinstance(found, Server):
        raise ConfigError(f"{application} is no fastcast.Server, but {type(found).__name__}")
    return found
