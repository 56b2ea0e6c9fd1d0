"""Coroutines of tests, each in a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.wire import TIMEOUT


def run_alone(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine; a task that it leaves behind is an error."""

    async def whole() -> None:
        await asyncio.wait_for(main(), TIMEOUT)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
