"""Small grey pictures as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_SIDE_PIXELS: Final = 32  # larger images are reduced
GREY_STEP: Final = 17  # sixteen levels of grey are enough for the eye, and halve the size


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A PNG of one image, uint8 [height, width] with 0 background .. 255 ink, as a data URI: dark ink on white."""
    picture = Image.fromarray(image, "L")
    picture.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    inverted = 255 - np.asarray(picture) // GREY_STEP * GREY_STEP
    file = io.BytesIO()
    Image.fromarray(inverted, "L").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
