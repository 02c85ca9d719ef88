"""The training step, and what wraps it.

`training_step` is the complete step. The rest of the module wraps it without changing it, from the inside out: batch
shards, replicas, augmentation, unrolled iterations. docs/decisions/0017-training.md has the measured gains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from components.common.settings import TrainSettings
from components.training import augment, distribution
from components.training.input_pipeline import PixelScale, Source
from components.training.model import MLP
from components.training.optimizers import Gradients, Update
from components.training.state import State


def training_step(
    model: MLP, optimizer: Update, x: tf.Tensor, y: tf.Tensor, learning_rate: tf.Tensor, loss_weight: float
) -> tf.Tensor:
    """Forward pass, cross-entropy, gradients, update. Returns the sum of the examples' losses.

    Args:
        x: normalised pixels, float32 [batch, pixels].
        y: target probabilities, float32 [batch, classes].
        learning_rate: float32 scalar.
        loss_weight: weight of an example in the objective: 1 / batch size for the mean loss, 1 for the sum.
    """
    with tf.GradientTape() as tape:
        logits = model(x)  # [batch, classes]
        losses = tf.nn.softmax_cross_entropy_with_logits(y, logits)  # [batch]
        loss = tf.reduce_sum(losses)  # []
        objective = loss * loss_weight  # []
    gradients = tape.gradient(objective, model.trainable_variables)  # one per variable, with its shape
    optimizer.apply(learning_rate, gradients)
    return loss


class GradientCollector:
    """Stands in for the optimizer in `training_step`, and collects the gradients for one later update."""

    def __init__(self) -> None:
        self.collected: list[Gradients] = []

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:  # noqa: ARG002
        self.collected += gradients


def sharded_step(
    model: MLP,
    optimizer: Update,
    shards: Iterable[tuple[tf.Tensor, tf.Tensor]],
    learning_rate: tf.Tensor,
    loss_weight: float,
) -> tuple[tf.Tensor, list[Gradients]]:
    """`training_step` on each shard of a batch, then one update with the sum of their gradients.

    Why: matrix products of these sizes use one core. Two independent shards use two: 590 steps/s became 1,000.

    Returns:
        the sum of the losses; the gradients per shard
    """
    collector = GradientCollector()
    losses = [training_step(model, collector, x, y, learning_rate, loss_weight) for x, y in shards]
    optimizer.apply(learning_rate, *collector.collected)
    return tf.add_n(losses), collector.collected


class AllReduce:
    """Wraps an optimizer: sums the gradients over all replicas, so that each makes the same update.

    Why: replicas share a batch, so that several devices or machines train one model.
    """

    def __init__(self, optimizer: Update) -> None:
        self.optimizer = optimizer

    def apply(self, learning_rate: tf.Tensor, *gradients: Gradients) -> None:
        own = [tf.add_n(parts) for parts in zip(*gradients, strict=True)]
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
        self.optimizer.apply(learning_rate, total)


class BatchShards:
    """The (x, y) of `training_step` for each shard of a batch: read, augmented and normalised inside the graph.

    Why: the pixels in memory stay uint8, a quarter of float32, and every step augments them anew.
    """

    def __init__(
        self,
        source: Source,
        scale: PixelScale,
        size: tuple[int, int],
        classes: int,
        settings: TrainSettings,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._source, self._size, self._settings = source, size, settings
        self._examples = distribution.examples_per_replica(settings.batch_size, strategy)
        self._bounds = np.linspace(0, self._examples, min(settings.shards, self._examples) + 1).astype(int).tolist()
        self._targets = tf.one_hot(tf.range(classes), classes)
        # One number for all pixels, the usual case, is twice as fast as one per pixel.
        self._scale, self._offset = (v[0] if (v == v[0]).all() else v for v in (scale.scale, scale.offset))

    def of(self, examples: Any, step: tf.Tensor, previous: list[Gradients]) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """x float32 [shard, pixels] and y float32 [shard, classes] of each shard of this replica.

        Args:
            examples: one step's part of what `Source.take` returns.
            step: steps done, int64 scalar.
            previous: the previous step's gradients per shard, if it is in the same unrolled iteration.
        """
        draws = None
        if augment.is_wanted(self._settings):
            seed = tf.stack([self._settings.seed, tf.cast(step, tf.int32)])
            draws = augment.draw(self._settings.batch_size, seed)  # for the whole batch: each replica uses its part
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = tf.cast(replica, tf.int32) * self._examples
        for shard, (start, stop) in enumerate(itertools.pairwise(self._bounds)):
            part = slice(first + start, first + stop)
            # A shard's next images are read while the weights are updated; if read earlier, the cache evicts them.
            with tf.control_dependencies(previous[shard] if previous else []):
                raw, labels = self._source.pick(tf.nest.map_structure(lambda t: t[part], examples))  # noqa: B023
            raw = tf.ensure_shape(raw, [stop - start, self._size[0] * self._size[1]])  # uint8 [shard, pixels], 0..255
            if draws:
                own = augment.Draws(draws.affine[:, part], draws.elastic[part])
                pixels = augment.augment(raw, own, self._size, self._settings)  # float32 [shard, pixels], 0..255
            else:
                pixels = tf.cast(raw, tf.float32)
            yield pixels * self._scale + self._offset, tf.gather(self._targets, labels)


Step = Callable[[Any, tf.Tensor, list[Gradients]], tuple[tf.Tensor, list[Gradients]]]
RunSteps = Callable[[Any, Any], tf.Tensor]


def unrolled(
    step: Step, source: Source, batch_size: int, strategy: tf.distribute.Strategy, steps_per_iteration: int
) -> RunSteps:
    """One graph that runs many steps in a loop, `steps_per_iteration` of them written out in each iteration.

    Why: an iteration of TensorFlow's loop costs 60 us. Together with the early reading of images and SGD's update per
    shard, five steps per iteration are 10 to 20 % faster for SGD, and 7 % for the default configuration.
    """

    @tf.function(input_signature=[source.spec, tf.TensorSpec([None], tf.float32)])
    def run_steps(examples: Any, rates: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for first in tf.range(0, tf.size(rates), steps_per_iteration):
            losses: list[tf.Tensor] = []
            gradients: list[Gradients] = []  # of the previous step, per shard
            for i in range(steps_per_iteration):
                own = tf.nest.map_structure(lambda t: t[first + i], examples)  # noqa: B023
                loss, gradients = strategy.run(step, args=(own, rates[first + i], gradients))
                losses.append(strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None))
            total += tf.add_n(losses)
        return total / tf.cast(tf.size(rates) * batch_size, tf.float32)

    run: RunSteps = run_steps
    return run


def steps_function(
    state: State,
    source: Source,
    scale: PixelScale,
    size: tuple[int, int],
    settings: TrainSettings,
    strategy: tf.distribute.Strategy,
    steps_per_iteration: int = 1,
) -> RunSteps:
    """The graph that runs many steps: (what `source.take` returns, rates float32 [steps]) -> mean loss per example.

    Args:
        size: (height, width) of an image in pixels.
        steps_per_iteration: the number of steps in a call must be a multiple of it.
    """
    classes = state.model.biases[-1].shape[0]
    shards = BatchShards(source, scale, size, classes, settings, strategy)
    optimizer = AllReduce(state.optimizer) if strategy.num_replicas_in_sync > 1 else state.optimizer
    loss_weight = 1.0 if settings.loss_reduction == "sum" else 1.0 / settings.batch_size

    def step(examples: Any, rate: tf.Tensor, previous: list[Gradients]) -> tuple[tf.Tensor, list[Gradients]]:
        batch = shards.of(examples, state.step, previous)
        loss, gradients = sharded_step(state.model, optimizer, batch, rate, loss_weight)
        state.step.assign_add(1)
        return loss, gradients

    return unrolled(step, source, settings.batch_size, strategy, steps_per_iteration)
