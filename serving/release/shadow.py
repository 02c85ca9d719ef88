"""The canary beside the stable version, on the same digits: should it be promoted?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from components.common import contract
from serving.client.base import Client
from serving.client.digits import Digit
from serving.client.errors import ServingClientError

LABELS: Final = ("stable", "canary")
ONE_SIDED_95: Final = 1.645  # quantile of the normal distribution
LATENCY_FLOOR_MS: Final = 5.0  # a p99 that differs by less is noise


@dataclass(frozen=True)
class Rules:
    """When a canary is good enough.

    Attributes:
        min_agreement: share of digits on which both name the same class, 0..1.
        max_accuracy_drop: how far its accuracy may be below the stable version's, 0..1. Chance is allowed for: the
            standard error of the paired difference (McNemar, 1947), one-sided at 95 %.
        max_latency_ratio: p99 latency over the stable version's; differences below LATENCY_FLOOR_MS do not count.
    """

    min_agreement: float
    max_accuracy_drop: float
    max_latency_ratio: float


@dataclass(frozen=True)
class Answers:
    """What one label answered.

    Attributes:
        version: that answered.
        classes: for each digit; None where the request failed.
        latencies_ms: of the requests that were answered.
        failure: the first one's words.
    """

    version: int
    classes: list[int | None]
    latencies_ms: list[float]
    failure: str = ""


def ask_both(client: Client, asked: Sequence[Digit]) -> dict[str, Answers]:
    """One request per digit and label, in turns.

    Raises:
        ServingClientError: the stable version does not answer. What the canary fails at is counted.
    """
    classes: dict[str, list[int | None]] = {label: [] for label in LABELS}
    latencies: dict[str, list[float]] = {label: [] for label in LABELS}
    failure = ""
    versions = {label: client.metadata(contract.MODEL_NAME, label=label).version for label in LABELS}
    for number, digit in enumerate(asked):
        for label in LABELS if number % 2 else LABELS[::-1]:
            started = time.perf_counter()
            try:
                outputs, _ = client.predict(
                    {contract.IMAGES: digit.image[None]}, model=contract.MODEL_NAME, label=label
                )
                named = int(outputs[contract.CLASSES][0])
            except (ServingClientError, KeyError, IndexError) as e:
                if label == "stable":
                    raise
                failure = failure or str(e)
                classes[label].append(None)
                continue
            latencies[label].append((time.perf_counter() - started) * 1e3)
            classes[label].append(named)
    return {
        label: Answers(versions[label], classes[label], latencies[label], failure if label == "canary" else "")
        for label in LABELS
    }


def compare(answers: dict[str, Answers], truth: Sequence[int | None], rules: Rules) -> dict[str, Any]:
    """The comparison as JSON, with a verdict ("promote" or "roll back") and what speaks against the canary.

    Args:
        answers: by label.
        truth: the class of each digit.
    """
    stable, canary = (answers[label] for label in LABELS)
    count = len(truth)
    pairs = list(zip(stable.classes, canary.classes, truth, strict=True))
    agreement = sum(s == c for s, c, _ in pairs) / count
    lost = sum(s == t != c for s, c, t in pairs)  # right before, wrong now
    won = sum(c == t != s for s, c, t in pairs)
    allowed = rules.max_accuracy_drop * count + ONE_SIDED_95 * math.sqrt(lost + won)
    figures = {label: _figures(answers[label], truth) for label in LABELS}
    against = []
    if failed := figures["canary"]["failed"]:
        against.append(f"{failed} of {count} requests failed: {canary.failure}")
    if agreement < rules.min_agreement:
        against.append(f"agreement {agreement:.4f} < {rules.min_agreement:.4f}")
    if lost - won > allowed:
        against.append(f"{lost - won} digits fewer right of {count}, {allowed:.1f} allowed")
    before_ms, now_ms = figures["stable"]["p99_ms"], figures["canary"]["p99_ms"]
    if now_ms is not None and now_ms > max(before_ms * rules.max_latency_ratio, before_ms + LATENCY_FLOOR_MS):
        against.append(f"p99 latency {now_ms:.1f} ms > {rules.max_latency_ratio:g} x {before_ms:.1f} ms")
    return {
        "asked": count,
        "agreement": round(agreement, 6),
        **figures,
        "rules": asdict(rules),
        "verdict": "roll back" if against else "promote",
        "reasons": against,
    }


def table(comparison: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [f"{'':8}{'version':>14}{'right':>9}{'accuracy':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}"]
    for label in LABELS:
        row = comparison[label]
        p50, p99 = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms"))
        accuracy = f"{row['accuracy']:.4f}"
        lines.append(f"{label:8}{row['version']:>14}{row['right']:>9}{accuracy:>10}{p50:>9}{p99:>9}{row['failed']:>8}")
    return [*lines, f"{comparison['asked']} test digits, agreement {comparison['agreement']:.4f}"]


def _figures(answers: Answers, truth: Sequence[int | None]) -> dict[str, Any]:
    right = sum(named == true for named, true in zip(answers.classes, truth, strict=True))
    p50, p99 = np.percentile(answers.latencies_ms, [50, 99]).tolist() if answers.latencies_ms else (None, None)
    return {
        "version": answers.version,
        "right": right,
        "accuracy": round(right / len(truth), 6),
        "p50_ms": None if p50 is None else round(p50, 3),
        "p99_ms": None if p99 is None else round(p99, 3),
        "failed": sum(named is None for named in answers.classes),
    }
