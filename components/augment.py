"""Augmentation: every training image moved, turned, resized, slanted and bent a little, anew in each step.

Stateless: what happens to an image depends on the seed, the step and its place in the batch, so that an interrupted
run goes on exactly as it would have, and workers that share a batch draw the same as one alone.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.settings import TrainSettings

GRID: Final = 7  # control points of the elastic displacement along each side
SMOOTHNESS: Final = 1.125  # width of a control point's Gaussian, in distances between control points


def is_wanted(settings: TrainSettings) -> bool:
    return any(getattr(settings, name) > 0 for name in vars(settings) if name.startswith("augment_"))


def augment(
    images: tf.Tensor, seed: tf.Tensor, first: tf.Tensor, size: tuple[int, int], settings: TrainSettings
) -> tf.Tensor:
    """Resample images at randomly displaced points; outside of an image is 0.

    Args:
        images: uint8 [share, height * width], raw 0..255: a part of the batch.
        seed: int32 [2].
        first: int32, where the part begins in the batch.
        size: (height, width) in pixels.

    Returns:
        float32 [share, height * width], 0..255
    """
    share = images.shape[0]
    points = source_points(settings.batch_size, seed, size, settings)  # [batch, 2, height, width]
    points = tf.slice(points, [first, 0, 0, 0], [share, 2, *size])  # [share, 2, height, width]
    return tf.reshape(bilinear(tf.reshape(images, [share, *size]), points), [share, size[0] * size[1]])


def source_points(batch: int, seed: tf.Tensor, size: tuple[int, int], settings: TrainSettings) -> tf.Tensor:
    """Where each output pixel comes from: (y, x) in pixels, float32 [batch, 2, height, width]."""
    uniform = tf.random.stateless_uniform([6, batch, 1, 1], seed, -1.0, 1.0)
    angle = math.radians(settings.augment_rotation_degrees) * uniform[0]  # [batch, 1, 1]
    zoom_y, zoom_x = (1.0 + settings.augment_scale * uniform[i] for i in (1, 2))
    shear = settings.augment_shear * uniform[3]
    shift_y, shift_x = (settings.augment_shift_pixels * uniform[i] for i in (4, 5))
    cos, sin = tf.cos(angle), tf.sin(angle)

    # Rotation after shear after zoom, about the image's centre.
    centre_y, centre_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    y = zoom_y * (tf.range(size[0], dtype=tf.float32)[:, None] - centre_y)  # [batch, height, 1]
    x = zoom_x * (tf.range(size[1], dtype=tf.float32)[None, :] - centre_x)  # [batch, 1, width]
    slanted = y + shear * x  # [batch, height, width]
    points = tf.stack(
        [cos * slanted - sin * x + shift_y + centre_y, sin * slanted + cos * x + shift_x + centre_x], axis=1
    )
    if settings.augment_elastic_pixels > 0:
        normal = tf.random.stateless_normal([batch, 2, GRID, GRID], seed + 1)
        bent = spread(size[0]) @ normal @ tf.transpose(spread(size[1]))  # [batch, 2, height, width]
        points += settings.augment_elastic_pixels * bent
    return points


def spread(length: int) -> npt.NDArray[np.float32]:
    """Gaussian weights [length, GRID] that spread GRID control points over a side; rows have norm 1.

    So a field of independent standard normal control points has variance 1 everywhere.
    """
    distance = length / GRID
    control = (np.arange(GRID) + 0.5) * distance - 0.5
    weights = np.exp(-0.5 * ((np.arange(length)[:, None] - control) / (SMOOTHNESS * distance)) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def bilinear(images: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Sample uint8 [batch, height, width] at (y, x) points [batch, 2, height, width] -> float32, points' last shape.

    The four neighbours of a point travel as the four bytes of one word: one gather instead of four, which is what
    takes the time.
    """
    batch, height, width = images.shape
    padded = tf.cast(tf.pad(images, [[0, 0], [1, 2], [1, 2]]), tf.uint32)
    words = (
        padded[:, :-1, :-1]
        | tf.bitwise.left_shift(padded[:, :-1, 1:], tf.constant(8, tf.uint32))
        | tf.bitwise.left_shift(padded[:, 1:, :-1], tf.constant(16, tf.uint32))
        | tf.bitwise.left_shift(padded[:, 1:, 1:], tf.constant(24, tf.uint32))
    )  # [batch, height + 2, width + 2]
    y = tf.clip_by_value(points[:, 0], -1.0, float(height))  # [batch, height, width]
    x = tf.clip_by_value(points[:, 1], -1.0, float(width))
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
