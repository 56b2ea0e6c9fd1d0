"""The process's limit on file descriptors: each connection takes one, at either end."""

from __future__ import annotations

import logging
import resource

_log = logging.getLogger("fastcast")


def raise_limit() -> None:
    """Use all the file descriptors that the administrator allows; logs a warning if the kernel refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        # The kernel refuses a limit above fs.nr_open, which may have been lowered since; not fatal.
        _log.warning("the file descriptor limit stays at %d of %d: %s", soft, hard, error)
