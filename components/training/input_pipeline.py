"""Examples for the training loop: raw uint8 pixels, in memory or streamed, in an order that depends on the seed.

A source's `take(start, stop)` returns the data of the steps start .. stop-1, from which `pick` gets images and labels
inside the training graph. Neither depends on where a run was interrupted.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from components.common import contract, resources
from components.common.errors import InputError, UsageError, UserError
from components.common.settings import TrainSettings

READ_BATCH: Final = 5000
SHUFFLE_WINDOW: Final = 20_000  # records in memory while streaming: 16 MB of MNIST
PROBES: Final = 64
MAX_MEMORY_SHARE: Final = 1 / 8  # of the memory, for one copy of the split: sorting takes three for a moment
SCALE_TOLERANCE: Final = 1e-4  # float32 rounding of scaled pixels up to a few units

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


class Split(NamedTuple):
    """images: uint8 [examples, pixels], raw 0..255; labels: int64 [examples], 0 .. classes-1"""

    images: UInt8Array
    labels: Int64Array

    def batches(self) -> Iterator[Split]:
        for start in range(0, len(self.labels), READ_BATCH):
            yield Split(self.images[start : start + READ_BATCH], self.labels[start : start + READ_BATCH])


class PixelScale(NamedTuple):
    """The Transform graph as a formula: raw * scale + offset; both float32 [pixels]."""

    scale: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]


class Source(Protocol):
    """The train split.

    Attributes:
        examples: number of examples.
        digest: SHA-256 of their content, in the order in which the source stores them.
        spec: tf.TensorSpecs of what `take` returns.
    """

    examples: int
    digest: str
    spec: Any

    def take(self, start: int, stop: int) -> Any:
        """The data of the steps start .. stop-1: tensors whose first dimension is the step."""

    def pick(self, part: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """One step's data, or a slice of it -> uint8 [batch, pixels], int64 [batch]. Runs inside the graph."""

    def batches(self) -> Iterator[Split]:
        """All examples once, in no particular order."""


