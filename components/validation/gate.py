"""The gate's checks of an evaluated model, and metrics that TFMA does not compute. No heavy imports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from components.common.settings import GateSettings
from components.validation.reference_predictions import ReferencePredictions
from components.validation.significance import Paired, allowed_loss, wilson
from components.validation.verdict import AGAINST_BASELINE, OVERALL, Check

ACCURACY: Final = "sparse_categorical_accuracy"  # TFMA's name; over the images of one class it is that class's recall
COUNT: Final = "example_count"


def checks(
    settings: GateSettings,
    candidate: dict[str, dict[str, float]],
    baseline: dict[str, dict[str, float]] | None,
    failed: set[tuple[str, str]],
    against: Paired | None = None,
    names: Sequence[str] = (),
) -> list[Check]:
    """The gate's thresholds, each with the measured value and the decision: overall first, then by class.

    Args:
        candidate, baseline: {slice: {metric: value}} of each model; `baseline` is None if there is none.
        failed: (slice, kind) of TFMA's failures; kind is "value" or "change".
        against: the comparison with the baseline by example.
        names: of the classes; empty if they have none.
    """
    found = []
    for name, metrics in candidate.items():
        value, count, overall = metrics[ACCURACY], int(metrics[COUNT]), name == OVERALL
        low, high = wilson(round(value * count), count)
        before = baseline.get(name, {}).get(ACCURACY) if baseline else None
        metric, bound = ("accuracy", settings.min_accuracy) if overall else ("recall", settings.min_class_recall)
        class_name = names[int(name)] if names and not overall else ""
        passed = (name, "value") not in failed
        found.append(Check(metric, name, value, bound, passed, before, low=low, high=high, class_name=class_name))
        if overall and before is not None and against:
            bound, passed = before - settings.max_accuracy_drop, (name, "change") not in failed
            if settings.significance:
                bound = before - allowed_loss(against.worse + against.better, settings.significance) / count
                passed = against.p_worse > settings.significance
            found.append(Check(AGAINST_BASELINE, name, value, bound, passed, before, p_worse=against.p_worse))
    return found


def precisions(confusion: list[list[int]]) -> list[float | None]:
    """Precision of each class from a confusion matrix [actual][predicted]; None for a class that is never predicted."""
    columns = list(zip(*confusion, strict=True))
    return [column[k] / sum(column) if sum(column) else None for k, column in enumerate(columns)]


def calibration_error(answers: ReferencePredictions, bins: int = 10) -> float:
    """Expected calibration error of the top class, 0..1 (Guo et al. 2017, eq. 3): |accuracy - confidence| by bin."""
    confidence = answers.probabilities.max(axis=1)
    right = answers.classes == answers.labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == k].mean() - confidence[place == k].mean()) * (place == k).sum() for k in set(place)]
    return float(sum(gaps) / len(right))
