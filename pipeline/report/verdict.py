"""Section "Verdict": whether the model was blessed, by which bounds, and what serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from components.common.errors import InputError
from components.validation import significance
from components.validation.verdict import AGAINST_BASELINE, OVERALL, Check, Verdict
from components.versions.release import Release, read_release
from pipeline.report.sources import Sources

HEADLINES: Final = {
    "pushed": "Blessed and pushed",
    "not_blessed": "Not blessed: nothing was pushed",
    "anomalies": "Stopped by anomalies in the data: nothing was trained",
    "failed": "Failed: nothing was pushed",
}
COUNTED: Final = ("accuracy", "recall", AGAINST_BASELINE)  # proportions of the examples of a slice
UNITS: Final = {"size_bytes": "bytes", "load_s": "s", "grpc_p99_ms": "ms", "rest_p99_ms": "ms"}


@dataclass(frozen=True)
class Row:
    """A bound. Numbers are texts, as they are shown; "" if there is none.

    Attributes:
        interval: 95 % Wilson interval of the value.
        margin: how far the value is from the bound; negative if it misses it.
    """

    metric: str
    slice: str
    value: str
    interval: str
    bound: str
    margin: str
    baseline: str
    delta: str
    passed: bool


@dataclass(frozen=True)
class Section:
    """Content of the section; the tables are empty if a check was not made."""

    status: str
    headline: str
    error: str
    version: str
    serving: str
    gate: list[Row]
    infra: list[Row]
    metrics: dict[str, str]


def section(sources: Sources) -> Section:
    run = sources.run
    gate = sources.gate or Verdict(bool(run.blessed), [Check(**check) for check in run.checks])
    counts = {name: int(m.get("example_count", 0)) for name, m in gate.metrics.get("slices", {}).items()}
    return Section(
        status=run.status,
        headline=HEADLINES.get(run.status, run.status),
        error=run.error or "",
        version=run.version or "",
        serving=serving(sources),
        gate=rows(gate.checks, counts, sources.class_names),
        infra=rows(sources.infra.checks, {}, []) if sources.infra and run.blessed else [],
        metrics={name: f"{value:.4f}" for name, value in run.metrics.items()},
    )


def rows(checks: Sequence[Check], counts: Mapping[str, int], class_names: Sequence[str]) -> list[Row]:
    """A row per bound.

    Args:
        counts: number of test examples by slice: "overall" or a class; without it a row has no interval.
    """
    found = []
    for check in checks:
        low, high = check.low, check.high
        if low is None and check.metric in COUNTED and (n := counts.get(check.slice, 0)):  # of an older version
            low, high = significance.wilson(round(check.value * n), n)
        found.append(
            Row(
                metric=f"{check.metric} ({UNITS[check.metric]})" if check.metric in UNITS else check.metric,
                slice=check.class_name or class_name(check.slice, class_names),
                value=number(check.value),
                interval="" if low is None else f"{low:.4f} to {high:.4f}",
                bound=f"{'≤' if check.at_most else '≥'} {number(check.bound)}",
                margin=number(check.margin, sign=True),
                baseline="" if check.baseline is None else number(check.baseline),
                delta="" if check.delta is None else number(check.delta, sign=True),
                passed=check.passed,
            )
        )
    return found


def class_name(slice_name: str, names: Sequence[str]) -> str:
    """A slice as it is shown: "all", or the class's name."""
    if slice_name == OVERALL:
        return "all"
    return names[int(slice_name)] if slice_name.isdecimal() and int(slice_name) < len(names) else slice_name


def number(value: float, *, sign: bool = False) -> str:
    """Four decimals, or three digits for very small and large numbers."""
    plus = "+" if sign else ""
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 10):
        return f"{int(value):{plus},}"
    return f"{value:{plus}.4f}" if value == 0 or 1e-4 <= abs(value) < 1e4 else f"{value:{plus}.3g}"


def serving(sources: Sources) -> str:
    """Which role the run's version has now, in words."""
    version = sources.run.version
    if version is None:
        return ""
    try:
        return role(int(version), read_release(sources.home.root), (sources.home.serving_model / version).is_dir())
    except (InputError, ValueError) as e:
        return f"unknown: {e}"


def role(version: int, release: Release, here: bool) -> str:
    """The role of a version, by release.json; `here`: whether its folder is in the home."""
    labels = [label for label, number in release.labels.items() if number == version]
    if labels:
        return f"{' and '.join(labels)} on the servers of this home"
    if not here:
        return "not in this home: pushed elsewhere, or removed since"
    if release.stable is not None:
        return f"pushed, but not served: version {release.stable} is stable until this one is promoted"
    return "pushed; a server of this home serves the newest version, as none was promoted"
