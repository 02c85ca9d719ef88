"""The two optimizers of the training loop, written out.

Both take gradients of the mean loss and the learning rate of this step, so that a schedule stays outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Update the variables in place; `learning_rate` is a float32 scalar."""


class SGD:
    """w -= learning_rate * gradient"""

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self.variables = variables

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        for variable, gradient in zip(self.variables, gradients, strict=True):
            variable.assign_sub(learning_rate * gradient)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), on matrices only."""

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015, section 2

    def __init__(self, variables: Sequence[tf.Variable], weight_decay: float) -> None:
        self.variables = variables
        self.weight_decay = weight_decay
        self.step = tf.Variable(0.0, trainable=False)
        self.first_moments = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.second_moments = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        step = self.step.assign_add(1.0)
        # Both bias corrections folded into one scalar, as in Kingma & Ba, end of section 2.
        rate = learning_rate * tf.sqrt(1.0 - self.BETA_2**step) / (1.0 - self.BETA_1**step)
        moments = zip(self.first_moments, self.second_moments, strict=True)
        for variable, gradient, (first, second) in zip(self.variables, gradients, moments, strict=True):
            m = first.assign_add((1.0 - self.BETA_1) * (gradient - first))
            v = second.assign_add((1.0 - self.BETA_2) * (tf.square(gradient) - second))
            update = rate * m / (tf.sqrt(v) + self.EPSILON)
            if variable.shape.rank > 1:
                update += learning_rate * self.weight_decay * variable
            variable.assign_sub(update)
