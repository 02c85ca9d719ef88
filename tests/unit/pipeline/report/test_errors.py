from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.validation.reference_predictions import ReferencePredictions
from pipeline.report import errors, images


def answers(labels: list[int], predicted: list[int], confidence: list[float], classes: int = 3) -> ReferencePredictions:
    """Predictions with these classes; the rest of each probability is shared by the other classes."""
    probabilities = np.full((len(labels), classes), 0.0, np.float32)
    for row, (k, sure) in enumerate(zip(predicted, confidence, strict=True)):
        probabilities[row] = (1 - sure) / (classes - 1)
        probabilities[row, k] = sure
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    return ReferencePredictions(pixels, np.asarray(labels, np.int64), probabilities)


def test_each_error_is_in_its_cell_the_most_confident_first() -> None:
    found = errors.errors(answers([0, 0, 0, 1, 2], [0, 1, 1, 1, 0], [0.9, 0.6, 0.8, 0.9, 0.7]), ["zero", "one", "two"])
    assert (found.total, found.wrong) == (5, 3)
    counts = [[cell.count for cell in row] for row in found.rows]
    assert counts == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    cell = found.rows[0][1]
    assert [(p.index, p.actual, p.predicted) for p in cell.pictures] == [(2, "zero", "one"), (1, "zero", "one")]
    assert [p.index for p in found.mistakes] == [2, 4, 1]
    assert [row.pictures for row in found.rows[1]] == [(), (), ()]


def test_precision_recall_and_f1_have_intervals_and_undefined_ones_are_none() -> None:
    zero, one, two = errors.errors(answers([0, 0, 1], [0, 1, 1], [0.9, 0.9, 0.9]), ["0", "1", "2"]).classes
    assert (zero.recall, zero.precision, zero.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (one.recall, one.precision) == (1.0, 0.5)
    assert (two.recall, two.precision, two.f1, two.examples) == (None, None, None, 0)
    low, high = zero.recall_interval
    assert 0 < low < 0.5 < high < 1


def test_answers_that_changed_against_the_baseline_are_shown_both_ways() -> None:
    before = answers([0, 0, 1, 2], [0, 1, 0, 0], [0.9, 0.8, 0.9, 0.6])
    now = answers([0, 0, 1, 2], [1, 0, 0, 1], [0.7, 0.8, 0.9, 0.6])
    changed = errors.errors(now, ["0", "1", "2"], before).changed
    assert changed is not None
    assert [(p.index, p.predicted) for p in changed.broken] == [(0, "1")]
    assert [(p.index, p.predicted) for p in changed.fixed] == [(1, "1")]  # the baseline's wrong answer
    assert (changed.paired.worse, changed.paired.better, changed.both_wrong) == (1, 1, 1)
    other_data = answers([0, 0, 1, 1], [0, 1, 0, 0], [0.9] * 4)
    assert errors.errors(now, ["0", "1", "2"], other_data).changed is None


def test_pictures_and_classes_are_capped() -> None:
    classes, count = 60, 30_000
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    probabilities = random.random((count, classes), np.float32)
    pixels = random.integers(0, 256, (count, 64, 64), np.uint8)
    wrong = ReferencePredictions(pixels, labels, probabilities)
    found = errors.errors(wrong, [f"class {k}" for k in range(classes)])
    shown = [p for row in found.rows for cell in row for p in cell.pictures]
    assert (len(found.rows), found.hidden) == (errors.MAX_CLASSES, 30)
    assert errors.MAX_CHARACTERS * 0.8 < sum(len(p.uri) for p in shown) < errors.MAX_CHARACTERS


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1) | st.just(float("nan"))), min_size=1, max_size=60))
def test_every_image_is_in_one_range_of_confidence(pairs: list[tuple[bool, float]]) -> None:
    right, confidence = (np.asarray(column) for column in zip(*pairs, strict=True))
    bins = errors.by_confidence(right, confidence)
    assert sum(one.count for one in bins) == len(pairs)
    assert sum(one.wrong for one in bins) == int((~right).sum())
    assert all(one.interval[0] <= one.accuracy <= one.interval[1] for one in bins)


def test_a_model_with_nan_has_a_page_too() -> None:
    broken = answers([0, 1], [0, 1], [0.9, 0.9])
    broken.probabilities[:] = np.nan
    found = errors.errors(broken, ["0", "1", "2"])
    assert found.wrong == 1  # NaN counts as class 0
    assert errors.reliability(found.bins) is not None


def test_a_picture_is_dark_ink_on_white_and_small() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[:, :4] = 255
    uri = images.data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))
    assert shown.shape == (28, 28)
    assert (shown[:, :4] == 0).all()
    assert (shown[:, 4:] == 255).all()
    large = images.data_uri(np.zeros((400, 100), np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(large.partition(",")[2]))).size == (8, 32)
