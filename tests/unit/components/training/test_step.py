from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from components.training.model import MLP
from components.training.optimizers import SGD
from components.training.step import sharded_step, training_step

RATE = 0.5
X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 8)]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("loss_weight", [1.0, 1 / 8], ids=["sum", "mean"])
def test_the_plain_step_is_gradient_descent_on_the_cross_entropy(loss_weight: float) -> None:
    model = MLP((5, 3), seed=0)  # no hidden layer: softmax regression, whose gradient has a closed form
    weight, bias = model.weights[0].numpy(), model.biases[0].numpy()
    optimizer = SGD(model.trainable_variables)
    loss = training_step(model, optimizer, tf.constant(X), tf.constant(Y), tf.constant(RATE), loss_weight)
    probabilities = softmax(X @ weight + bias)
    summed = -np.log((probabilities * Y).sum(axis=1)).sum()  # for both weights
    assert float(loss) == pytest.approx(summed, rel=1e-5)
    error = loss_weight * (probabilities - Y)
    np.testing.assert_allclose(model.weights[0], weight - RATE * X.T @ error, atol=1e-5)
    np.testing.assert_allclose(model.biases[0], bias - RATE * error.sum(axis=0), atol=1e-5)


def test_batch_shards_make_the_same_update_as_the_whole_batch() -> None:
    plain, sharded = MLP((5, 4, 3), seed=0), MLP((5, 4, 3), seed=0)
    rate, x, y = tf.constant(RATE), tf.constant(X), tf.constant(Y)
    loss = training_step(plain, SGD(plain.trainable_variables), x, y, rate, 1.0)
    shards = [(x[:3], y[:3]), (x[3:], y[3:])]
    total, gradients = sharded_step(sharded, SGD(sharded.trainable_variables), shards, rate, 1.0)
    assert float(total) == pytest.approx(float(loss), rel=1e-5)
    assert len(gradients) == 2
    for found, wanted in zip(sharded.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
