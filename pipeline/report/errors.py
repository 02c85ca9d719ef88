"""Section "Errors": what the model misread in the test split, and how sure it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from components.validation import significance
from components.validation.reference_predictions import ReferencePredictions
from components.validation.significance import Paired
from pipeline.report import images
from pipeline.report.svg import Chart, Series, bar_chart, line_chart

MAX_CLASSES: Final = 30  # those with the lowest F1
MAX_PER_CELL: Final = 20
MAX_MISTAKES: Final = 50
MAX_CHANGED: Final = 40  # each way
MAX_CHARACTERS: Final = 500_000  # of the pictures in all cells: the page must stay below 1.5 MB
MARKUP_CHARACTERS: Final = 130  # around a picture
BINS: Final = 10
HEAT_LEVELS: Final = 9
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """A misread test image.

    Attributes:
        index: its place in the test split.
        actual, predicted: names of classes.
        confidence: probability of the predicted class, 0..1.
        uri: a PNG as a data URI.
    """

    index: int
    actual: str
    predicted: str
    confidence: float
    uri: str


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; `pictures` are its most confident errors, at most MAX_PER_CELL."""

    actual: str
    predicted: str
    count: int
    heat: int  # 0..HEAT_LEVELS
    pictures: tuple[Picture, ...] = ()
    anchor: str = ""


@dataclass(frozen=True)
class ClassRow:
    """Metrics of one class, 0..1, with the 95 % Wilson interval of recall and precision; None if undefined."""

    name: str
    examples: int
    recall: float | None
    recall_interval: tuple[float, float]
    precision: float | None
    precision_interval: tuple[float, float]
    f1: float | None
    baseline_recall: float | None = None


@dataclass(frozen=True)
class Bin:
    """The test images whose confidence is in [low, high)."""

    low: float
    high: float
    count: int
    wrong: int
    confidence: float  # mean
    accuracy: float
    interval: tuple[float, float]  # of the accuracy


@dataclass(frozen=True)
class Changed:
    """Test images whose answer differs between the baseline and the model."""

    fixed: tuple[Picture, ...]
    broken: tuple[Picture, ...]
    paired: Paired
    both_wrong: int  # of which the answer changed


@dataclass(frozen=True)
class Errors:
    """Content of the section. `rows` are the confusion matrix's, by actual class; `hidden` classes are left out."""

    total: int
    wrong: int
    names: list[str]
    hidden: int
    rows: list[list[Cell]]
    classes: list[ClassRow]
    mistakes: tuple[Picture, ...]
    bins: list[Bin]
    calibration_error: float
    changed: Changed | None


def errors(answers: ReferencePredictions, names: list[str], baseline: ReferencePredictions | None = None) -> Errors:
    """Find the errors of a model.

    Args:
        names: of the classes.
        baseline: predictions of the baseline; ignored unless they are for the same images.
    """
    predicted, confidence = answers.probabilities.argmax(axis=1), answers.probabilities.max(axis=1)
    matrix = confusion(answers.labels, predicted, len(names))
    if baseline is not None and not np.array_equal(baseline.labels, answers.labels):
        baseline = None
    before = baseline.probabilities.argmax(axis=1) if baseline is not None else None
    rows = class_rows(matrix, names, confusion(answers.labels, before, len(names)) if before is not None else None)
    worst = sorted(range(len(names)), key=lambda k: -1.0 if (f1 := rows[k].f1) is None else f1)
    shown = sorted(worst[:MAX_CLASSES])

    # An example with NaN in its probabilities has no confidence: it counts as an error of class 0, at the end.
    wrong = np.flatnonzero(predicted != answers.labels)
    wrong = wrong[np.argsort(-np.nan_to_num(confidence[wrong], nan=-1.0), kind="stable")]

    bins = by_confidence(predicted == answers.labels, confidence)
    return Errors(
        total=len(predicted),
        wrong=len(wrong),
        names=[names[k] for k in shown],
        hidden=len(names) - len(shown),
        rows=_cells(answers, matrix, names, shown, wrong),
        classes=[rows[k] for k in shown],
        mistakes=_pictures(answers, names, wrong[:MAX_MISTAKES]),
        bins=bins,
        calibration_error=sum(abs(b.accuracy - b.confidence) * b.count for b in bins) / max(1, len(predicted)),
        changed=_changed(answers, baseline, names) if baseline is not None else None,
    )


