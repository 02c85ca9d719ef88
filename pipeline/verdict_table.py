"""The Evaluator's verdict as a table: metric, slice, value, bound, baseline, delta, pass."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from components.validation.verdict import Check


def verdict_table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("metric", "slice"):
        table.add_column(column)
    for column in ("value", "bound", "baseline", "delta", "pass"):
        table.add_column(column, justify="right")
    for check in checks:
        table.add_row(
            check.metric,
            check.slice,
            f"{check.value:.4f}",
            f"{'<=' if check.at_most else '>='} {check.bound:.4f}",
            "" if check.baseline is None else f"{check.baseline:.4f}",
            "" if check.delta is None else f"{check.delta:+.4f}",
            Text("yes", "green") if check.passed else Text("NO", "bold red"),
        )
    return table
