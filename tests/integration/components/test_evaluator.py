"""The evaluation with TFMA: its thresholds, and the checks and metrics derived from its results."""

from __future__ import annotations

import numpy as np
import pytest

from components.common.settings import GateSettings
from components.evaluator import ACCURACY, calibration_error, checks, eval_config, precisions
from components.validation.reference_predictions import ReferencePredictions

CONFIG = eval_config(GateSettings(min_accuracy=0.9, min_class_recall=0.8, max_accuracy_drop=0.01))
GOOD = {"overall": {ACCURACY: 0.95}, "0": {ACCURACY: 0.97}, "8": {ACCURACY: 0.75}}


def test_the_tfma_verdict_is_shown_by_metric_and_digit() -> None:
    found = {(c.metric, c.slice): c for c in checks(CONFIG, GOOD, None, {("8", "value")})}
    assert {key: check.passed for key, check in found.items()} == {
        ("accuracy", "overall"): True,
        ("recall", "0"): True,
        ("recall", "8"): False,
    }
    assert found["accuracy", "overall"].bound == pytest.approx(0.9)
    assert found["recall", "8"].bound == pytest.approx(0.8)


def test_against_a_baseline_only_the_overall_accuracy_is_bound_but_every_delta_is_shown() -> None:
    before = {"overall": {ACCURACY: 0.97}, "0": {ACCURACY: 0.9}}
    found = {(c.metric, c.slice): c for c in checks(CONFIG, GOOD, before, {("overall", "change")})}
    against = found["accuracy against baseline", "overall"]
    assert (against.passed, against.bound) == (False, pytest.approx(0.96))
    assert found["accuracy", "overall"].passed
    assert found["recall", "0"].delta == pytest.approx(0.07)
    assert found["recall", "8"].delta is None  # the baseline never saw that digit


def test_precision_from_a_confusion_matrix() -> None:
    assert precisions([[8, 2, 0], [0, 10, 0], [2, 0, 0]]) == [0.8, pytest.approx(10 / 12), None]


@pytest.mark.parametrize(("confidence", "right", "error"), [(1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.75, 0.5, 0.25)])
def test_calibration_error_is_the_gap_between_confidence_and_accuracy(
    confidence: float, right: float, error: float
) -> None:
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (100, 1))
    labels = np.array([0] * int(100 * right) + [1] * int(100 * (1 - right)))
    answers = ReferencePredictions(np.zeros((100, 1, 1), np.uint8), labels, probabilities)
    assert calibration_error(answers) == pytest.approx(error, abs=1e-6)