def confusion(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Counts [actual, predicted]."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_rows(
    matrix: npt.NDArray[np.int64], names: list[str], baseline: npt.NDArray[np.int64] | None = None
) -> list[ClassRow]:
    """Precision, recall and F1 of each class from confusion matrices [actual, predicted]."""
    rows = []
    for k, name in enumerate(names):
        right, actual, predicted = int(matrix[k, k]), int(matrix[k].sum()), int(matrix[:, k].sum())
        before = int(baseline[k].sum()) if baseline is not None else 0
        rows.append(
            ClassRow(
                name=name,
                examples=actual,
                recall=right / actual if actual else None,
                recall_interval=significance.wilson(right, actual),
                precision=right / predicted if predicted else None,
                precision_interval=significance.wilson(right, predicted),
                f1=2 * right / (actual + predicted) if actual + predicted else None,
                baseline_recall=int(baseline[k, k]) / before if baseline is not None and before else None,
            )
        )
    return rows


def by_confidence(right: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float32]) -> list[Bin]:
    """Accuracy in BINS ranges of confidence of equal width, without the empty ones.

    Args:
        right: bool [n], whether the answer is right.
        confidence: [n], 0..1; NaN counts as 0.
    """
    sure = np.nan_to_num(confidence, nan=0.0)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = []
    for k in range(BINS):
        inside = place == k
        if count := int(inside.sum()):
            good = int(right[inside].sum())
            mean = float(sure[inside].mean())
            interval = significance.wilson(good, count)
            found.append(Bin(k / BINS, (k + 1) / BINS, count, count - good, mean, good / count, interval))
    return found


def _pictures(answers: ReferencePredictions, names: list[str], indices: Sequence[int] | Indices) -> tuple[Picture, ...]:
    """Pictures of some test images, with the answers that `answers` has for them."""
    return tuple(
        Picture(
            index=int(index),
            actual=names[answers.labels[index]],
            predicted=names[answers.probabilities[index].argmax()],
            confidence=float(answers.probabilities[index].max()),
            uri=images.data_uri(answers.images[index]),
        )
        for index in indices
    )


def _cells(
    answers: ReferencePredictions, matrix: Indices, names: list[str], shown: list[int], wrong: Indices
) -> list[list[Cell]]:
    """The confusion matrix of the classes `shown`; `wrong` is the order in which a cell shows its images."""
    per_cell: dict[tuple[int, int], list[int]] = {}
    predicted = answers.probabilities.argmax(axis=1)
    for index in wrong:
        per_cell.setdefault((int(answers.labels[index]), int(predicted[index])), []).append(index)
    left, pictures = MAX_CHARACTERS, {}
    for (i, j), indices in sorted(per_cell.items(), key=lambda item: -len(item[1])):
        if i in shown and j in shown and left > 0:
            pictures[i, j] = _pictures(answers, names, indices[:MAX_PER_CELL])
            left -= sum(len(picture.uri) + MARKUP_CHARACTERS for picture in pictures[i, j])
    most = max((len(indices) for indices in per_cell.values()), default=1)

    def cell(i: int, j: int) -> Cell:
        count = int(matrix[i, j])
        heat = -(-count * HEAT_LEVELS // most) if i != j else 0
        return Cell(names[i], names[j], count, heat, pictures.get((i, j), ()), f"cell-{i}-{j}" if count else "")

    return [[cell(i, j) for j in shown] for i in shown]


def _changed(answers: ReferencePredictions, baseline: ReferencePredictions, names: list[str]) -> Changed:
    labels, now, before = answers.labels, answers.probabilities.argmax(axis=1), baseline.probabilities.argmax(axis=1)
    fixed = np.flatnonzero((before != labels) & (now == labels))
    broken = np.flatnonzero((before == labels) & (now != labels))
    return Changed(
        fixed=_pictures(baseline, names, fixed[:MAX_CHANGED]),
        broken=_pictures(answers, names, broken[:MAX_CHANGED]),
        paired=significance.paired(labels, before, now),
        both_wrong=int(np.sum((before != labels) & (now != labels) & (before != now))),
    )


def reliability(bins: Sequence[Bin]) -> Chart | None:
    """Accuracy by confidence, with 95 % intervals; a calibrated model is on the diagonal."""
    points = [(one.confidence, one.accuracy) for one in bins]
    bars = [(one.confidence, *one.interval) for one in bins]
    series = [Series("calibrated", [(0, 0), (1, 1)], "diagonal"), Series("this model", points, "line", bars)]
    return line_chart("Reliability", series, "confidence", "accuracy", size=(560, 300))


def errors_by_confidence(bins: Sequence[Bin]) -> Chart:
    """Number of errors in each range of confidence."""
    names = [f"{one.low:.1f}-{one.high:.1f}" for one in bins]
    label = "Errors by confidence"
    return bar_chart(label, names, [("wrong", [one.wrong for one in bins])], "confidence", "errors", size=(560, 300))
