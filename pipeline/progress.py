"""The live table of a run: one row per node with its state, seconds and current activity, and a bar for long loops."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import bars

State = Literal["waiting", "running", "ran", "cached", "failed", "skipped"]

_STYLE: Final[dict[State, str]] = {
    "waiting": "dim",
    "running": "yellow",
    "ran": "green",
    "cached": "cyan",
    "failed": "bold red",
    "skipped": "dim",
}
_ACTIVITY: Final = {  # shown until a running node reports something itself; some nodes are TFX's own
    "ExampleGen": "reading the IDX files, writing examples",
    "StatisticsGen": "computing the statistics of each split",
    "ExampleValidator": "comparing the statistics with the schema",
    "Transform": "analysing pixels, writing the transform graph",
    "Trainer": "starting",
    "Baseline": "looking for the last pushed version",
    "Evaluator": "predicting the test split, computing metrics",
    "InfraValidator": "loading the model in a real server",
    "Pusher": "copying the model",
}
REFRESH_PER_SECOND: Final = 4
LINE_EVERY_S: Final = 60.0  # without a terminal, a long loop prints a line this often
MIN_DETAIL_WIDTH: Final = 12  # columns; on a terminal that has fewer, the details are left out


@dataclass
class Node:
    """One row. `seconds` stays 0 until the node has ended; `reason` says why it ran, or why it did not."""

    id: str
    state: State = "waiting"
    seconds: float = 0.0
    detail: str = ""
    reason: str = ""


class Progress(logging.Handler):
    """Shows the nodes of a run on `stream`: a live table on a terminal, else a line per finished node.

    As a logging handler it shows the latest message of the components' loggers beside the running node. A record with
    the attributes `done` and `total` (of a loop) also moves a bar.
    """

    def __init__(self, node_ids: list[str], stream: TextIO) -> None:
        super().__init__(logging.INFO)
        self.nodes = [Node(node_id) for node_id in node_ids]
        self._running: Node | None = None
        self._since = self._printed = 0.0
        self._final = False
        self._console = Console(file=stream, highlight=False)
        self._bars = bars.steps(self._console)
        self._live = Live(
            console=self._console,
            get_renderable=self._shown,
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
        self._final = True
        if self._console.is_terminal:
            self._live.stop()

    def start(self, node_id: str) -> None:
        self._running = next(node for node in self.nodes if node.id == node_id)
        self._running.state = "running"
        self._since = self._printed = time.monotonic()

    def finish(self, state: State, detail: str = "", reason: str = "") -> None:
        """End the running node; `detail` replaces its latest message."""
        node = self._running
        assert node is not None, "finish without start"
        node.seconds, node.state = time.monotonic() - self._since, state
        node.detail = detail or ("" if state == "cached" else node.detail)
        node.reason = reason or node.reason
        self._running = None
        self._remove_bar()
        self._print(node)

    def show(self, node_id: str, state: State, seconds: float, detail: str) -> None:
        """Set a row of a remote run, in which several nodes may run at once."""
        node = next(node for node in self.nodes if node.id == node_id)
        ended = node.state in {"waiting", "running"} and state not in {"waiting", "running"}
        node.state, node.seconds, node.detail = state, seconds, detail
        if ended:
            self._print(node)

    def emit(self, record: logging.LogRecord) -> None:
        node, done = self._running, getattr(record, "done", None)
        if node is None:
            return
        node.detail = record.getMessage()
        if done is None:
            self._remove_bar()
            return
        if not self._bars.task_ids:
            self._bars.add_task("steps", total=getattr(record, "total", None))
        self._bars.update(self._bars.task_ids[0], completed=done)
        if time.monotonic() - self._printed >= LINE_EVERY_S:
            self._printed = node.seconds = time.monotonic()
            node.seconds -= self._since
            self._print(node)

    def _remove_bar(self) -> None:
        for task_id in self._bars.task_ids:
            self._bars.remove_task(task_id)

    def _print(self, node: Node) -> None:
        if not self._console.is_terminal:
            self._console.print(_line(node), markup=False, soft_wrap=True)

    def _shown(self) -> Table | Group:
        if self._running:
            self._running.seconds = time.monotonic() - self._since
        shown = table(self.nodes, self._console.width, wrap=self._final)
        return Group(shown, self._bars) if self._bars.task_ids else shown


def show_nodes(nodes: Sequence[Node]) -> None:
    """Print the table on stdout, or a line per node if that is not a terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table(nodes, console.width, wrap=True))
    for node in [] if console.is_terminal else nodes:
        console.print(_line(node), markup=False, soft_wrap=True)


def table(nodes: Sequence[Node], width: int, *, wrap: bool) -> Table:
    """Node, state, seconds and what the node said, in at most `width` columns (from 37).

    Args:
        wrap: continue a long text on further lines; else each node has one line, and "..." stands for the rest.
    """
    shown = Table(box=None, pad_edge=False)
    shown.add_column("node", min_width=18, no_wrap=True)
    shown.add_column("state", min_width=8, no_wrap=True)
    shown.add_column("seconds", justify="right", min_width=7, no_wrap=True)
    left = width - 18 - 8 - 7 - 6  # two spaces between columns
    if with_detail := left >= MIN_DETAIL_WIDTH:
        shown.add_column("", overflow="fold", max_width=left)
    for node in nodes:
        seconds = "" if node.state in {"waiting", "skipped"} else f"{node.seconds:.1f}"
        said = _said(node)
        if not wrap:
            said.truncate(max(0, left), overflow="ellipsis")
        shown.add_row(node.id, Text(node.state, _STYLE[node.state]), seconds, *([said] if with_detail else []))
    return shown


def _line(node: Node) -> str:
    return f"{node.id:<18} {node.state:<8} {node.seconds:6.1f} s  {_said(node).plain}".rstrip()


def _said(node: Node) -> Text:
    detail = node.detail or (_ACTIVITY.get(node.id, "") if node.state == "running" else "")
    between = "; " if detail and node.reason else ""
    return Text(detail).append(f"{between}{node.reason}", "dim")
