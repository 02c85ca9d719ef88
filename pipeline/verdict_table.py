"""The Evaluator's verdict as a table of its checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from components.validation.verdict import AGAINST_BASELINE, OVERALL, Check

WIDE: Final = 76  # columns of the whole table
CHANCE: Final = 0.05  # above: so large a loss between equally good models is not unusual


def verdict_table(checks: Sequence[Check], width: int = WIDE) -> Table:
    """A row per check. In less than WIDE columns without interval and margin, which the report has."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check", overflow="fold")
    columns = ("value", "95 % interval", "bound", "margin", "baseline", "pass")
    shown = [name for name in columns if width >= WIDE or name not in ("95 % interval", "margin")]
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    for check in checks:
        name = "against baseline" if check.metric == AGAINST_BASELINE else check.metric
        cells: dict[str, str | Text] = {
            "value": f"{check.value:.4f}",
            "95 % interval": "" if check.low is None else f"{check.low:.4f} {check.high:.4f}",
            "bound": f"{'<=' if check.at_most else '>='} {check.bound:.4f}",
            "margin": f"{check.margin:+.4f}",
            "baseline": "" if check.baseline is None else f"{check.baseline:.4f}",
            "pass": Text("yes", "green") if check.passed else Text("NO", "bold red"),
        }
        what = Text(name if check.slice == OVERALL else f"{name}[{check.class_name or check.slice}]")
        table.add_row(what, *(cells[column] for column in shown))
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
