from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.settings import TrainSettings
from components.training import optimizers
from components.training.optimizers import learning_rates


@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500))
@settings(max_examples=50)
def test_the_rate_warms_up_then_falls_and_never_exceeds_its_peak(steps: int, warmup: int, cut: int) -> None:
    chosen = TrainSettings(steps=steps, warmup_steps=warmup, learning_rate=0.1)
    rates = learning_rates(chosen, 0, steps)
    assert rates.shape == (steps,)
    assert (rates >= 0).all() and rates.max() <= np.float32(0.1)
    peak = int(rates.argmax())
    assert (np.diff(rates[: peak + 1]) >= 0).all() and (np.diff(rates[peak:]) <= 0).all()
    cut = min(cut, steps)
    np.testing.assert_array_equal(rates[cut:], learning_rates(chosen, cut, steps))  # a resumed run has the same


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    chosen = TrainSettings(steps=4, schedule="constant", warmup_steps=2, learning_rate=0.5)
    np.testing.assert_array_equal(learning_rates(chosen, 0, 4), np.array([0.25, 0.5, 0.5, 0.5], np.float32))


@pytest.mark.parametrize(
    ("chosen", "keras"),
    [
        (TrainSettings(optimizer="sgd"), tf.keras.optimizers.SGD(0.05)),
        (TrainSettings(optimizer="momentum", momentum=0.8), tf.keras.optimizers.SGD(0.05, momentum=0.8)),
        (TrainSettings(weight_decay=0.0), tf.keras.optimizers.AdamW(0.05, weight_decay=0.0, epsilon=1e-8)),
        (TrainSettings(weight_decay=0.3), tf.keras.optimizers.AdamW(0.05, weight_decay=0.3, epsilon=1e-8)),
    ],
    ids=["sgd", "momentum", "adamw", "adamw with decay"],
)
def test_each_optimizer_agrees_with_keras(chosen: TrainSettings, keras: tf.keras.optimizers.Optimizer) -> None:
    generator = np.random.default_rng(0)
    start, bias = generator.normal(size=(4, 3)).astype(np.float32), np.zeros(3, np.float32)
    ours, theirs = [tf.Variable(start), tf.Variable(bias)], [tf.Variable(start), tf.Variable(bias)]
    mine = optimizers.create(ours, chosen)
    if chosen.optimizer == "adamw":
        keras.exclude_from_weight_decay([theirs[1]])
    keras.build(theirs)
    for _ in range(5):
        gradients = [tf.constant(generator.normal(size=v.shape).astype(np.float32)) for v in ours]
        mine.apply(tf.constant(0.05), [0.25 * g for g in gradients], [0.75 * g for g in gradients])  # two shards
        keras.apply_gradients(zip(gradients, theirs, strict=True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
