from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UsageError, UserError
from components.model import MLP
from components.optimizers import SGD, AdamW
from components.settings import TrainSettings
from components.trainer import accuracy, batch_order, learning_rates, train
from components.training_data import Split
from tests.synthetic import digits


@pytest.fixture(scope="module")
def split() -> Split:
    images, labels = digits(600, seed=0, size=12)
    return Split(images.reshape(600, -1).astype(np.float32) / 255, labels.astype(np.int64))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(0, 9))
def test_every_epoch_visits_each_example_at_most_once(examples: int, batch: int, steps: int, seed: int) -> None:
    chosen = TrainSettings(steps=steps, batch_size=batch, seed=seed)
    if batch > examples:
        with pytest.raises(UsageError, match=f"only {examples} examples"):
            batch_order(examples, chosen)
        return
    order = batch_order(examples, chosen)
    assert order.shape == (steps, batch)
    per_epoch = examples // batch
    for start in range(0, steps, per_epoch):
        epoch = order[start : start + per_epoch].ravel()
        assert len(np.unique(epoch)) == len(epoch)
        assert epoch.min() >= 0 and epoch.max() < examples
    np.testing.assert_array_equal(order, batch_order(examples, chosen))


@given(st.integers(1, 500), st.integers(0, 500))
@settings(max_examples=50)
def test_the_rate_warms_up_then_falls_and_never_exceeds_its_peak(steps: int, warmup: int) -> None:
    rates = learning_rates(TrainSettings(steps=steps, warmup_steps=warmup, learning_rate=0.1))
    assert rates.shape == (steps,)
    assert (rates >= 0).all() and rates.max() <= np.float32(0.1)
    peak = int(rates.argmax())
    assert (np.diff(rates[: peak + 1]) >= 0).all() and (np.diff(rates[peak:]) <= 0).all()


def test_sgd_keeps_its_rate() -> None:
    rates = learning_rates(TrainSettings(steps=3, optimizer="sgd", learning_rate=0.5))
    np.testing.assert_array_equal(rates, np.full(3, 0.5, np.float32))


def test_one_sgd_step_is_the_textbooks() -> None:
    weight = tf.Variable([[1.0, 2.0]])
    SGD([weight]).apply([tf.constant([[10.0, -10.0]])], tf.constant(0.1))
    np.testing.assert_allclose(weight.numpy(), [[0.0, 3.0]])


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_agrees_with_keras(decay: float) -> None:
    generator = np.random.default_rng(0)
    start, bias = generator.normal(size=(4, 3)).astype(np.float32), np.zeros(3, np.float32)
    ours, theirs = [tf.Variable(start), tf.Variable(bias)], [tf.Variable(start), tf.Variable(bias)]
    mine = AdamW(ours, weight_decay=decay)
    keras = tf.keras.optimizers.AdamW(0.05, weight_decay=decay, epsilon=1e-8)
    keras.exclude_from_weight_decay([theirs[1]])
    keras.build(theirs)
    for _ in range(5):
        gradients = [tf.constant(generator.normal(size=v.shape).astype(np.float32)) for v in ours]
        mine.apply(gradients, tf.constant(0.05))
        keras.apply_gradients(zip(gradients, theirs, strict=True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns_and_is_repeatable(split: Split, optimizer: str) -> None:
    chosen = TrainSettings(
        steps=150,
        batch_size=64,
        optimizer=optimizer,
        learning_rate={"adamw": 0.02, "sgd": 1.0}[optimizer],
        warmup_steps=5,
    )
    weights, losses = [], []
    for _ in range(2):
        model = MLP((144, 32, 10), seed=3)
        train(model, split, chosen, lambda step, loss: losses.append((step, loss)))
        weights.append([v.numpy() for v in model.variables])
    assert [step for step, _ in losses] == [100, 150] * 2
    assert accuracy(model, split) > 0.95
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_divergence_is_an_error_with_a_remedy(split: Split) -> None:
    broken = Split(np.full_like(split.pixels, np.nan), split.labels)
    with pytest.raises(UserError, match="diverged: the loss is nan after 100 steps") as caught:
        train(MLP((144, 8, 10), seed=0), broken, TrainSettings(batch_size=64), lambda step, loss: None)
    assert "train.learning_rate" in caught.value.remedy


def test_initial_weights_are_glorots_and_differ_by_seed() -> None:
    a, b = MLP((784, 128, 10), seed=0), MLP((784, 128, 10), seed=1)
    limit = (6 / (784 + 128)) ** 0.5
    kernel = a.weights[0].numpy()
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert not np.array_equal(kernel, b.weights[0].numpy())
