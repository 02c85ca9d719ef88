"""What differs between two runs: settings, data, code, metrics of the test split with intervals, seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from components.common.class_names import class_names
from components.validation import reference_predictions, significance
from components.validation.reference_predictions import ReferencePredictions
from pipeline import records
from pipeline.records import Run

LEVEL: Final = 0.05  # of the tests of significance; the intervals have 95 %
ACCURACY: Final = "test_accuracy"
PAIRED, UNPAIRED = "McNemar", "two proportions"  # the second where the same images were not predicted by both


_RECORDED: Final[Mapping[str, Callable[[Run], object]]] = {
    "settings": lambda run: run.settings,
    "data": lambda run: run.data_sha256,
    "code": lambda run: run.sources,
}


@dataclass(frozen=True)
class Metric:
    """One number of both runs.

    Attributes:
        a, b: None where a run has no such number.
        interval: [lowest, highest] of each, at 95 % (Wilson), by "a" and "b"; absent where counts are not known.
        p: probability of such a difference, or a larger one, if there were none, 0..1. That of a class is adjusted for
            the number of classes (Holm).
        test: PAIRED or UNPAIRED.
    """

    a: float | None
    b: float | None
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    p: float | None = None
    test: str | None = None

    @property
    def significant(self) -> bool | None:
        """Whether the difference is more than chance; None if that is not known."""
        return None if self.p is None else self.p < LEVEL

    def to_json(self) -> dict[str, Any]:
        interval = {run: [round(end, 6) for end in ends] for run, ends in self.interval.items()}
        return {"a": self.a, "b": self.b, "interval": interval, "significant": self.significant, "p": self.p}


@dataclass(frozen=True)
class _Share:
    """A proportion as counts; `right` says which examples, if they are known."""

    successes: int
    n: int
    right: npt.NDArray[np.bool_] | None = None

    @property
    def value(self) -> float | None:
        return self.successes / self.n if self.n else None


def compare(a: Run, b: Run) -> dict[str, Any]:
    """The differences, as `compare --json` prints them, but with a Metric as each value of "metrics"."""
    return {
        "runs": [a.run_id, b.run_id],
        **records.differences(a, b),
        "metrics": {name: metric for name, metric in metrics(a, b).items() if metric.a != metric.b},
        "seconds": seconds(a, b),
        "recorded": [title for title, known in _RECORDED.items() if all(known(run) for run in (a, b))],
        "missing": [f"run {run.run_id} {what}" for run in (a, b) for what in _missing(run)],
    }


def metrics(a: Run, b: Run) -> dict[str, Metric]:
    """The metrics of both runs: overall first, then recall and precision of each class."""
    ours, theirs = _predictions(a), _predictions(b)
    same_images = ours and theirs and np.array_equal(ours.images, theirs.images)
    paired = bool(same_images and ours and theirs and np.array_equal(ours.labels, theirs.labels))
    shares, others = _shares(a, ours), _shares(b, theirs)
    found = {ACCURACY: _metric(a, b, ACCURACY, shares.get(ACCURACY), others.get(ACCURACY), paired)}
    for name in dict.fromkeys([*a.metrics, *b.metrics]):
        found.setdefault(name, Metric(a.metrics.get(name), b.metrics.get(name)))
    of_classes = {
        name: _metric(a, b, name, shares.get(name), others.get(name), paired)
        for name in dict.fromkeys([*_recalls(a), *_recalls(b), *shares, *others])
        if name != ACCURACY
    }
    return found | _adjusted(of_classes)


def seconds(a: Run, b: Run) -> dict[str, dict[str, Any]]:
    """State and seconds of each node where they differ: {node: {"a": {"state", "seconds"}, "b": {...}}}."""
    ours, theirs = ({node["id"]: _timed(node) for node in run.nodes} for run in (a, b))
    ids = dict.fromkeys([*ours, *theirs])
    return {i: {"a": ours.get(i), "b": theirs.get(i)} for i in ids if ours.get(i) != theirs.get(i)}


def two_proportions(a: int, n: int, b: int, m: int) -> float:
    """Two-sided p-value of the difference between a of n and b of m independent examples (pooled z-test), 0..1."""
    pooled = (a + b) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return 1.0 if error == 0 else 2 * NormalDist().cdf(-abs(a / n - b / m) / error)


def _missing(run: Run) -> list[str]:
    lines = []
    if run.executions and run.evaluation is None and run.metrics:
        lines.append("has no evaluation any more: its intervals are not known")
    return lines


def _timed(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": node["state"], "seconds": node["seconds"]}


def _predictions(run: Run) -> ReferencePredictions | None:
    try:
        return reference_predictions.read(run.evaluation) if run.evaluation else None
    except (OSError, ValueError, KeyError):
        return None


def _shares(run: Run, predictions: ReferencePredictions | None) -> dict[str, _Share]:
    """Accuracy, and recall and precision of each class, as counts."""
    if predictions is None:
        return {}
    labels, chosen = predictions.labels, predictions.probabilities.argmax(axis=1)
    right = chosen == labels
    names = class_names(run.settings or {}, predictions.probabilities.shape[1])
    found = {ACCURACY: _Share(int(right.sum()), len(labels), right)}
    for k, name in enumerate(names):
        mine = right[labels == k]
        found[f"recall[{name}]"] = _Share(int(mine.sum()), len(mine), mine)
    for k, name in enumerate(names):
        found[f"precision[{name}]"] = _Share(int((right & (chosen == k)).sum()), int((chosen == k).sum()))
    return found


def _recalls(run: Run) -> dict[str, float]:
    """Recall of each class from the gate's checks, for runs without an evaluation."""
    classes = [check for check in run.checks if check["metric"] == "recall"]
    names = class_names(run.settings or {}, len(classes))
    by_number = {str(k): name for k, name in enumerate(names)}
    return {f"recall[{by_number.get(c['slice'], c['slice'])}]": round(c["value"], 6) for c in classes}


