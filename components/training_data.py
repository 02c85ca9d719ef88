"""Transformed examples in memory, always in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from components import contract

READ_BATCH = 5000


class Split(NamedTuple):
    """One split, transformed.

    pixels: float32 [examples, pixels]; labels: int64 [examples]
    """

    pixels: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def load_split(files: Sequence[str], transform_output: tft.TFTransformOutput) -> Split:
    """Read raw tf.Examples (gzip TFRecords) and apply the Transform graph, once.

    Beam writes examples in no particular order and may cut them into any number of files; sorting by content
    makes a training run repeatable whatever wrote its data.
    """
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(list(files)), "GZIP").batch(READ_BATCH)
    serialized: list[bytes] = [record for batch in records for record in batch.numpy()]  # ten times one by one
    serialized.sort(key=lambda record: hashlib.blake2b(record, digest_size=8).digest())
    raw_feature_spec = transform_output.raw_feature_spec()
    layer = transform_output.transform_features_layer()

    @tf.function(reduce_retracing=True)
    def transform(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        features = layer(tf.io.parse_example(batch, raw_feature_spec))
        return {name: features[name] for name in (contract.PIXELS, contract.LABEL)}

    parts = [transform(tf.constant(serialized[i : i + READ_BATCH])) for i in range(0, len(serialized), READ_BATCH)]
    return Split(
        np.concatenate([part[contract.PIXELS].numpy() for part in parts]),
        np.concatenate([part[contract.LABEL].numpy() for part in parts]),
    )
