"""IDX files: find, read and check them.

The format: two zero bytes, a type code (0x08 is uint8), the number of dimensions, each dimension as big-endian uint32,
then the values.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from components.common.errors import InputError
from components.common.settings import DataSettings

UInt8Array = npt.NDArray[np.uint8]

IDX_UINT8: Final = 0x08


class IdxFiles(NamedTuple):
    """The four files of a data set, plain or gzip."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file's uncompressed content, by role: "train_images" and so on."""
        found = {}
        for role, path in self._asdict().items():
            with _opened(path) as file:
                found[role] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def locate(folder: Path) -> IdxFiles:
    """Find the four IDX files in `folder`, under any of their usual names.

    Accepts `train-images-idx3-ubyte`, `train-images.idx3-ubyte`, `emnist-digits-test-labels-idx1-ubyte.gz` and so on.

    Raises:
        InputError: there is no such folder, or a role has no file or several.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of IDX files", "Name a folder: --set data.source=DIR")
    names = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]

    def one(role: str, split_words: tuple[str, ...], kind: str) -> Path:
        found = [p for p in names if kind in p.name and any(word in p.name for word in split_words)]
        # A gzip beside its unpacked file is the same data.
        found = [p for p in found if p.suffix != ".gz" or p.with_suffix("") not in found]
        if len(found) != 1:
            what = f"no file of {role}" if not found else f"several files of {role}: {', '.join(p.name for p in found)}"
            expected = f"Expected exactly one whose name contains '{kind}' and '{split_words[0]}'"
            example = f"{split_words[0]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
            raise InputError(f"{folder}: {what}", f"{expected}, such as {example} or {example}.gz")
        return found[0]

    train, test = ("train",), ("t10k", "test")
    return IdxFiles(
        one("training images", train, "images"),
        one("training labels", train, "labels"),
        one("test images", test, "images"),
        one("test labels", test, "labels"),
    )


def read_images(path: Path) -> UInt8Array:
    """Read an IDX file of images.

    Returns:
        uint8 [count, height, width], 0..255

    Raises:
        InputError: the file is unreadable, not IDX of three dimensions, or shorter or longer than its header says.
    """
    return _read_idx(path, dimensions=3)


def read_labels(path: Path) -> UInt8Array:
    """Read an IDX file of labels: uint8 [count]. Raises InputError as `read_images` does."""
    return _read_idx(path, dimensions=1)


def read_split(images: Path, labels: Path, settings: DataSettings) -> tuple[UInt8Array, UInt8Array]:
    """Read images and labels, and check that they match each other and the settings.

    Returns:
        images uint8 [count, height, width] and labels uint8 [count], 0 .. classes-1

    Raises:
        InputError: they do not match; the message has the file, the value found and the value expected.
    """
    x, y = read_images(images), read_labels(labels)
    if len(x) != len(y):
        raise InputError(
            f"{images.name} has {len(x):,} images but {labels.name} has {len(y):,} labels",
            f"The two files in {images.parent} do not match: replace one of them.",
        )
    if x.shape[1:] != (settings.image_height, settings.image_width):
        raise InputError(
            f"{images}: images of {x.shape[1]} x {x.shape[2]} pixels, "
            f"but the settings say {settings.image_height} x {settings.image_width}",
            f"Use --set data.image_height={x.shape[1]} --set data.image_width={x.shape[2]}, or other files.",
        )
    wrong = np.flatnonzero(y >= settings.classes)
    if wrong.size:
        raise InputError(
            f"{labels}: label {y[wrong[0]]} at index {wrong[0]}, but the settings allow 0 to {settings.classes - 1} "
            f"({wrong.size:,} such labels)",
            "Correct the file, or set data.classes to the number of classes it has.",
        )
    return x, y


def batches(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Split range(count) into (start, stop) pairs at most `size` apart."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _opened(path: Path) -> io.BufferedIOBase:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # by content: the name may be wrong
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _read_idx(path: Path, dimensions: int) -> UInt8Array:
    remedy = f"Restore {path} from its source."
    try:
        with _opened(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", "Put it there, or name a folder: --set data.source=DIR") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise InputError(f"{path}: broken gzip ({e})", remedy) from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e})", remedy) from e

    magic = bytes([0, 0, IDX_UINT8, dimensions])
    if content[:4] != magic:
        raise InputError(
            f"{path}: starts with {content[:4].hex() or 'nothing'}, but an IDX file of uint8 with {dimensions} "
            f"dimension{'s' * (dimensions > 1)} starts with {magic.hex()}",
            remedy,
        )
    header_bytes = 4 + 4 * dimensions
    if len(content) < header_bytes:
        raise InputError(f"{path}: truncated inside its {header_bytes}-byte header", remedy)
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected_bytes = header_bytes + int(np.prod(shape, dtype=object))
    if len(content) != expected_bytes:
        what = "truncated" if len(content) < expected_bytes else "too long"
        dims = " x ".join(str(n) for n in shape)
        raise InputError(f"{path}: {what}: {len(content):,} bytes, its header ({dims}) says {expected_bytes:,}", remedy)
    if 0 in shape:
        raise InputError(f"{path}: no values (header: {' x '.join(str(n) for n in shape)})", remedy)
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
