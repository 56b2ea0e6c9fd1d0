"""What the macro benchmark next door has already: imported from here, so that one file knows where it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

SCALE: Final = Path(__file__).resolve().parent
BENCHMARKS: Final = SCALE.parent

sys.path.append(str(BENCHMARKS / "macro"))

from catalogue import OURS  # noqa: E402
from install import REPORT_VENV, InstallError, install_report  # noqa: E402
from machine import commit, describe  # noqa: E402
from process import ServerError, ServerProcess  # noqa: E402
from scenarios import ONLY, Metric, Results, at, dig, growth, per_client, total  # noqa: E402
from summary import Spread  # noqa: E402
from wording import NOTHING, amount, cell, environment, number, span  # noqa: E402

__all__ = [
    "BENCHMARKS",
    "NOTHING",
    "ONLY",
    "OURS",
    "REPORT_VENV",
    "SCALE",
    "InstallError",
    "Metric",
    "Results",
    "ServerError",
    "ServerProcess",
    "Spread",
    "amount",
    "at",
    "cell",
    "commit",
    "describe",
    "dig",
    "environment",
    "growth",
    "install_report",
    "number",
    "per_client",
    "span",
    "total",
]
