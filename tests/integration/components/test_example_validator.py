"""The curated schema, with TFDV."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl

from components.common.settings import DataSettings
from components.example_gen import to_examples
from components.example_validator import describe
from components.schema import curated_schema
from tests.support.synthetic import UInt8Array, digits


def anomalies(images: UInt8Array, labels: UInt8Array, settings: DataSettings | None = None) -> list[str]:
    columns: dict[str, list[list[object]]] = {}
    for record in to_examples(images, labels):
        for name, feature in tf.train.Example.FromString(record).features.feature.items():
            columns.setdefault(name, []).append(list(getattr(feature, feature.WhichOneof("kind")).value))
    types = {"image": pa.binary(), "label": pa.int64(), "mean_intensity": pa.float32(), "ink_fraction": pa.float32()}
    batch = pa.RecordBatch.from_arrays(
        [pa.array(values, pa.large_list(types[name])) for name, values in columns.items()], list(columns)
    )
    statistics = stats_impl.generate_statistics_in_memory(batch)
    return describe("train", tfdv.validate_statistics(statistics, curated_schema(settings or DataSettings())))


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
