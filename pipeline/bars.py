"""Bars with rate and time left on a terminal. Without a terminal they draw nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from components.data.mirrors import Received, Report


def steps(console: Console) -> Progress:
    """Bars of a training loop, to be drawn below other things; tasks are added by the caller."""
    columns = TextColumn("  {task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), _Rate()
    return Progress(*columns, TimeRemainingColumn(compact=True), TextColumn("left"), console=console, expand=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class _Received(ProgressColumn):
    """Megabytes and their rate; the seconds if the size is unknown."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.elapsed or 0.0:.0f} s")
        rate = f"{task.speed / 1e6:5.1f} MB/s" if task.speed else ""
        return Text(f"{task.completed / 1e6:.1f}/{task.total / 1e6:.1f} MB {rate}")


@contextmanager
def downloads(stream: TextIO) -> Iterator[tuple[Report, Received]]:
    """Two functions for `fetch_mnist`: the first prints a line, the second moves the bar of the current file."""
    console = Console(file=stream, highlight=False)
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=None),
        _Received(),
        TimeRemainingColumn(compact=True),
    )
    bar = Progress(*columns, console=console, expand=True, transient=True)

    def received(name: str, done_bytes: int, total_bytes: int | None) -> None:
        if not bar.tasks or bar.tasks[0].description != name:
            for task_id in bar.task_ids:
                bar.remove_task(task_id)
            bar.add_task(name, total=total_bytes)
        bar.update(bar.task_ids[0], completed=done_bytes)

    if not console.is_terminal:
        yield lambda line: print(line, file=stream, flush=True), lambda *_: None
        return
    with bar:
        yield lambda line: console.print(line, markup=False, soft_wrap=True), received


@contextmanager
def waiting(stream: TextIO, what: str) -> Iterator[None]:
    """Say what takes long; on a terminal with the seconds that have passed, until the block ends."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        print(what, file=stream, flush=True)
        yield
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(what, total=None)
        yield
