"""How a run gets on, in the terminal: a panel that is redrawn, or lines where nothing can be redrawn."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from fastcast.bench.series import Row
from fastcast.bench.words import count, memory, milliseconds

LINE_SECONDS: Final = 5.0
"""Least time between two lines of the same phase, where nothing can be redrawn."""


class Progress:
    """Shows rows on a console while its ``with`` block lasts."""

    def __init__(self, console: Console, connections: int) -> None:
        """``connections`` is the number that is aimed at."""
        self._console = console
        self._connections = connections
        redrawn = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, transient=True, auto_refresh=False) if redrawn else None
        self._shown: Row | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, row: Row) -> None:
        """Show the latest interval."""
        if self._live:
            self._live.update(self._panel(row), refresh=True)
        elif self._is_due(row):
            self._shown = row
            self._console.print(line(row), highlight=False, markup=False, soft_wrap=True)

    def _is_due(self, row: Row) -> bool:
        last = self._shown
        return last is None or last.phase != row.phase or row.seconds - last.seconds >= LINE_SECONDS

    def _panel(self, row: Row) -> Table:
        panel = Table.grid(padding=(0, 2))
        panel.add_column(style="bold")
        panel.add_column()
        panel.add_row(row.phase, f"{row.seconds:.1f} s")
        panel.add_row("", ProgressBar(total=self._connections, completed=row.open, width=40))
        for name, text in figures(row).items():
            panel.add_row(name, text)
        return panel


def line(row: Row) -> str:
    """A row in one line of text."""
    parts = [f"{name} {text}" for name, text in figures(row).items()]
    return f"{row.seconds:7.1f} s  {row.phase:<8}  " + "; ".join(parts)


def figures(row: Row) -> dict[str, str]:
    """What there is to tell about a row."""
    told = {"connections": f"{count(row.open)} open, {count(row.failed)} failed"}
    if row.connect_rate:
        told["connections"] += f", {count(row.connect_rate)}/s"
    if row.delivery_rate:
        told["deliveries"] = f"{count(row.delivery_rate)}/s"
    if row.latency_p50 is not None:
        told["latency"] = (
            f"p50 {milliseconds(row.latency_p50)}, p99 {milliseconds(row.latency_p99)},"
            f" max {milliseconds(row.latency_max)}"
        )
    elif row.handshake_p50 is not None:
        told["handshake"] = f"p50 {milliseconds(row.handshake_p50)}, p99 {milliseconds(row.handshake_p99)}"
    if row.server_pss is not None:
        cpu = f"{row.server_cpu:.0%} CPU, " if row.server_cpu is not None else ""
        told["server"] = f"{cpu}{memory(row.server_pss)}; kernel {memory(_kernel(row))}"
    return told


def _kernel(row: Row) -> int:
    return (row.kernel_tcp or 0) + (row.kernel_slab or 0)
