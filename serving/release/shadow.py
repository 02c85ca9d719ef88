"""Compares the canary with the stable version on the same digits, to decide whether to promote it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.common import contract
from components.common.errors import InputError
from components.versions.release import read_release
from serving.client import Client, connect
from serving.client.digits import Digit
from serving.client.errors import ServingClientError
from serving.release import history

LABELS: Final = ("stable", "canary")
ONE_SIDED_95: Final = 1.645  # quantile of the normal distribution
LATENCY_FLOOR_MS: Final = 5.0  # a p99 that differs by less is noise


class LabelMovedError(InputError):
    """A label moved to another version during the comparison."""


@dataclass(frozen=True)
class Rules:
    """Thresholds for a canary.

    Attributes:
        min_agreement: share of digits for which both predict the same class, 0..1.
        max_accuracy_drop: how far its accuracy may be below the stable version's, 0..1, plus a margin for chance: the
            standard error of the paired difference (McNemar, 1947), one-sided at 95 %.
        max_latency_ratio: canary p99 / stable p99 latency; differences below LATENCY_FLOOR_MS are ignored.
    """

    min_agreement: float
    max_accuracy_drop: float
    max_latency_ratio: float


@dataclass(frozen=True)
class Predictions:
    """Predictions of one label.

    Attributes:
        version: the version with the label.
        classes: predicted class of each digit; None if the request failed.
        latencies_ms: latencies of the successful requests.
        failure: message of the first failed request.
    """

    version: int
    classes: list[int | None]
    latencies_ms: list[float]
    failure: str = ""


def predict_both(client: Client, digits: Sequence[Digit]) -> dict[str, Predictions]:
    """Send one request per digit and label, alternating which label goes first.

    Raises:
        ServingClientError: a request to the stable version failed. Failed requests to the canary are only counted.
        LabelMovedError: a label moved meanwhile.
    """
    classes: dict[str, list[int | None]] = {label: [] for label in LABELS}
    latencies: dict[str, list[float]] = {label: [] for label in LABELS}
    failure = ""
    versions = {label: client.metadata(contract.MODEL_NAME, label=label).version for label in LABELS}
    for number, digit in enumerate(digits):
        for label in LABELS if number % 2 else LABELS[::-1]:
            started = time.perf_counter()
            try:
                outputs, served = client.predict(
                    {contract.IMAGES: digit.image[None]}, model=contract.MODEL_NAME, label=label
                )
                predicted = int(outputs[contract.CLASSES][0])
                if served != versions[label]:
                    raise LabelMovedError(
                        f"label {label} moved from version {versions[label]} to {served}", "Try again."
                    )
            except (ServingClientError, KeyError, IndexError) as e:
                if label == "stable":
                    raise
                failure = failure or str(e)
                classes[label].append(None)
                continue
            latencies[label].append((time.perf_counter() - started) * 1e3)
            classes[label].append(predicted)
    return {
        label: Predictions(versions[label], classes[label], latencies[label], failure if label == "canary" else "")
        for label in LABELS
    }


def run(home: Path, grpc_port: int, digits: Sequence[Digit], rules: Rules, reason: str) -> dict[str, Any]:
    """Compare the labels of the running server, append the verdict to the history, and return the comparison.

    If a label moves meanwhile, starts again once: the predictions of a label are all of one version.

    Raises:
        ServingClientError: a request to the stable version failed.
        InputError: the history cannot be written, or a label moved again.
    """
    with connect(f"127.0.0.1:{grpc_port}") as client:
        try:
            predictions = predict_both(client, digits)
        except LabelMovedError:
            predictions = predict_both(client, digits)
    comparison = compare(predictions, [digit.label for digit in digits], rules)
    now = read_release(home)
    change = history.pending_change("shadow", None, predictions["canary"].version, reason)
    entry = history.entry(now, now, change, comparison["verdict"])
    reasons = "; ".join(comparison["reasons"])
    history.append(home, {**entry, "error": reasons} if reasons else entry)
    return comparison


def compare(predictions: dict[str, Predictions], truth: Sequence[int | None], rules: Rules) -> dict[str, Any]:
    """Return the comparison as JSON, with a verdict ("promote" or "withdraw") and the reasons against the canary.

    Args:
        predictions: by label.
        truth: the class of each digit.
    """
    stable, canary = (predictions[label] for label in LABELS)
    count = len(truth)
    pairs = list(zip(stable.classes, canary.classes, truth, strict=True))
    agreement = sum(s == c for s, c, _ in pairs) / count
    lost = sum(s == t != c for s, c, t in pairs)  # only the stable version is right
    won = sum(c == t != s for s, c, t in pairs)  # only the canary is right
    allowed = rules.max_accuracy_drop * count + ONE_SIDED_95 * math.sqrt(lost + won)
    figures = {label: _figures(predictions[label], truth) for label in LABELS}
    against = []
    if failed := figures["canary"]["failed"]:
        against.append(f"{failed} of {count} requests failed: {canary.failure}")
    if agreement < rules.min_agreement:
        against.append(f"agreement {agreement:.4f} < {rules.min_agreement:.4f}")
    if lost - won > allowed:
        against.append(f"{lost - won} fewer of {count} digits correct, {allowed:.1f} allowed")
    before_ms, now_ms = figures["stable"]["p99_ms"], figures["canary"]["p99_ms"]
    if now_ms is not None and now_ms > max(before_ms * rules.max_latency_ratio, before_ms + LATENCY_FLOOR_MS):
        against.append(f"p99 latency {now_ms:.1f} ms > {rules.max_latency_ratio:g} x {before_ms:.1f} ms")
    return {
        "asked": count,
        "agreement": round(agreement, 6),
        **figures,
        "rules": asdict(rules),
        "verdict": "withdraw" if against else "promote",
        "reasons": against,
    }


def _figures(found: Predictions, truth: Sequence[int | None]) -> dict[str, Any]:
    right = sum(predicted == true for predicted, true in zip(found.classes, truth, strict=True))
    p50, p99 = np.percentile(found.latencies_ms, [50, 99]).tolist() if found.latencies_ms else (None, None)
    return {
        "version": found.version,
        "right": right,
        "accuracy": round(right / len(truth), 6),
        "p50_ms": None if p50 is None else round(p50, 3),
        "p99_ms": None if p99 is None else round(p99, 3),
        "failed": found.classes.count(None),
    }
