"""Digits to ask about, from image files or the test set, and how they look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from components.common.errors import InputError, UsageError
from components.data import idx
from components.data.idx import UInt8Array

BRIGHT: Final = 128
BAR_CHARACTERS: Final = 20
# Two pixels per character: (upper, lower) as index upper * 2 + lower.
HALF_BLOCKS: Final = " ▄▀█"
ASCII_HALF_BLOCKS: Final = " .':"


@dataclass(frozen=True)
class Digit:
    """An image to ask about.

    Attributes:
        image: uint8 [height, width], 0 background .. 255 ink.
        name: for people: a path, or "test image 12".
        index: in the test set; None for a file.
        label: its true class, if known.
    """

    image: UInt8Array
    name: str
    index: int | None = None
    label: int | None = None


def from_file(path: Path, size: tuple[int, int] | None, *, invert: bool = False) -> Digit:
    """Read a PNG or JPEG as the model takes it: grayscale, stretched to `size`.

    Does what the model's own signature for encoded images does, and beyond that honours transparency, 16-bit
    grayscale and a camera's orientation.

    Args:
        size: (height, width) in pixels; None keeps the file's own.
        invert: the file shows dark ink on bright ground; the data that the model knows are bright on dark.

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
                ground = Image.new("RGBA", picture.size, "white" if invert else "black")
                picture = Image.alpha_composite(ground, picture.convert("RGBA"))
            picture = picture.convert("L")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or of another kind than PNG and JPEG") from None
    except Image.DecompressionBombError as e:
        raise InputError(f"{path}: too large for a picture of a digit ({e})") from None
    except (OSError, SyntaxError, ValueError) as e:  # what Pillow raises for broken content
        raise InputError(f"{path}: cannot be read as an image ({getattr(e, 'strerror', None) or e})") from e
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # with antialiasing, as the signature
    image = np.array(picture, np.uint8)
    return Digit(255 - image if invert else image, str(path))


def looks_inverted(image: UInt8Array) -> bool:
    """Whether the border is mostly bright, as in a scan of ink on paper."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(np.median(border) >= BRIGHT)


def from_test_set(folder: Path, indices: Sequence[int], *, count: int = 0, seed: int | None = None) -> list[Digit]:
    """Digits of the test set: those at `indices`, or, if there are none, `count` random different ones.

    Args:
        folder: of the IDX files.
        seed: makes the random choice repeatable.

    Raises:
        InputError: the files are missing or broken.
        UsageError: an index or count beyond the test set.
    """
    files = idx.locate(folder)
    images, labels = idx.read_images(files.test_images), idx.read_labels(files.test_labels)
    if len(images) != len(labels):
        raise InputError(f"{folder}: {len(images):,} test images but {len(labels):,} test labels")
    if not indices:
        if not 0 < count <= len(images):
            raise UsageError(f"{count:,} test digits asked for; the test set holds {len(images):,}")
        indices = np.random.default_rng(seed).choice(len(images), count, replace=False).tolist()
    for index in indices:
        if not 0 <= index < len(images):
            raise UsageError(f"no test image {index}", f"The test set of {folder} has 0 to {len(images) - 1}.")
    return [Digit(images[i], f"test image {i}", i, int(labels[i])) for i in indices]


def draw(image: UInt8Array, *, characters: str = HALF_BLOCKS) -> list[str]:
    """The image as lines of text, two rows of pixels to a line, ink as full characters.

    Args:
        image: uint8 [height, width]
        characters: HALF_BLOCKS, or ASCII_HALF_BLOCKS for a terminal without Unicode.
    """
    ink = image >= BRIGHT
    if len(ink) % 2:
        ink = np.vstack([ink, np.zeros_like(ink[:1])])
    pairs = ink[0::2].astype(int) * 2 + ink[1::2]
    return ["".join(characters[pair] for pair in row) for row in pairs]


def beside(drawing: list[str], texts: list[str]) -> list[str]:
    """A drawing without its empty upper and lower lines, and texts to the right of it."""
    inked = [row for row, line in enumerate(drawing) if line.strip()] or [0]
    height = max(inked[-1] + 1 - inked[0], len(texts))
    top = max(0, min(inked[0], len(drawing) - height))
    rows = drawing[top : top + height]
    rows += [" " * len(drawing[0])] * (height - len(rows))
    first = (height - len(texts)) // 2
    texts = [""] * first + texts + [""] * (height - first - len(texts))
    return [f"{row}  {text}".rstrip() for row, text in zip(rows, texts, strict=True)]


def bars(probabilities: Sequence[float], lines: int, block: str) -> list[str]:
    """One bar per class in at most `lines` lines: the likeliest classes if there is no room for all."""
    shown = sorted(sorted(range(len(probabilities)), key=lambda c: -probabilities[c])[:lines])
    width = len(str(shown[-1]))
    return [f"{c:>{width}} {probabilities[c]:6.1%} {block * round(probabilities[c] * BAR_CHARACTERS)}" for c in shown]
