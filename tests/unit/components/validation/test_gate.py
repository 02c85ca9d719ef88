"""The gate's checks, and the metrics that TFMA does not compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.settings import GateSettings
from components.validation.gate import ACCURACY, COUNT, calibration_error, checks, precisions
from components.validation.reference_predictions import ReferencePredictions
from components.validation.significance import Paired, mcnemar
from components.validation.verdict import AGAINST_BASELINE

SETTINGS = GateSettings(min_accuracy=0.9, min_class_recall=0.8, max_accuracy_drop=0.01)
GOOD = {
    "overall": {ACCURACY: 0.95, COUNT: 1000.0},
    "0": {ACCURACY: 0.97, COUNT: 100.0},
    "1": {ACCURACY: 0.75, COUNT: 100.0},
}
BEFORE = {"overall": {ACCURACY: 0.97}, "0": {ACCURACY: 0.9}}


def test_each_threshold_has_its_value_interval_margin_and_verdict() -> None:
    found = {(c.metric, c.slice): c for c in checks(SETTINGS, GOOD, None, {("1", "value")}, names=["Shirt", "Bag"])}
    assert {key: check.passed for key, check in found.items()} == {
        ("accuracy", "overall"): True,
        ("recall", "0"): True,
        ("recall", "1"): False,
    }
    accuracy, recall = found["accuracy", "overall"], found["recall", "1"]
    assert (accuracy.bound, accuracy.class_name, accuracy.p_worse) == (0.9, "", None)
    assert (accuracy.low, accuracy.high) == (pytest.approx(0.9347, abs=1e-4), pytest.approx(0.9619, abs=1e-4))
    assert (recall.bound, recall.class_name, recall.margin) == (0.8, "Bag", pytest.approx(-0.05))


def test_against_a_baseline_only_the_overall_accuracy_is_bound_but_each_value_is_shown() -> None:
    against = Paired(worse=30, better=10, p_worse=0.001, p_different=0.002)
    found = {(c.metric, c.slice): c for c in checks(SETTINGS, GOOD, BEFORE, {("overall", "change")}, against)}
    shown = found[AGAINST_BASELINE, "overall"]
    assert (shown.passed, shown.bound, shown.p_worse) == (False, pytest.approx(0.96), 0.001)
    assert found["accuracy", "overall"].passed
    assert found["recall", "0"].baseline == 0.9
    assert found["recall", "1"].baseline is None  # the baseline never saw that digit


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.2))
def test_with_significance_the_bound_is_the_lowest_accuracy_that_is_not_worse_beyond_chance(
    worse: int, better: int, level: float
) -> None:
    settings = GateSettings(max_accuracy_drop=0.0, significance=level)
    after = {"overall": {ACCURACY: 0.5 - (worse - better) / 1000, COUNT: 1000.0}}
    against = Paired(worse, better, mcnemar(worse, better), 1.0)
    _, check = checks(settings, after, {"overall": {ACCURACY: 0.5}}, set(), against)
    assert check.passed == (against.p_worse > level) == (check.margin > -1e-9)


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