class Resident:
    """A split in memory as uint8. The data of a step are indices; the graph gathers the examples."""

    def __init__(self, split: Split, settings: TrainSettings) -> None:
        # Beam writes examples in no particular order, into any number of files. Sorting by content makes the order
        # independent of that.
        pairs = zip(split.images, split.labels, strict=True)
        content = [hashlib.blake2b(row.tobytes() + bytes([y]), digest_size=8).digest() for row, y in pairs]
        order = np.argsort(np.array(content, "S8"), kind="stable")
        images, labels = split.images[order], split.labels[order]
        self.digest = _sha256(labels, images)
        self.examples = len(order)
        self._settings = settings
        self._images, self._labels = tf.constant(images), tf.constant(labels)
        self.spec = tf.TensorSpec([None, settings.batch_size], tf.int32)

    def take(self, start: int, stop: int) -> tf.Tensor:
        return tf.constant(batch_order(self.examples, self._settings, start, stop))  # [steps, batch]

    def pick(self, part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(self._images, part), tf.gather(self._labels, part)

    def batches(self) -> Iterator[Split]:
        for start in range(0, self.examples, READ_BATCH):
            part = slice(start, start + READ_BATCH)
            yield Split(self._images[part].numpy(), self._labels[part].numpy())


class Streamed:
    """A split on disk, read by tf.data and shuffled within a window of SHUFFLE_WINDOW records.

    The order depends on the order in the files: it is the same for the same artifact, but not for another artifact
    with the same examples.
    """

    def __init__(self, files: Sequence[str], pixels: int, examples: int, digest: str, settings: TrainSettings) -> None:
        self._files, self._pixels, self._settings = files, pixels, settings
        self.examples, self.digest = examples, digest
        size = settings.batch_size
        self.spec = (tf.TensorSpec([None, size, pixels], tf.uint8), tf.TensorSpec([None, size], tf.int64))
        self._steps: Iterator[Any] = iter(())
        self._next = -1

    def take(self, start: int, stop: int) -> tuple[tf.Tensor, tf.Tensor]:
        if start != self._next:
            self._steps = iter(self._from(start))
        self._next = stop
        images, labels = zip(*(next(self._steps) for _ in range(start, stop)), strict=True)
        return tf.stack(images), tf.stack(labels)  # [steps, batch, pixels], [steps, batch]

    def pick(self, part: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return part

    def batches(self) -> Iterator[Split]:
        return read_examples(self._files, self._pixels)

    def _from(self, step: int) -> tf.data.Dataset:
        """Batches from this step on; an epoch's order depends only on the seed and the epoch's number."""
        size, seed = self._settings.batch_size, self._settings.seed

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            shuffled = _records(self._files).shuffle(
                SHUFFLE_WINDOW, seed=number * 1_000_003 + seed, reshuffle_each_iteration=False
            )
            return shuffled.batch(size, drop_remainder=True)

        number, skipped = divmod(step, self.examples // size)
        batches = tf.data.Dataset.range(number, np.iinfo(np.int64).max).flat_map(epoch).skip(skipped)
        return batches.map(lambda records: _parse(records, self._pixels)).prefetch(tf.data.AUTOTUNE)


def load_train_split(files: Sequence[str], pixels: int, classes: int, settings: TrainSettings) -> Source:
    """Read the train split once and check it; keep it in memory if it has at most `resident_max_mb`, else stream it.

    A split of more than MAX_MEMORY_SHARE of the memory is streamed as well.

    Raises:
        InputError: a label outside 0 .. classes-1; a class without examples.
        UsageError: fewer examples than one batch.
    """
    kept: list[Split] | None = []
    max_bytes = min(settings.resident_max_mb * 1e6, resources.memory_bytes() * MAX_MEMORY_SHARE)
    examples, found, digest = 0, np.zeros(classes, np.int64), hashlib.sha256()
    for batch in read_examples(files, pixels):
        found += count_labels(batch.labels, classes, contract.TRAIN_SPLIT)
        examples += len(batch.labels)
        if kept is not None and examples * pixels <= max_bytes:
            kept.append(batch)
        else:
            kept = None
        digest.update(batch.labels.tobytes() + batch.images.tobytes())
    if settings.batch_size > examples:
        raise UsageError(f"train.batch_size is {settings.batch_size}, but the train split has only {examples} examples")
    if not found.all() and not settings.allow_missing_classes:
        raise InputError(
            f"class {', '.join(map(str, np.flatnonzero(found == 0)))} has no example in the train split",
            "Add some, correct data.classes, or leave it untrained: --set train.allow_missing_classes=true",
        )
    if kept is None:
        return Streamed(files, pixels, examples, digest.hexdigest(), settings)
    images, labels = (np.concatenate(column) for column in zip(*kept, strict=True))
    kept.clear()  # frees one of two copies
    return Resident(Split(images, labels), settings)


def load_eval_split(files: Sequence[str], pixels: int, classes: int) -> Split:
    """The eval split, in memory. Raises InputError if it is empty or has a label outside 0 .. classes-1."""
    parts = list(read_examples(files, pixels))
    if not parts:
        raise InputError(
            "the eval split is empty", "Set data.eval_examples to the number of training images to hold out for it."
        )
    split = Split(*map(np.concatenate, zip(*parts, strict=True)))
    count_labels(split.labels, classes, contract.EVAL_SPLIT)
    return split


def batch_order(examples: int, settings: TrainSettings, start: int, stop: int) -> npt.NDArray[np.int32]:
    """Indices of the steps start .. stop-1, int32 [stop - start, batch_size].

    Each epoch is a permutation that depends on the seed and the epoch's number, without its incomplete last batch.
    """
    size = settings.batch_size
    per_epoch = examples // size
    epochs = range(start // per_epoch, -(-stop // per_epoch))
    orders = [_epoch_order(examples, settings.seed, epoch)[: per_epoch * size] for epoch in epochs]
    first = start - epochs[0] * per_epoch
    return np.concatenate(orders).reshape(-1, size)[first : first + stop - start]


@functools.lru_cache(maxsize=2)
def _epoch_order(examples: int, seed: int, epoch: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng([seed, epoch]).permutation(examples).astype(np.int32)


def count_labels(labels: Int64Array, classes: int, split: str) -> Int64Array:
    """Examples per class, int64 [classes]. Raises InputError for a label outside 0 .. classes-1."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise InputError(
            f"label {wrong[0]} in the {split} split ({wrong.size:,} such), but data.classes allows 0 to {classes - 1}",
            "Correct the data, or set data.classes to the number of classes it has.",
        )
    return np.bincount(labels, minlength=classes)


def read_examples(files: Sequence[str], pixels: int) -> Iterator[Split]:
    """Raw tf.Examples from gzip TFRecords, READ_BATCH at a time, in the order of the files."""
    batches = _records(files).batch(READ_BATCH).map(lambda records: _parse(records, pixels)).prefetch(2)
    for images, labels in batches.as_numpy_iterator():
        yield Split(images, labels)


def pixel_scale(transform_output: tft.TFTransformOutput, pixels: int) -> PixelScale:
    """Derive scale and offset of each pixel from the Transform graph's output for black, white and random images.

    The loop augments raw pixels before it scales them, so it cannot apply the graph, which reads bytes.

    Raises:
        UserError: the graph outputs NaN or infinity, or is not one scale and one offset per pixel.
    """
    probes = np.random.default_rng(0).integers(0, 256, (PROBES, pixels)).astype(np.uint8)
    probes[0], probes[1] = 0, contract.MAX_PIXEL
    spec = transform_output.raw_feature_spec()
    features = {name: tf.zeros([PROBES, 1], feature.dtype) for name, feature in spec.items()}
    features[contract.IMAGE] = tf.constant([[row.tobytes()] for row in probes])
    outputs = transform_output.transform_features_layer()(features)[contract.PIXELS].numpy()  # [PROBES, pixels]
    if not np.isfinite(outputs).all():
        raise UserError("the Transform graph outputs NaN or infinite pixels", "See components/transform.py.")
    found = PixelScale((outputs[1] - outputs[0]) / contract.MAX_PIXEL, outputs[0])
    if np.abs(probes * found.scale + found.offset - outputs).max() > SCALE_TOLERANCE * max(1, np.abs(outputs).max()):
        raise UserError(
            "the Transform graph is not one scale and one offset per pixel",
            "The training loop augments raw pixels and scales them afterwards; see components/transform.py.",
        )
    return found


def _sha256(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()


def _records(files: Sequence[str]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(list(files))), "GZIP", buffer_size=1 << 20)


def _parse(records: tf.Tensor, pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """string [batch] -> uint8 [batch, pixels], int64 [batch]"""
    spec = {
        contract.IMAGE: tf.io.FixedLenFeature([], tf.string),
        contract.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    features = tf.io.parse_example(records, spec)
    return tf.reshape(tf.io.decode_raw(features[contract.IMAGE], tf.uint8), [-1, pixels]), features[contract.LABEL]