def _metric(a: Run, b: Run, name: str, one: _Share | None, other: _Share | None, paired: bool) -> Metric:
    values, intervals = [], {}
    for run, share, key in ((a, one, "a"), (b, other, "b")):
        if share is None or share.value is None:
            values.append(run.metrics.get(name, _recalls(run).get(name)))
            continue
        values.append(round(share.value, 6))
        intervals[key] = significance.wilson(share.successes, share.n)
    p = test = None
    if one and other and one.n and other.n:
        if paired and one.right is not None and other.right is not None:
            worse, better = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
            p = min(1.0, 2 * min(significance.mcnemar(worse, better), significance.mcnemar(better, worse)))
            test = PAIRED
        else:
            p, test = two_proportions(one.successes, one.n, other.successes, other.n), UNPAIRED
    return Metric(values[0], values[1], intervals, p, test)


def _adjusted(found: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics with p-values adjusted for their number (S. Holm, Scand. J. Statist. 6, 1979)."""
    tested = sorted((metric.p, name) for name, metric in found.items() if metric.p is not None)
    highest, adjusted = 0.0, {}
    for rank, (p, name) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[name] = highest
    return {
        name: Metric(metric.a, metric.b, metric.interval, adjusted.get(name), metric.test)
        for name, metric in found.items()
    }


def lines(compared: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """The differences for a terminal."""
    shown = [f"{key}  {_line(run)}" for key, run in zip("ab", runs, strict=True)]
    for title in ("settings", "data", "code"):
        changes = [(key, *map(_short, pair)) for key, pair in compared[title].items()]
        shown += [
            "",
            title if changes else f"{title}: {'the same' if title in compared['recorded'] else 'not recorded'}",
        ]
        shown += [f"  {key:<26} {before} -> {after}" for key, before, after in changes]
    shown += ["", "metrics, with 95 % intervals" if compared["metrics"] else "metrics: the same"]
    shown += [f"  {name:<20} {_described(metric)}" for name, metric in compared["metrics"].items()]
    pairs = {node: [_seconds(timed[run]) for run in "ab"] for node, timed in compared["seconds"].items()}
    rows = [f"  {node:<20} {before} -> {after}" for node, (before, after) in pairs.items() if before != after]
    shown += ["", "seconds" if rows else "seconds: the same", *rows]
    return [*shown, *compared["missing"]]


def _seconds(timed: Mapping[str, Any] | None) -> str:
    return f"{timed['seconds']:.1f} ({timed['state']})" if timed else "-"


def _line(run: Run) -> str:
    version = f", version {run.version}" if run.version else ""
    return f"{run.run_id}  {(run.started_utc or '')[:16].replace('T', ' ')} UTC  {run.status}{version}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a hash


def _described(metric: Metric) -> str:
    sides = []
    for key, value in (("a", metric.a), ("b", metric.b)):
        ends = metric.interval.get(key)
        between = f" ({ends[0]:.4f}..{ends[1]:.4f})" if ends else ""
        sides.append("not recorded" if value is None else f"{value:.4f}{between}")
    if metric.p is None:
        return " -> ".join(sides)
    verdict = "more than chance" if metric.significant else "may be chance"
    return f"{' -> '.join(sides)}  {verdict}, p {metric.p:.2g} ({metric.test})"
