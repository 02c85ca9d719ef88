"""The live table of a run: one row per node with its state, seconds and current activity."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

State = Literal["waiting", "running", "ran", "cached", "failed", "skipped"]

_STYLE: Final[dict[State, str]] = {
    "waiting": "dim",
    "running": "yellow",
    "ran": "green",
    "cached": "cyan",
    "failed": "bold red",
    "skipped": "dim",
}
REFRESH_PER_SECOND: Final = 4


@dataclass
class Node:
    """One row. `seconds` stays 0 until the node has ended."""

    id: str
    state: State = "waiting"
    seconds: float = 0.0
    detail: str = ""


class Progress(logging.Handler):
    """Shows the nodes of a run on `stream`: a live table on a terminal, else a line per finished node.

    As a logging handler it shows the latest message of the components' loggers beside the running node.
    """

    def __init__(self, node_ids: list[str], stream: TextIO) -> None:
        super().__init__(logging.INFO)
        self.nodes = [Node(node_id) for node_id in node_ids]
        self._running: Node | None = None
        self._since = 0.0
        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=REFRESH_PER_SECOND,
            auto_refresh=self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        logging.getLogger("components").addHandler(self)
        logging.getLogger("components").setLevel(logging.INFO)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        logging.getLogger("components").removeHandler(self)
        for node in self.nodes:
            if node.state == "waiting":
                node.state = "skipped"
        if self._console.is_terminal:
            self._live.stop()

    def start(self, node_id: str) -> None:
        self._running = next(node for node in self.nodes if node.id == node_id)
        self._running.state = "running"
        self._since = time.monotonic()

    def finish(self, state: State, detail: str = "") -> None:
        """End the running node; `detail` replaces its latest message."""
        node = self._running
        assert node is not None, "finish without start"
        node.seconds, node.state = time.monotonic() - self._since, state
        node.detail = detail or ("" if state == "cached" else node.detail)
        self._running = None
        self._print(node)

    def _print(self, node: Node) -> None:
        if not self._console.is_terminal:
            line = f"{node.id:<18} {node.state:<8} {node.seconds:6.1f} s  {node.detail}".rstrip()
            self._console.print(line, markup=False, soft_wrap=True)

    def show(self, node_id: str, state: State, seconds: float, detail: str) -> None:
        """Set a row of a remote run, in which several nodes may run at once."""
        node = next(node for node in self.nodes if node.id == node_id)
        ended = node.state in {"waiting", "running"} and state not in {"waiting", "running"}
        node.state, node.seconds, node.detail = state, seconds, detail
        if ended:
            self._print(node)

    def emit(self, record: logging.LogRecord) -> None:
        if self._running is not None:
            self._running.detail = record.getMessage()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("node", min_width=18)
        table.add_column("state", min_width=8)
        table.add_column("seconds", justify="right", min_width=7)
        table.add_column("", overflow="ellipsis", no_wrap=True)
        for node in self.nodes:
            seconds = time.monotonic() - self._since if node is self._running else node.seconds
            shown = "" if node.state in {"waiting", "skipped"} else f"{seconds:.1f}"
            table.add_row(node.id, Text(node.state, _STYLE[node.state]), shown, Text(node.detail))
        return table
