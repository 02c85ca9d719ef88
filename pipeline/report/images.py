"""Small grey pictures as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_SIDE_PIXELS = 32  # larger images are reduced
LEVELS = 16  # of grey: a PNG of 4 bits per pixel has half the size


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A PNG of one image, uint8 [height, width] with 0 background .. 255 ink, as a data URI: dark ink on white."""
    picture = Image.fromarray(255 - image, "L")
    picture.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    grey = picture.point([level * LEVELS // 256 for level in range(256)])
    few = Image.frombytes("P", grey.size, grey.tobytes())
    few.putpalette([value for level in range(LEVELS) for value in [level * 255 // (LEVELS - 1)] * 3])
    file = io.BytesIO()
    few.save(file, "PNG", bits=4, optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
