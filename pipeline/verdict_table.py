"""The Evaluator's verdict as a table of its checks, at most 80 columns wide unless a class has a long name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from components.validation.verdict import AGAINST_BASELINE, OVERALL, Check

CHANCE: Final = 0.05  # above: so large a loss between equally good models is not unusual


def verdict_table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check")
    for column in ("value", "95 % interval", "bound", "margin", "baseline", "pass"):
        table.add_column(column, justify="right")
    for check in checks:
        name = "against baseline" if check.metric == AGAINST_BASELINE else check.metric
        table.add_row(
            Text(name if check.slice == OVERALL else f"{name}[{check.class_name or check.slice}]"),
            f"{check.value:.4f}",
            "" if check.low is None else f"{check.low:.4f} {check.high:.4f}",
            f"{'<=' if check.at_most else '>='} {check.bound:.4f}",
            f"{check.margin:+.4f}",
            "" if check.baseline is None else f"{check.baseline:.4f}",
            Text("yes", "green") if check.passed else Text("NO", "bold red"),
        )
    return table


def against_baseline(checks: Sequence[Check]) -> list[str]:
    """A line that says whether the model is worse than the baseline beyond chance; [] if they were not compared."""
    lines = []
    for check in checks:
        if check.p_worse is not None and check.delta is not None:
            chance = "beyond chance" if check.p_worse <= CHANCE else "which can be chance"
            found = f"{chance} (McNemar, p {check.p_worse:.2g})" if check.delta < 0 else "not worse"
            lines.append(f"accuracy {check.delta:+.4f} against the baseline: {found}")
    return lines
