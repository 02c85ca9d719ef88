"""Digits and probabilities as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from components.data.idx import UInt8Array
from serving.client import digits

BAR_CHARACTERS: Final = 20
# Two pixels per character: (upper, lower) as index upper * 2 + lower.
HALF_BLOCKS: Final = " ▄▀█"
ASCII_HALF_BLOCKS: Final = " .':"


def draw(image: UInt8Array, *, characters: str = HALF_BLOCKS) -> list[str]:
    """Return the image as lines of text, two rows of pixels per line.

    Args:
        image: uint8 [height, width]
        characters: HALF_BLOCKS, or ASCII_HALF_BLOCKS for a terminal without Unicode.
    """
    ink = image >= digits.BRIGHT
    if len(ink) % 2:
        ink = np.vstack([ink, np.zeros_like(ink[:1])])
    pairs = ink[0::2].astype(int) * 2 + ink[1::2]
    return ["".join(characters[pair] for pair in row) for row in pairs]


def beside(drawing: list[str], texts: list[str]) -> list[str]:
    """Return the drawing without empty lines above and below, with the texts to its right."""
    inked = [row for row, line in enumerate(drawing) if line.strip()] or [0]
    height = max(inked[-1] + 1 - inked[0], len(texts))
    top = max(0, min(inked[0], len(drawing) - height))
    rows = drawing[top : top + height]
    rows += [" " * len(drawing[0])] * (height - len(rows))
    first = (height - len(texts)) // 2
    texts = [""] * first + texts + [""] * (height - first - len(texts))
    return [f"{row}  {text}".rstrip() for row, text in zip(rows, texts, strict=True)]


def bars(probabilities: Sequence[float], lines: int, block: str, names: Sequence[str]) -> list[str]:
    """Return one bar per class; if there are more than `lines` classes, only the most likely ones.

    Args:
        names: of the classes.
    """
    shown = sorted(sorted(range(len(probabilities)), key=lambda c: -probabilities[c])[:lines])
    width = max(len(names[c]) for c in shown)
    return [
        f"{names[c]:>{width}} {probabilities[c]:6.1%} {block * round(probabilities[c] * BAR_CHARACTERS)}" for c in shown
    ]
