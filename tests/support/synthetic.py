"""Tiny data sets that a model can learn in a few steps, as real IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(values: UInt8Array) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.tobytes()


def write_idx(path: Path, values: UInt8Array) -> Path:
    """Write `values` as IDX, as gzip if the name ends in .gz."""
    content = idx_bytes(values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def digits(count: int, seed: int, size: int = 28, classes: int = 10) -> tuple[UInt8Array, UInt8Array]:
    """One bright bar per class at its own height, with noise.

    Returns:
        images uint8 [count, size, size] with a mean of 5 to 25 % of white; labels uint8 [count]
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count).astype(np.uint8)
    images = generator.integers(0, 40, (count, size, size)).astype(np.uint8)
    rows = labels.astype(int) * size // classes
    for image, row in zip(images, rows, strict=True):
        image[row : row + 2, :] = 250
    return images, labels


def write_data_set(folder: Path, train: int = 1200, test: int = 300, size: int = 28, suffix: str = "") -> Path:
    """Four IDX files of synthetic digits in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for names, count, seed in ((NAMES[:2], train, 0), (NAMES[2:], test, 1)):
        for name, values in zip(names, digits(count, seed, size), strict=True):
            write_idx(folder / f"{name}{suffix}", values)
    return folder
