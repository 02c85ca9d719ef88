"""Verdicts on a model: what was measured, its thresholds, and whether it passed. No heavy imports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

OVERALL: Final = "overall"
AGAINST_BASELINE: Final = "accuracy against baseline"


@dataclass(frozen=True)
class Check:
    """One threshold and whether the model meets it.

    Attributes:
        metric, slice: what was measured, e.g. recall of "3", or accuracy "overall".
        value: the candidate's value.
        bound: the threshold: lowest passing value, or highest if `at_most`.
        passed: whether the value meets the threshold.
        baseline: the baseline's value; None if it was not compared.
        low, high: the ends of the value's 95 % interval; None if it has none.
        p_worse: in the comparison with the baseline, the probability of such a loss by chance, 0..1
            (significance.paired).
        class_name: the name of the class `slice`; empty if it has none.
    """

    metric: str
    slice: str
    value: float
    bound: float
    passed: bool
    baseline: float | None = None
    at_most: bool = False
    low: float | None = None
    high: float | None = None
    p_worse: float | None = None
    class_name: str = ""

    @property
    def delta(self) -> float | None:
        return None if self.baseline is None else self.value - self.baseline

    @property
    def margin(self) -> float:
        """How far the value is on the passing side of the bound."""
        return self.bound - self.value if self.at_most else self.value - self.bound


def describe(check: Check) -> str:
    """`recall[8] 0.9410 < 0.9500`, or `recall[Bag] ...` if the class has a name."""
    sign = {(True, False): ">=", (False, False): "<", (True, True): "<=", (False, True): ">"}
    chance = "" if check.p_worse is None else f", p {check.p_worse:.2g}"
    baseline = "" if check.baseline is None else f" (baseline {check.baseline:.4f}{chance})"
    value, bound = (f"{number:.4f}" if 1e-3 < abs(number) < 1e4 else f"{number:.3g}" for number in
                    (check.value, check.bound))  # fmt: skip
    name = f"{check.metric}[{check.class_name or check.slice}]"
    return f"{name} {value} {sign[check.passed, check.at_most]} {bound}{baseline}"


@dataclass(frozen=True)
class Verdict:
    """The decision about a model, and the reasons.

    Attributes:
        blessed: whether the model passed.
        checks: one per threshold.
        error: why the checks could not be made, e.g. a server that did not start.
        metrics: further numbers: {name: value}, {"slices": {"overall" or a class: {metric: value}}} or {name: matrix}.
    """

    blessed: bool
    checks: Sequence[Check] = ()
    error: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """One line for each reason why the model is not blessed."""
        return [*([self.error] if self.error else []), *(describe(check) for check in self.checks if not check.passed)]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Raises OSError, ValueError or TypeError if the file is not what `write` wrote."""
        content = json.loads(path.read_text())
        return cls(**{**content, "checks": [Check(**check) for check in content["checks"]]})
