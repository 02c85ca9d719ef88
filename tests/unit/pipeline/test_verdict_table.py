"""The table of the gate's checks, and the line about the baseline."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from components.validation.verdict import AGAINST_BASELINE, Check
from pipeline.verdict_table import against_baseline, verdict_table

NAMED = Check("recall", "6", 0.7, 0.95, False, 0.72, low=0.671, high=0.7275, class_name="Shirt [long]")


def test_a_check_has_its_interval_margin_baseline_and_class_name() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(verdict_table([NAMED]))
    row = console.file.getvalue().splitlines()[1]
    assert row.split() == ["recall[Shirt", "[long]]", "0.7000", "0.6710", "0.7275", ">=", "0.9500", "-0.2500",
                           "0.7200", "NO"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "p_worse", "says"),
    [(0.93, 0.003, "-0.0200 against the baseline: beyond chance (McNemar, p 0.003)"),
     (0.93, 0.2, "which can be chance (McNemar, p 0.2)"), (0.95, 0.7, "+0.0000 against the baseline: not worse")],
)  # fmt: skip
def test_a_line_says_whether_the_loss_is_beyond_chance(value: float, p_worse: float, says: str) -> None:
    (line,) = against_baseline([NAMED, Check(AGAINST_BASELINE, "overall", value, 0.9, True, 0.95, p_worse=p_worse)])
    assert says in line
    assert against_baseline([NAMED]) == []
