"""The optimizers and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.common.settings import TrainSettings

Gradients = Sequence[tf.Tensor]  # one per variable, with its shape


class Update(Protocol):
    """What a training step does with its gradients."""

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:
        """Update the variables in place.

        Args:
            learning_rate: float32 scalar.
            gradients: one list per batch shard; their sum is the gradient of the batch.
        """


class Optimizer(Update, Protocol):
    """Attributes: slots: the optimizer's own variables by name; checkpoints contain them."""

    slots: dict[str, tf.Variable]


def create(variables: Sequence[tf.Variable], settings: TrainSettings) -> Optimizer:
    """The optimizer named in the settings."""
    match settings.optimizer:
        case "adamw":
            return AdamW(variables, settings.weight_decay)
        case "momentum":
            return Momentum(variables, settings.momentum)
        case _:
            return SGD(variables)


def learning_rates(settings: TrainSettings, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Rates of the steps start .. stop-1, float32: linear warm-up, then half a cosine to 0 or constant."""
    step = np.arange(start, stop)
    warm_up = np.minimum(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = np.clip((step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps), 0.0, 1.0)
    decay = 0.5 * (1 + np.cos(np.pi * done)) if settings.schedule == "cosine" else 1.0
    rates: npt.NDArray[np.float32] = (settings.learning_rate * warm_up * decay).astype(np.float32)
    return rates


def _zeros(variables: Sequence[tf.Variable], name: str) -> dict[str, tf.Variable]:
    return {f"{name}/{i}": tf.Variable(tf.zeros(v.shape), trainable=False) for i, v in enumerate(variables)}


class SGD:
    """w -= learning_rate * gradient"""

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self.variables = variables
        self.slots: dict[str, tf.Variable] = {}

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:
        for variable, parts in zip(self.variables, zip(*gradients, strict=True), strict=True):
            for part in parts:  # each as soon as it is computed, in one pass over the weights
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=part)


class Momentum:
    """v = momentum * v + gradient; w -= learning_rate * v  (Polyak 1964, in the form of Sutskever et al. 2013)"""

    def __init__(self, variables: Sequence[tf.Variable], momentum: float) -> None:
        self.variables = variables
        self.momentum = momentum
        self.slots = _zeros(variables, "velocity")

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:
        for variable, velocity, parts in zip(
            self.variables, self.slots.values(), zip(*gradients, strict=True), strict=True
        ):
            # One operation: TensorFlow would merge separate sums, in an order that differs between processes.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=learning_rate,
                grad=tf.add_n(parts),
                momentum=self.momentum,
            )


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), on matrices only."""

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015, section 2

    def __init__(self, variables: Sequence[tf.Variable], weight_decay: float) -> None:
        self.variables = variables
        self.weight_decay = weight_decay
        self.step = tf.Variable(0.0, trainable=False)
        self.first, self.second = _zeros(variables, "first_moment"), _zeros(variables, "second_moment")
        self.slots = {"step": self.step, **self.first, **self.second}

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:
        step = self.step.assign_add(1.0)
        # Both bias corrections as one scalar, as in Kingma & Ba, end of section 2.
        rate = learning_rate * tf.sqrt(1.0 - self.BETA_2**step) / (1.0 - self.BETA_1**step)
        moments = zip(self.first.values(), self.second.values(), strict=True)
        for variable, (first, second), parts in zip(self.variables, moments, zip(*gradients, strict=True), strict=True):
            gradient = tf.add_n(parts)
            m = first.assign_add((1.0 - self.BETA_1) * (gradient - first))
            v = second.assign_add((1.0 - self.BETA_2) * (tf.square(gradient) - second))
            update = rate * m / (tf.sqrt(v) + self.EPSILON)
            if variable.shape.rank > 1:
                update += learning_rate * self.weight_decay * variable
            variable.assign_sub(update)
