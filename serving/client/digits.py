"""Reads digits to predict, from image files or the test set."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from components.common import contract
from components.common.errors import InputError, UsageError
from components.common.settings import REAL_MNIST
from components.data import idx
from components.data.idx import UInt8Array
from components.versions import manifest
from components.versions.release import version_folder

BRIGHT: Final = 128  # pixels from this value, out of 0..255, are bright


@dataclass(frozen=True)
class Digit:
    """An image of a digit.

    Attributes:
        image: uint8 [height, width], 0 background .. 255 ink.
        name: name shown to the user: a path, or "test image 12".
        index: index in the test set; None for a file.
        label: true class, if known.
    """

    image: UInt8Array
    name: str
    index: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class Selection:
    """Which digits to read.

    Attributes:
        folder: folder of the test set's IDX files.
        files: PNG or JPEG files.
        indices: indices of digits in the test set. Without files and indices, `count` random digits are read.
        seed: makes the random choice reproducible.
        invert: the files show dark ink on a bright background.
    """

    folder: Path
    files: Sequence[Path] = ()
    indices: Sequence[int] = ()
    count: int = 5
    seed: int | None = None
    invert: bool = False

    def read(self, size: tuple[int, int] | None) -> list[Digit]:
        """Read the digits, files first; `size` as in `from_file`. Raises InputError, UsageError."""
        found = [from_file(path, size, invert=self.invert) for path in self.files]
        if self.indices or not self.files:
            found += from_test_set(self.folder, self.indices, count=self.count, seed=self.seed)
        return found


def from_file(path: Path, size: tuple[int, int] | None, *, invert: bool = False) -> Digit:
    """Read a PNG or JPEG as the model's input: grayscale, resized to `size`.

    The result equals that of the model's signature for encoded images. Also supports transparency, 16-bit grayscale
    and EXIF orientation.

    Args:
        size: (height, width) in pixels; None keeps the file's size.
        invert: whether the file shows dark ink on a bright background; the training images are bright on dark.

    Raises:
        InputError: no such file, or not a readable PNG or JPEG.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits; convert("L") would clip them
                picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
            if picture.has_transparency_data:
                background = Image.new("RGBA", picture.size, "white" if invert else "black")
                picture = Image.alpha_composite(background, picture.convert("RGBA"))
            picture = picture.convert("L")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or neither PNG nor JPEG") from None
    except Image.DecompressionBombError as e:
        raise InputError(f"{path}: too large for an image of a digit ({e})") from None
    except (OSError, SyntaxError, ValueError) as e:  # Pillow raises these for broken content
        raise InputError(f"{path}: cannot be read as an image ({getattr(e, 'strerror', None) or e})") from e
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # antialiased, as in the signature
    image = np.array(picture, np.uint8)
    return Digit(255 - image if invert else image, str(path))


def looks_inverted(image: UInt8Array) -> bool:
    """Return whether the border is mostly bright, as in a scan of ink on paper."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(np.median(border) >= BRIGHT)


def from_test_set(folder: Path, indices: Sequence[int], *, count: int = 0, seed: int | None = None) -> list[Digit]:
    """Read the digits of the test set at `indices`; without indices, `count` different random ones.

    Args:
        folder: folder of the IDX files.
        seed: makes the random choice reproducible.

    Raises:
        InputError: the files are missing or broken.
        UsageError: an index or count exceeds the test set.
    """
    files = idx.locate(folder)
    images, labels = idx.read_images(files.test_images), idx.read_labels(files.test_labels)
    if len(images) != len(labels):
        raise InputError(f"{folder}: {len(images):,} test images but {len(labels):,} test labels")
    if not indices:
        if not 0 < count <= len(images):
            raise UsageError(f"cannot choose {count:,} test digits: the test set has {len(images):,}")
        indices = np.random.default_rng(seed).choice(len(images), count, replace=False).tolist()
    for index in indices:
        if not 0 <= index < len(images):
            raise UsageError(f"no test image {index}", f"The test set of {folder} has 0 to {len(images) - 1}.")
    return [Digit(images[i], f"test image {i}", i, int(labels[i])) for i in indices]


def test_data(home: Path, version: int) -> Path:
    """Return the folder of the data set that a version of the home was trained and evaluated on, from its manifest.

    Without a manifest, as for a version of another home, the home's MNIST.

    Raises:
        InputError: the data set is missing, or its test set has changed since.
    """
    mnist = home / "data" / contract.MODEL_NAME
    try:
        known = manifest.read(version_folder(home, version))
    except InputError:
        return mnist
    source = known.settings.get("data", {}).get("source", REAL_MNIST)
    folder = mnist if source == REAL_MNIST else Path(source).expanduser().resolve()
    remedy = "Restore it, or send other images: --data DIR, or the names of PNG or JPEG files"
    try:
        found = idx.locate(folder).hashes()
    except (InputError, OSError, EOFError, zlib.error) as e:
        problem = e.problem if isinstance(e, InputError) else f"{folder}: {e}"
        raise InputError(f"the test data of version {version} cannot be read: {problem}", remedy) from e
    changed = [role for role in found if found[role] != known.data_sha256.get(role, found[role])]
    if changed := [role for role in changed if role.startswith("test")]:
        raise InputError(
            f"{folder}: the {changed[0].replace('_', ' ')} are not those that version {version} was evaluated on",
            remedy,
        )
    return folder


def class_names(home: Path, version: int) -> Sequence[str]:
    """Return the names of a version's classes from its manifest; the numbers have none by default."""
    try:
        return manifest.read(version_folder(home, version)).class_names()
    except InputError:
        return ()
