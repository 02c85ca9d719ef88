"""The eval split: which images of the training file it has."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from components.common.errors import InputError
from components.common.settings import DataSettings
from components.data.idx import IdxFiles, UInt8Array, read_split

MAX_DEFAULT_EXAMPLES: Final = 5000
SEED: Final = 0  # of the stratified sample

IndexArray = npt.NDArray[np.int64]


def eval_examples(train_count: int, settings: DataSettings) -> int:
    """The size of the eval split of a training file with `train_count` images."""
    return settings.eval_examples or max(1, min(MAX_DEFAULT_EXAMPLES, train_count // 10))


def read_train_file(files: IdxFiles, settings: DataSettings) -> tuple[UInt8Array, UInt8Array]:
    """The training file with the eval split at its end.

    Returns:
        images uint8 [count, height, width] and labels uint8 [count], 0 .. classes-1

    Raises:
        InputError: as `idx.read_split`
    """
    images, labels = read_split(files.train_images, files.train_labels, settings)
    count = eval_examples(len(labels), settings)
    if not classes_left_out(labels, count).size:
        return images, labels
    order = stratified_order(labels, count)
    return images[order], labels[order]


def classes_left_out(labels: UInt8Array, count: int) -> npt.NDArray[np.int64]:
    """Classes that have no example among the last `count`, although the file has enough for train and eval."""
    per_class, in_eval = (np.bincount(part, minlength=256) for part in (labels, labels[len(labels) - count :]))
    return np.flatnonzero((per_class > 1) & (in_eval == 0))


def stratified_order(labels: UInt8Array, count: int) -> IndexArray:
    """Indices of all examples, those of a stratified random sample of `count` at the end; both parts keep their order.

    The sample has the file's class frequencies, and one example of each class that has at least two.
    """
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    used = np.empty(len(labels))  # fraction of its class that is in the sample before this example is
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        used[members] = np.arange(len(members)) / len(members) if len(members) > 1 else 1.0
    sample = shuffled[np.argsort(used[shuffled], kind="stable")[:count]]
    return np.concatenate([np.setdiff1d(np.arange(len(labels)), sample), np.sort(sample)])


def check(files: IdxFiles, settings: DataSettings) -> list[str]:
    """Read all files; returns warnings. Raises InputError on the first problem. MNIST takes about 0.1 s."""
    images, labels = read_split(files.train_images, files.train_labels, settings)
    read_split(files.test_images, files.test_labels, settings)
    count = eval_examples(len(images), settings)
    if count >= len(images):
        raise InputError(
            f"data.eval_examples is {count:,}, but {files.train_images.name} has only "
            f"{len(images):,} images: none would be left for training",
            "Choose a smaller number: --set data.eval_examples=N",
        )
    if not (absent := classes_left_out(labels, count)).size:
        return []
    return [
        f"the last {count:,} images of {files.train_images} have none of class {', '.join(map(str, absent))}: "
        "the eval split is a stratified sample instead"
    ]
