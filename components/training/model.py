"""The MLP: 784-128-256-10 by default, sigmoid hidden layers, softmax output."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import tensorflow as tf

ACTIVATION: Final[Mapping[str, Callable[[tf.Tensor], tf.Tensor]]] = {
    "sigmoid": tf.sigmoid,
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "gelu": tf.nn.gelu,
}


class MLP(tf.Module):
    """A multi-layer perceptron that returns logits; the loss and the signatures apply the softmax.

    Args:
        sizes: units per layer, input and output included, e.g. (784, 128, 256, 10).
        seed: for the initial weights, which are Glorot uniform (Glorot & Bengio 2010, eq. 16).
        activation: for the hidden layers, a key of ACTIVATION.
    """

    def __init__(self, sizes: Sequence[int], seed: int, activation: str = "sigmoid") -> None:
        super().__init__(name="mlp")
        self.activation = activation
        self.weights: list[tf.Variable] = []
        self.biases: list[tf.Variable] = []
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            limit = (6.0 / (fan_in + fan_out)) ** 0.5
            kernel = tf.random.stateless_uniform([fan_in, fan_out], [seed, layer], -limit, limit)
            self.weights.append(tf.Variable(kernel, name=f"layer{layer}/weight"))  # [fan_in, fan_out]
            self.biases.append(tf.Variable(tf.zeros([fan_out]), name=f"layer{layer}/bias"))  # [fan_out]

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """pixels float32 [batch, sizes[0]] -> logits float32 [batch, sizes[-1]]"""
        x = pixels
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = ACTIVATION[self.activation](x @ weight + bias)  # [batch, fan_out]
        return x @ self.weights[-1] + self.biases[-1]  # [batch, classes]

    def named_weights(self) -> dict[str, tf.Variable]:
        """The variables by the names that `weights_sha256` and the checkpoints use."""
        kinds = {"weights": self.weights, "biases": self.biases}
        return {f"{kind}/{layer}": v for kind, variables in kinds.items() for layer, v in enumerate(variables)}
