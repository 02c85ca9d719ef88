"""One training step, written out with tf.GradientTape: top to bottom, what happens to a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import tensorflow as tf

from components.common.settings import TrainSettings
from components.training import augment, distribution, optimizers
from components.training.input_pipeline import PixelScale, Source
from components.training.model import MLP

SUM: Final = tf.distribute.ReduceOp.SUM


@dataclass
class State:
    """All that a step changes, as variables: what a checkpoint holds.

    Attributes:
        model: the network that is trained.
        result: the network that is validated and exported: `model` itself, or its moving average.
        best: a copy of `result` at its best validation, if that is what will be exported.
    """

    model: MLP
    result: MLP
    best: MLP | None
    optimizer: optimizers.Optimizer
    step: tf.Variable
    best_accuracy: tf.Variable
    variables: dict[str, tf.Variable] = field(default_factory=dict)

    @classmethod
    def create(cls, sizes: Sequence[int], settings: TrainSettings) -> State:
        def network() -> MLP:
            return MLP(sizes, settings.seed, settings.activation)

        model = network()
        state = cls(
            model=model,
            result=network() if settings.ema_decay else model,
            best=network() if settings.keep == "best" else None,
            optimizer=optimizers.create([*model.weights, *model.biases], settings),
            step=tf.Variable(0, dtype=tf.int64, trainable=False),
            best_accuracy=tf.Variable(-1.0, trainable=False),
        )
        networks = {"model": state.model, "average": state.result, "best": state.best}
        for name, one in networks.items():
            if one is not None and not (name == "average" and one is model):
                state.variables |= {f"{name}/{key}": variable for key, variable in one.named_weights().items()}
        state.variables |= {f"optimizer/{key}": variable for key, variable in state.optimizer.slots.items()}
        state.variables |= {"step": state.step, "best_accuracy": state.best_accuracy}
        return state


def steps_function(
    state: State,
    source: Source,
    scale: PixelScale,
    size: tuple[int, int],
    settings: TrainSettings,
    strategy: tf.distribute.Strategy,
    steps_per_turn: int = 1,
) -> Callable[[Any, Any], tf.Tensor]:
    """The graph that runs many steps: (what source.take answers, rates float32 [steps]) -> mean loss.

    Args:
        steps_per_turn: steps that one turn of the graph's loop holds; all numbers of steps must be multiples of it.
    """
    share = distribution.share_of(settings.batch_size, strategy)  # examples per replica
    bounds = np.linspace(0, share, min(settings.shards, share) + 1).astype(int).tolist()
    targets = tf.one_hot(tf.range(state.model.biases[-1].shape[0]), state.model.biases[-1].shape[0])
    targets = targets * (1.0 - settings.label_smoothing) + settings.label_smoothing / targets.shape[0]
    factor = 1.0 if settings.loss_reduction == "sum" else 1.0 / settings.batch_size
    variables = [*state.model.weights, *state.model.biases]
    # One number for all pixels, as usual, is twice as fast as one for each.
    pixel_scale, pixel_offset = (v[0] if (v == v[0]).all() else v for v in (scale.scale, scale.offset))

    def gradients_of(raw: tf.Tensor, labels: tf.Tensor, draws: augment.Draws | None) -> tuple[tf.Tensor, Any]:
        """The sum of a shard's losses, and its part of the gradients, one per variable."""
        # float32 [shard, pixels], 0..255
        pixels = augment.augment(raw, draws, size, settings) if draws else tf.cast(raw, tf.float32)
        x = pixels * pixel_scale + pixel_offset  # [shard, pixels], as the Transform graph answers
        y = tf.gather(targets, labels)  # [shard, classes], rows sum to 1
        with tf.GradientTape() as tape:
            logits = state.model(x)  # [shard, classes]
            losses = tf.nn.softmax_cross_entropy_with_logits(y, logits)  # [shard]
            loss = tf.reduce_sum(losses)
            objective = loss * factor
        return loss, tape.gradient(objective, variables)

    def one_step(part: Any, rate: tf.Tensor, before: list[list[tf.Tensor]]) -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        """Sum of losses, and gradients per shard; `before`: those of the step before, if it is in the same turn."""
        replica = tf.distribute.get_replica_context()
        first = tf.cast(replica.replica_id_in_sync_group, tf.int32) * share
        draws = None
        if augment.is_wanted(settings):
            seed = tf.stack([settings.seed, tf.cast(state.step, tf.int32)])
            draws = augment.draw(settings.batch_size, seed)  # of the whole batch: workers share it
        losses, shards = [], []
        for shard, (start, stop) in enumerate(itertools.pairwise(bounds)):  # side by side: none waits for another
            begin, end = first + start, first + stop
            # A shard's next images are read while the weights are updated; any earlier, and they leave the cache again.
            with tf.control_dependencies(before[shard] if before else []):
                raw, labels = source.pick(tf.nest.map_structure(lambda t: t[begin:end], part))  # noqa: B023  # called at once
            raw = tf.ensure_shape(raw, [stop - start, size[0] * size[1]])  # uint8 [shard, pixels], 0..255
            own = augment.Draws(draws.affine[:, begin:end], draws.elastic[begin:end]) if draws else None
            loss, gradients = gradients_of(raw, labels, own)
            losses.append(loss)
            shards.append(gradients)
        parts = list(zip(*shards, strict=True))  # per variable: what its gradient is the sum of
        if strategy.num_replicas_in_sync > 1:
            parts = [(total,) for total in replica.all_reduce(SUM, [tf.add_n(p) for p in parts])]
        state.optimizer.apply(parts, rate)
        step = state.step.assign_add(1)
        if state.result is not state.model:
            # The average of few steps is no average: tf.train.ExponentialMovingAverage's num_updates.
            done = tf.cast(step, tf.float32)
            decay = tf.minimum(settings.ema_decay, (1.0 + done) / (10.0 + done))
            averages = [*state.result.weights, *state.result.biases]
            for average, variable in zip(averages, variables, strict=True):
                average.assign_add((1.0 - decay) * (variable - average))
        return tf.add_n(losses), shards

    @tf.function(input_signature=[source.spec, tf.TensorSpec([None], tf.float32)])
    def run_steps(parts: Any, rates: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for turn in tf.range(0, tf.size(rates), steps_per_turn):
            losses: list[tf.Tensor] = []
            gradients: list[list[tf.Tensor]] = []  # of the last step, per shard
            for i in range(steps_per_turn):  # traced one by one: a turn of TensorFlow's loop costs 60 us
                part = tf.nest.map_structure(lambda t: t[turn + i], parts)  # noqa: B023  # traced at once
                loss, gradients = strategy.run(one_step, args=(part, rates[turn + i], gradients))
                losses.append(strategy.reduce(SUM, loss, axis=None))
            total += tf.add_n(losses)
        return total / tf.cast(tf.size(rates) * settings.batch_size, tf.float32)

    run: Callable[[Any, Any], tf.Tensor] = run_steps
    return run
