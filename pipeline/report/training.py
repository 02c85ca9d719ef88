"""Section "Run": learning curves, what differs from the defaults and the previous run, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from components.common.commands import command
from pipeline import records
from pipeline.report.svg import Chart, Series, line_chart
from pipeline.settings import Settings

History = Mapping[str, Any]


def curves(history: History | None, baseline: History | None) -> list[Chart]:
    """Charts of the training loss and of the accuracy on the eval split, with the baseline's behind; [] without any."""
    wanted = [("loss", "Training loss", "cross-entropy"), ("eval_accuracy", "Accuracy on the eval split", "accuracy")]
    found = []
    for key, title, unit in wanted:
        series = [
            Series(name, _points(of, key), style)
            for name, of, style in (("baseline", baseline, "baseline"), ("this run", history, "line"))
            if of and _points(of, key)
        ]
        if history and (chart := line_chart(title, series, "step", unit)):
            found.append(chart)
    return found


def _points(history: History, key: str) -> list[tuple[float, float]]:
    points: Sequence[Mapping[str, Any]] = history.get("history") or []
    return [(point["step"], point[key]) for point in points if point.get(key) is not None]


def not_default(settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from the defaults: {"train.steps": (default, value)}."""
    return records.changed(records.flat(asdict(Settings())), records.flat(settings or {}))


def reproduce(settings: Mapping[str, Mapping[str, Any]] | None) -> str:
    """The command that runs with these settings again."""
    words = []
    for key, (_, value) in not_default(settings).items():
        words += ["--set", f"{key}={_text(value)}"]
    return command("pipeline", "run", *words)


def _text(value: Any) -> str:
    """A setting's value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
