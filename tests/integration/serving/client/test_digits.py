from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from serving.client import digits


def test_a_file_is_decoded_as_by_the_model(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:90, 0:70]
    pixels = (127 + 120 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    decoded = tf.io.decode_image(path.read_bytes(), channels=1, expand_animations=False)
    theirs = tf.round(tf.image.resize(decoded, (28, 28), antialias=True)).numpy()[..., 0]
    assert np.abs(digits.from_file(path, (28, 28)).image - theirs).max() <= 1  # Pillow calculates in integers
