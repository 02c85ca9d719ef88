"""The evaluated model's predictions for the test split, for comparison with a server's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

FILE_NAME = "reference_answers.npz"  # in ModelEvaluation
SAME_PROBABILITY: Final = 1e-5  # largest difference of a served one; the order of summation depends on the batch size


class ReferencePredictions(NamedTuple):
    """A split and the model's predictions for it.

    Attributes:
        images: uint8 [n, height, width], 0..255.
        labels: int64 [n].
        probabilities: float32 [n, classes], in 0..1.
        baseline_classes: int64 [n], what the baseline predicts for the same images; None if there was none.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    baseline_classes: npt.NDArray[np.int64] | None = None

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """The predicted classes, int64 [n]."""
        classes: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly, 0..1."""
        return float(np.mean(self.classes == self.labels))


def read(folder: Path) -> ReferencePredictions:
    """Read from a ModelEvaluation artifact. Raises OSError if it is missing, ValueError if it is damaged."""
    try:
        with open(folder / FILE_NAME, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return ReferencePredictions(
                arrays["images"], arrays["labels"], arrays["probabilities"], arrays.get("baseline_classes")
            )
    except OSError:
        raise
    except Exception as e:  # zipfile, zlib and NumPy raise many kinds
        raise ValueError(str(e) or type(e).__name__) from e


def write(predictions: ReferencePredictions, folder: Path) -> None:
    arrays = {name: array for name, array in predictions._asdict().items() if array is not None}
    np.savez_compressed(folder / FILE_NAME, **arrays)  # a quarter of its size for MNIST


def predict(
    saved_model: Path, files: Sequence[str], image_size: tuple[int, int], batch: int = 1000
) -> ReferencePredictions:
    """Run `serving_default` of a SavedModel on raw tf.Examples.

    Args:
        files: gzip TFRecords of a split.
        image_size: (height, width) in pixels.
        batch: images per call.
    """
    import tensorflow as tf

    from components.common import contract

    spec = {contract.IMAGE: tf.io.FixedLenFeature([], tf.string), contract.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    signature = tf.saved_model.load(str(saved_model)).signatures[contract.SERVING_DEFAULT]
    parts = []
    for records in tf.data.TFRecordDataset(sorted(files), "GZIP").batch(batch):
        parsed = tf.io.parse_example(records, spec)
        raw = tf.io.decode_raw(parsed[contract.IMAGE], tf.uint8)
        images = tf.reshape(raw, [-1, *image_size])
        probabilities = signature(**{contract.IMAGES: images})[contract.PROBABILITIES]
        parts.append((images.numpy(), parsed[contract.LABEL].numpy(), probabilities.numpy()))
    return ReferencePredictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))
