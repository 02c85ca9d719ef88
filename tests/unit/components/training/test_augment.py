from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from components.common.settings import TrainSettings
from components.training import augment
from components.training.augment import Draws

NONE = {
    "augment_shift_pixels": 0.0,
    "augment_rotation_degrees": 0.0,
    "augment_scale": 0.0,
    "augment_shear": 0.0,
    "augment_elastic_pixels": 0.0,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9 * 12)).astype(np.uint8)
SIZE = (9, 12)


def fixed(*affine: float) -> Draws:
    """The same draw for six images: angle, zoom y, zoom x, shear, shift y, shift x, each -1..1."""
    return Draws(tf.tile(tf.constant(affine, tf.float32)[:, None], [1, 6]), tf.zeros([6, 2, augment.GRID**2]))


def resampled(draws: Draws, **amounts: float) -> np.ndarray:
    chosen = TrainSettings(**{**NONE, **amounts})
    return augment.augment(tf.constant(IMAGES), draws, SIZE, chosen).numpy().reshape(6, *SIZE)


def test_no_displacement_leaves_every_pixel() -> None:
    draws = augment.draw(6, tf.constant([1, 2]))
    np.testing.assert_array_equal(resampled(draws), IMAGES.reshape(6, *SIZE))


def test_a_whole_shift_moves_pixels_and_fills_with_background() -> None:
    moved = resampled(fixed(0, 0, 0, 0, 1, -1), augment_shift_pixels=2.0)  # from two rows below, two columns left
    expected = np.zeros((6, *SIZE))
    expected[:, :-2, 2:] = IMAGES.reshape(6, *SIZE)[:, 2:, :-2]
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def test_half_a_pixel_is_the_mean_of_its_neighbours() -> None:
    moved = resampled(fixed(0, 0, 0, 0, 0, 1), augment_shift_pixels=0.5)
    images = IMAGES.reshape(6, *SIZE).astype(float)
    np.testing.assert_allclose(moved[:, :, :-1], (images[:, :, :-1] + images[:, :, 1:]) / 2, atol=1e-3)


def test_a_rotation_by_90_degrees_matches_numpy() -> None:
    square = np.random.default_rng(1).integers(0, 256, (6, 49)).astype(np.uint8)
    chosen = TrainSettings(**{**NONE, "augment_rotation_degrees": 90.0})
    turned = augment.augment(tf.constant(square), fixed(1, 0, 0, 0, 0, 0), (7, 7), chosen).numpy().reshape(6, 7, 7)
    np.testing.assert_allclose(turned, np.rot90(square.reshape(6, 7, 7), -1, axes=(1, 2)), atol=0.1)


@pytest.mark.parametrize("amount", [name for name in NONE if name != "augment_shift_pixels"])
def test_each_kind_changes_images_within_their_range(amount: str) -> None:
    changed = resampled(augment.draw(6, tf.constant([3, 4])), **{amount: 0.5})
    assert not np.array_equal(changed, IMAGES.reshape(6, *SIZE))
    assert changed.min() >= 0 and changed.max() <= 255


def test_the_elastic_field_is_smooth_and_has_the_chosen_standard_deviation() -> None:
    chosen = TrainSettings(**{**NONE, "augment_elastic_pixels": 2.0})
    draws = augment.draw(500, tf.constant([5, 6]))
    y, _ = augment.source_points(draws, (28, 28), chosen)
    field = y.numpy() - np.arange(28)[None, :, None]
    assert field.std() == pytest.approx(2.0, rel=0.05)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.5


def test_draws_depend_on_seed_and_step_alone() -> None:
    a, b, c = (augment.draw(8, tf.constant(seed)) for seed in ([1, 7], [1, 7], [1, 8]))
    np.testing.assert_array_equal(a.affine, b.affine)
    np.testing.assert_array_equal(a.elastic, b.elastic)
    assert not np.array_equal(a.affine, c.affine) and not np.array_equal(a.elastic, c.elastic)
