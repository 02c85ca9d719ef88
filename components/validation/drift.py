"""How much two sets of examples differ, by TFDV's comparators, and whether that is within the schema's bounds."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics

from components.common import contract
from components.validation.verdict import Check

# The schema's bounds are for samples of at least this size (of two: half the harmonic mean of their sizes). The noise
# of smaller samples grows as 1 / sqrt(size), and so do the bounds.
FULL_SIZE: Final = 500


def skew(train: Statistics, other: Statistics, schema: schema_pb2.Schema, name: str) -> list[Check]:
    """Compare a split with the train split: one check for each feature with a skew comparator."""
    return _checks(tfdv.validate_statistics(train, _widened(schema, train, other), serving_statistics=other), name)


def drift(train: Statistics, before: Statistics, schema: schema_pb2.Schema, name: str) -> list[Check]:
    """Compare the train split with the one of earlier data: one check for each feature with a drift comparator."""
    return _checks(tfdv.validate_statistics(train, _widened(schema, train, before), previous_statistics=before), name)


def absent_classes(train: Statistics, test: Statistics) -> list[str]:
    """Classes that the train split has and the test split has not."""
    return sorted(_classes(train) - _classes(test), key=int)


def identity(statistics: Statistics) -> str:
    """A hash of the data that statistics are of; 64 hexadecimal digits.

    Not of the statistics' bytes: TFDV adds up its parts in any order, so the last digits of means differ from one
    computation to the next, and quantiles are approximate.
    """
    (dataset,) = statistics.datasets
    lines = [str(dataset.num_examples)]
    for feature in sorted(dataset.features, key=lambda feature: feature.path.step[0]):
        counts = sorted((bucket.label, bucket.sample_count) for bucket in feature.string_stats.rank_histogram.buckets)
        numbers = feature.num_stats
        rounded = [f"{value:.6g}" for value in (numbers.min, numbers.max, numbers.mean, numbers.std_dev)]
        lines.append(f"{feature.path.step[0]} {counts} {rounded}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checks(anomalies: anomalies_pb2.Anomalies, name: str) -> list[Check]:
    return [
        Check(info.path.step[0], name, found.value, found.threshold, found.value <= found.threshold, at_most=True)
        for info in anomalies.drift_skew_info
        for found in (*info.skew_measurements, *info.drift_measurements)
    ]


def _widened(schema: schema_pb2.Schema, one: Statistics, other: Statistics) -> schema_pb2.Schema:
    """The schema with wider bounds if the samples are small."""
    size = 1 / sum(1 / max(1, statistics.datasets[0].num_examples) for statistics in (one, other))
    factor = max(1.0, math.sqrt(FULL_SIZE / size))
    widened = schema_pb2.Schema()
    widened.CopyFrom(schema)
    for feature in widened.feature:
        for comparator in (feature.skew_comparator, feature.drift_comparator):
            for _, measure in comparator.ListFields():
                measure.threshold *= factor
    return widened


def _classes(statistics: Statistics) -> set[str]:
    """The labels that occur. The schema makes the label categorical, so TFDV counts each value."""
    (label,) = (f for f in statistics.datasets[0].features if list(f.path.step) == [contract.LABEL])
    return {bucket.label for bucket in label.string_stats.rank_histogram.buckets if bucket.sample_count > 0}
