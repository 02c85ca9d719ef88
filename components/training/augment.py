"""Augmentation: each step shifts, rotates, scales, shears and bends every training image by a small random amount.

Stateless: the amounts depend on the seed, the step and the image's position in the batch. So a resumed run continues
exactly as an uninterrupted one, and workers that share a batch draw the same amounts as a single worker.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.common.settings import TrainSettings

GRID: Final = 7  # control points of the elastic displacement along each side
SMOOTHNESS: Final = 1.125  # width of a control point's Gaussian, in distances between control points


def is_wanted(settings: TrainSettings) -> bool:
    return any(getattr(settings, name) > 0 for name in vars(settings) if name.startswith("augment_"))


class Draws(NamedTuple):
    """The random numbers of a batch: uniform in -1..1, float32 [6, batch]; standard normal, float32 [batch, 2, 49]."""

    affine: tf.Tensor
    elastic: tf.Tensor


def draw(batch: int, seed: tf.Tensor) -> Draws:
    """Draws for a batch; seed: int32 [2]. Not compiled by XLA, whose generator takes 400 ns per number on a CPU."""
    return Draws(
        tf.random.stateless_uniform([6, batch], seed, -1.0, 1.0, alg="philox"),
        tf.random.stateless_normal([batch, 2, GRID * GRID], seed + 1, alg="philox"),
    )


def augment(images: tf.Tensor, draws: Draws, size: tuple[int, int], settings: TrainSettings) -> tf.Tensor:
    """Resample images at randomly displaced points; pixels outside an image are 0.

    Args:
        images: uint8 [batch, height * width], raw 0..255.
        draws: random numbers for this batch.
        size: (height, width) in pixels.

    Returns:
        float32 [batch, height * width], 0..255
    """
    batch = images.shape[0]
    y, x = source_points(draws, size, settings)  # [batch, height, width] each
    return tf.reshape(bilinear(tf.reshape(images, [batch, *size]), y, x), [batch, size[0] * size[1]])


# Two XLA programs: several times faster than op by op. A single program would compute the points again for each use.
@tf.function(jit_compile=True)
def source_points(draws: Draws, size: tuple[int, int], settings: TrainSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """The point of the source image for each output pixel: y and x in pixels, both float32 [batch, height, width]."""
    uniform = draws.affine[:, :, None, None]  # [6, batch, 1, 1]
    angle = math.radians(settings.augment_rotation_degrees) * uniform[0]  # [batch, 1, 1]
    zoom_y, zoom_x = (1.0 + settings.augment_scale * uniform[i] for i in (1, 2))
    shear = settings.augment_shear * uniform[3]
    shift_y, shift_x = (settings.augment_shift_pixels * uniform[i] for i in (4, 5))
    cos, sin = tf.cos(angle), tf.sin(angle)

    # Rotation after shear after zoom, about the image's centre.
    centre_y, centre_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    row = tf.range(size[0], dtype=tf.float32)[:, None] - centre_y  # [height, 1]
    column = tf.range(size[1], dtype=tf.float32)[None, :] - centre_x  # [1, width]
    y = (cos * zoom_y) * row + (cos * shear - sin) * zoom_x * column + (shift_y + centre_y)  # [batch, height, width]
    x = (sin * zoom_y) * row + (sin * shear + cos) * zoom_x * column + (shift_x + centre_x)
    if settings.augment_elastic_pixels > 0:
        field = np.einsum("yi,xj->ijyx", spread(size[0]), spread(size[1])).reshape(GRID * GRID, -1)
        bent = tf.reshape(draws.elastic, [-1, GRID * GRID]) @ (settings.augment_elastic_pixels * field)
        bent = tf.reshape(bent, [-1, 2, *size])  # [batch, 2, height, width]
        y, x = y + bent[:, 0], x + bent[:, 1]
    return y, x


def spread(length: int) -> npt.NDArray[np.float32]:
    """Gaussian weights float32 [length, GRID] that interpolate GRID control points along a side; rows have norm 1.

    With that norm, a field of independent standard normal control points has variance 1 everywhere.
    """
    distance = length / GRID
    control = (np.arange(GRID) + 0.5) * distance - 0.5
    weights = np.exp(-0.5 * ((np.arange(length)[:, None] - control) / (SMOOTHNESS * distance)) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


@tf.function(jit_compile=True)
def bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Sample images at points.

    The four neighbours of a point are packed into the bytes of one uint32: one gather instead of four, because the
    gather takes most of the time.

    Args:
        images: uint8 [batch, height, width]
        y, x: float32 [batch, height, width], in pixels

    Returns:
        float32 [batch, height, width], 0..255
    """
    batch, height, width = images.shape
    padded = tf.cast(tf.pad(images, [[0, 0], [1, 2], [1, 2]]), tf.uint32)
    words = (
        padded[:, :-1, :-1]
        | tf.bitwise.left_shift(padded[:, :-1, 1:], tf.constant(8, tf.uint32))
        | tf.bitwise.left_shift(padded[:, 1:, :-1], tf.constant(16, tf.uint32))
        | tf.bitwise.left_shift(padded[:, 1:, 1:], tf.constant(24, tf.uint32))
    )  # [batch, height + 2, width + 2]
    y, x = tf.clip_by_value(y, -1.0, float(height)), tf.clip_by_value(x, -1.0, float(width))
    floor_y, floor_x = tf.floor(y), tf.floor(x)
    index = (tf.cast(floor_y, tf.int32) + 1) * (width + 2) + tf.cast(floor_x, tf.int32) + 1
    word = tf.gather(tf.reshape(words, [batch, -1]), tf.reshape(index, [batch, -1]), batch_dims=1)
    word = tf.reshape(word, [batch, height, width])

    def corner(byte: int) -> tf.Tensor:
        shifted = tf.bitwise.right_shift(word, tf.constant(8 * byte, tf.uint32))
        return tf.cast(tf.cast(shifted & tf.constant(255, tf.uint32), tf.int32), tf.float32)

    part_y, part_x = y - floor_y, x - floor_x
    upper = corner(0) + part_x * (corner(1) - corner(0))
    lower = corner(2) + part_x * (corner(3) - corner(2))
    return upper + part_y * (lower - upper)
