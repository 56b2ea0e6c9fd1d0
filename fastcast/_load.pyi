from collections.abc import Callable, Mapping
from typing import Any

__test__: dict[str, Any]

def run(
    options: Mapping[str, object],
    progress: Callable[[dict[str, Any]], object] | None = None,
    gate: Callable[[str], object] | None = None,
    interval: float = 0.5,
) -> dict[str, Any]: ...
