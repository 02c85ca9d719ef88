"""The curated schema with TFDV, and the nodes of the DAG up to ExampleValidator."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics

from components.common.errors import DataAnomaliesError
from components.common.settings import DataSettings
from components.example_gen import to_examples
from components.example_validator import describe
from components.schema import curated_schema
from components.validation import drift
from tests.support.data_nodes import DATA_NODES, run_data_nodes
from tests.support.synthetic import NAMES, UInt8Array, digits, write_data_set, write_idx

BEFORE = "train against the data before"


def statistics(images: UInt8Array, labels: UInt8Array) -> Statistics:
    columns: dict[str, list[list[object]]] = {}
    for record in to_examples(images, labels):
        for name, feature in tf.train.Example.FromString(record).features.feature.items():
            columns.setdefault(name, []).append(list(getattr(feature, feature.WhichOneof("kind")).value))
    types = {"image": pa.binary(), "label": pa.int64(), "mean_intensity": pa.float32(), "ink_fraction": pa.float32()}
    batch = pa.RecordBatch.from_arrays(
        [pa.array(values, pa.large_list(types[name])) for name, values in columns.items()], list(columns)
    )
    label = schema_pb2.Schema(feature=[f for f in curated_schema(DataSettings()).feature if f.name == "label"])
    return stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions(schema=label))


def anomalies(images: UInt8Array, labels: UInt8Array, settings: DataSettings | None = None) -> list[str]:
    found = statistics(images, labels)
    return describe("train", tfdv.validate_statistics(found, curated_schema(settings or DataSettings())))


def invert(images: UInt8Array) -> UInt8Array:
    return (255 - images).astype(np.uint8)


def blank(images: UInt8Array) -> UInt8Array:
    return np.zeros_like(images)


def rescale(images: UInt8Array) -> UInt8Array:
    return (images / 255).astype(np.uint8)


def test_good_digits_pass() -> None:
    assert anomalies(*digits(200, seed=0)) == []


@pytest.mark.parametrize("spoil", [invert, blank, rescale])
def test_inverted_blank_and_rescaled_images_are_anomalies(spoil: Callable[[UInt8Array], UInt8Array]) -> None:
    images, labels = digits(200, seed=0)
    (line,) = anomalies(spoil(images), labels)
    assert line.startswith("train: mean_intensity:")


def test_a_single_inverted_image_is_enough() -> None:
    images, labels = digits(200, seed=0)
    images[17] = 255 - images[17]
    assert len(anomalies(images, labels)) == 1


def test_a_label_outside_the_classes_is_an_anomaly() -> None:
    images, labels = digits(200, seed=0)
    (line,) = anomalies(images, labels, DataSettings(classes=9))
    assert line.startswith("train: label:")


def test_the_same_data_is_recognised_although_means_and_quantiles_differ_a_little() -> None:
    images, labels = digits(200, seed=0)
    first, again = statistics(images, labels), statistics(images, labels)
    for feature in again.datasets[0].features:
        if feature.HasField("num_stats"):
            feature.num_stats.mean *= 1 + 1e-12
            feature.num_stats.histograms[-1].buckets[0].high_value += 1e-6
    assert first != again
    assert drift.identity(first) == drift.identity(again)
    labels[0] = (labels[0] + 1) % 10
    assert drift.identity(statistics(images, labels)) != drift.identity(first)


def test_drift_is_measured_between_splits_and_from_run_to_run(data: Path, tmp_path: Path) -> None:
    """Runs in one home: the same data twice, other data with warnings, the same refused, and the first data again."""
    home, other = tmp_path / "home", write_data_set(tmp_path / "other")
    images, labels = (np.concatenate(parts) for parts in zip(digits(900, seed=2), digits(300, seed=3), strict=True))
    write_idx(other / NAMES[0], np.minimum(images, 160))
    write_idx(other / NAMES[1], np.where(labels < 4, 1, labels).astype(np.uint8))

    first = run_data_nodes(home, data)
    assert first.drift is not None
    assert first.drift.failures == []
    assert {(check.metric, check.slice) for check in first.drift.checks} == {
        (metric, f"{split} against train")
        for metric in ("label", "mean_intensity", "ink_fraction")
        for split in ("eval", "test")
    }

    for path in data.iterdir():
        os.utime(path, (1, 1))
    assert run_data_nodes(home, data).states == dict.fromkeys(DATA_NODES, "cached")

    def refused() -> str:
        stopped = run_data_nodes(home, other, on_drift="stop")
        assert stopped.states["ExampleValidator"] == "failed"
        assert isinstance(stopped.error, DataAnomaliesError)
        return str(stopped.error)

    message = refused()
    assert f"label[{BEFORE}]" in message
    assert "mean_intensity[test against train] 1.0000 >" in message
    assert run_data_nodes(home, data).states == dict.fromkeys(DATA_NODES, "cached")  # refused data is never "before"

    warned = run_data_nodes(home, other)
    assert warned.error is None
    assert warned.drift is not None
    assert all(line in message for line in warned.drift.failures)
    assert run_data_nodes(home, other).states == dict.fromkeys(DATA_NODES, "cached")
    assert refused() == message  # another setting is no reason to accept it

    back = run_data_nodes(home, data)
    assert back.states == dict.fromkeys(DATA_NODES[:3], "cached") | {"ExampleValidator": "ran"}
    assert back.drift is not None
    assert {check.slice for check in back.drift.checks if not check.passed} == {BEFORE}
