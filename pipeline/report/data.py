"""Section "Data": counts, hashes, statistics and drift of the splits, and samples of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics
from tensorflow_metadata.proto.v0.statistics_pb2 import FeatureNameStatistics, Histogram

from components.common import contract
from components.common.settings import REAL_MNIST
from components.data import idx
from pipeline.report import images
from pipeline.report.errors import MAX_CLASSES
from pipeline.report.sources import UNREADABLE, Sources
from pipeline.report.svg import Chart, Series, bar_chart, line_chart
from pipeline.report.verdict import Row, rows

SAMPLES: Final = 8  # per class


@dataclass(frozen=True)
class Feature:
    """Statistics of a numeric feature in a split."""

    name: str
    split: str
    missing: int
    mean: float
    std_dev: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Samples:
    """Test images of a class, as data URIs."""

    name: str
    uris: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Content of the section.

    Attributes:
        counts: number of examples by split.
        charts: label, features: compared across the splits.
        anomalies: one line each.
        drift: each measured difference with its bound.
    """

    source: str
    counts: Mapping[str, int]
    sha256: Mapping[str, str]
    features: Sequence[Feature]
    charts: Sequence[Chart]
    anomalies: Sequence[str]
    drift: Sequence[Row]
    samples: Sequence[Samples]


def section(sources: Sources) -> Section:
    statistics = sources.statistics
    error = (sources.run.error or "").splitlines() if sources.run.status == "anomalies" else []
    return Section(
        source=str((sources.run.settings or {}).get("data", {}).get("source", "not recorded")),
        counts={split: found.datasets[0].num_examples for split, found in statistics.items()},
        sha256=sources.data_sha256,
        features=features(statistics),
        charts=charts(statistics, sources.class_names),
        anomalies=[line.strip() for line in error if line.startswith("  ")],
        drift=rows(sources.drift.checks if sources.drift else (), {}, []),
        samples=samples(*_images(sources), sources.class_names),
    )


def features(statistics: Mapping[str, Statistics]) -> list[Feature]:
    """The numeric features of every split."""
    found = []
    for split, name, feature in _features(statistics):
        if feature.HasField("num_stats") and name != contract.LABEL:
            numbers = feature.num_stats
            found.append(
                Feature(
                    name=name,
                    split=split,
                    missing=numbers.common_stats.num_missing,
                    mean=numbers.mean,
                    std_dev=numbers.std_dev,
                    low=numbers.min,
                    median=numbers.median,
                    high=numbers.max,
                )
            )
    return sorted(found, key=lambda one: one.name)


def charts(statistics: Mapping[str, Statistics], class_names: Sequence[str]) -> list[Chart]:
    """The distribution of the label and of each numeric feature, a colour per split."""
    labels: list[tuple[str, list[float]]] = []
    lines: dict[str, list[Series]] = {}
    for split, name, feature in _features(statistics):
        if name == contract.LABEL:
            counts = {b.label: b.sample_count for b in feature.string_stats.rank_histogram.buckets}
            if total := sum(counts.values()):
                shares = [100 * counts.get(str(k), 0.0) / total for k in range(len(class_names))]
                labels.append((split, shares))
        elif points := _density(feature):
            lines.setdefault(name, []).append(Series(split, points, split))
    made = [bar_chart("Classes by split", class_names, labels, "class", "% of split")] if labels else []
    for name, series in sorted(lines.items()):
        if chart := line_chart(f"{name} by split", series, name, "density", y_range=(0, 0)):
            made.append(chart)
    return made


def _density(feature: FeatureNameStatistics) -> list[tuple[float, float]]:
    """TFDV's histogram with equal widths as points (middle of the bucket, density)."""
    for histogram in feature.num_stats.histograms:
        total = sum(bucket.sample_count for bucket in histogram.buckets)
        if histogram.type == Histogram.STANDARD and total:
            return [
                ((b.low_value + b.high_value) / 2, b.sample_count / total / (b.high_value - b.low_value))
                for b in histogram.buckets
                if b.high_value > b.low_value
            ]
    return []


def samples(
    pixels: npt.NDArray[np.uint8] | None, labels: npt.NDArray[np.integer[Any]] | None, class_names: Sequence[str]
) -> list[Samples]:
    """The first test images of each class; of many classes, the first MAX_CLASSES."""
    if pixels is None or labels is None:
        return []
    return [
        Samples(name, tuple(images.data_uri(image) for image in pixels[np.flatnonzero(labels == k)[:SAMPLES]]))
        for k, name in enumerate(class_names[:MAX_CLASSES])
    ]


def _images(sources: Sources) -> tuple[Any, Any]:
    """Test images and labels, from the evaluation, else (nothing was evaluated) from the files of `data.source`."""
    if sources.predictions is not None:
        return sources.predictions.images, sources.predictions.labels
    source = str((sources.run.settings or {}).get("data", {}).get("source", ""))
    try:
        files = idx.locate(sources.home.data(source) if source == REAL_MNIST else Path(source))
        return idx.read_images(files.test_images), idx.read_labels(files.test_labels)
    except UNREADABLE:
        return None, None


def _features(statistics: Mapping[str, Statistics]) -> list[tuple[str, str, FeatureNameStatistics]]:
    """(split, name, statistics) of every feature."""
    return [
        (split, feature.path.step[0], feature)
        for split, found in statistics.items()
        for feature in found.datasets[0].features
    ]
