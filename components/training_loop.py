"""The training loop, written out with tf.GradientTape: top to bottom, what happens to a batch."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import tensorflow as tf

from components import augment, distribution, interruption, optimizers
from components.checkpoints import Checkpoint, Checkpoints
from components.errors import UserError
from components.model import MLP
from components.settings import TrainSettings
from components.training_data import PixelScale, Source, Split

STEPS_PER_CALL: Final = 100  # steps inside one tf.function call: Python's share becomes negligible
SUM: Final = tf.distribute.ReduceOp.SUM


@dataclass(frozen=True)
class Point:
    """One entry of the history.

    Attributes:
        step: steps done.
        loss: mean cross-entropy per training example since the entry before, label smoothing included.
        learning_rate: of the last step.
        eval_accuracy, eval_loss: on the eval split, where it was validated: 0..1, and mean cross-entropy.
    """

    step: int
    loss: float
    learning_rate: float
    eval_accuracy: float | None = None
    eval_loss: float | None = None


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


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the network to export, the history, and where it went on from (0: from the start)."""

    model: MLP
    history: list[Point]
    resumed_at_step: int


def train(
    source: Source,
    validation: Split,
    scale: PixelScale,
    size: tuple[int, int],
    classes: int,
    settings: TrainSettings,
    strategy: tf.distribute.Strategy,
    checkpoints: Checkpoints | None,
    report: Callable[[Point, float], None],
) -> Trained:
    """Run the loop to its end, from the last checkpoint if there is one.

    Args:
        size: (height, width) of an image in pixels.
        checkpoints: None to write and read none.
        report: called every STEPS_PER_CALL steps at the latest, with the new point and the steps per second.

    Raises:
        UserError: the loss is no longer finite.
    """
    with strategy.scope():
        state = State.create((size[0] * size[1], *settings.hidden_layers, classes), settings)
    run_steps = steps_function(state, source, scale, size, settings, strategy)
    history = _restore(state, checkpoints, strategy)
    first = step = int(state.step.numpy())
    since = time.monotonic()
    with interruption.postponed() as signals:
        while step < settings.steps and not signals:
            stop = next_stop(step, settings)
            rates = optimizers.learning_rates(settings, step, stop)  # float32 [steps]
            loss = float(run_steps(source.take(step, stop), rates))
            step = stop
            if not math.isfinite(loss):
                raise UserError(
                    f"Training diverged: the loss is {loss} after {step} steps",
                    f"Lower the rate: --set train.learning_rate={settings.learning_rate / 10:g}. Nothing was exported.",
                )
            point = Point(step, loss, float(rates[-1]))
            if step % settings.eval_every_steps == 0 or step == settings.steps:
                accuracy, eval_loss = evaluate(state.result, validation.batches(), scale)
                point = Point(step, loss, float(rates[-1]), accuracy, eval_loss)
                _remember_best(state, accuracy)
            history.append(point)
            report(point, (step - first) / (time.monotonic() - since))
            every = settings.checkpoint_every_steps
            if every and (step % every == 0 or signals) and step < settings.steps:
                _save(state, history, checkpoints, strategy)
    return Trained(state.best or state.result, history, first)


def steps_function(
    state: State,
    source: Source,
    scale: PixelScale,
    size: tuple[int, int],
    settings: TrainSettings,
    strategy: tf.distribute.Strategy,
) -> Callable[[Any, Any], tf.Tensor]:
    """The graph that runs many steps: (what source.take answers, rates float32 [steps]) -> mean loss."""
    share = distribution.share_of(settings.batch_size, strategy)  # examples per replica
    bounds = np.linspace(0, share, min(settings.shards, share) + 1).astype(int).tolist()
    targets = tf.one_hot(tf.range(state.model.biases[-1].shape[0]), state.model.biases[-1].shape[0])
    targets = targets * (1.0 - settings.label_smoothing) + settings.label_smoothing / targets.shape[0]
    factor = float(settings.batch_size) if settings.loss_reduction == "sum" else 1.0
    variables = [*state.model.weights, *state.model.biases]
    # One number for all pixels, as usual, is twice as fast as one for each.
    pixel_scale, pixel_offset = (v[0] if (v == v[0]).all() else v for v in (scale.scale, scale.offset))

    def gradients_of(raw: tf.Tensor, labels: tf.Tensor, draws: augment.Draws | None) -> tuple[tf.Tensor, Any]:
        """A shard's part of the batch's mean loss, and its gradients, one per variable."""
        # float32 [shard, pixels], 0..255
        pixels = augment.augment(raw, draws, size, settings) if draws else tf.cast(raw, tf.float32)
        x = pixels * pixel_scale + pixel_offset  # [shard, pixels], as the Transform graph answers
        y = tf.gather(targets, labels)  # [shard, classes], rows sum to 1
        with tf.GradientTape() as tape:
            logits = state.model(x)  # [shard, classes]
            losses = tf.nn.softmax_cross_entropy_with_logits(y, logits)  # [shard]
            loss = tf.reduce_sum(losses) / settings.batch_size
            objective = loss * factor
        return loss, tape.gradient(objective, variables)

    def one_step(part: Any, rate: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        first = tf.cast(replica.replica_id_in_sync_group, tf.int32) * share
        draws = None
        if augment.is_wanted(settings):
            seed = tf.stack([settings.seed, tf.cast(state.step, tf.int32)])
            draws = augment.draw(settings.batch_size, seed)  # of the whole batch: workers share it
        shards = []
        for start, stop in itertools.pairwise(bounds):  # side by side: they do not depend on each other
            begin, end = first + start, first + stop
            raw, labels = source.pick(tf.nest.map_structure(lambda t: t[begin:end], part))  # noqa: B023  # called at once
            raw = tf.ensure_shape(raw, [stop - start, size[0] * size[1]])  # uint8 [shard, pixels], 0..255
            own = augment.Draws(draws.affine[:, begin:end], draws.elastic[begin:end]) if draws else None
            shards.append(gradients_of(raw, labels, own))
        loss = tf.add_n([loss for loss, _ in shards])  # this replica's part of the batch's mean
        gradients = [tf.add_n(parts) for parts in zip(*(found for _, found in shards), strict=True)]
        if strategy.num_replicas_in_sync > 1:
            gradients = replica.all_reduce(SUM, gradients)
        state.optimizer.apply(gradients, rate)
        step = state.step.assign_add(1)
        if state.result is not state.model:
            # The average of few steps is no average: tf.train.ExponentialMovingAverage's num_updates.
            done = tf.cast(step, tf.float32)
            decay = tf.minimum(settings.ema_decay, (1.0 + done) / (10.0 + done))
            averages = [*state.result.weights, *state.result.biases]
            for average, variable in zip(averages, variables, strict=True):
                average.assign_add((1.0 - decay) * (variable - average))
        return loss

    @tf.function(input_signature=[source.spec, tf.TensorSpec([None], tf.float32)])
    def run_steps(parts: Any, rates: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for i in tf.range(tf.size(rates)):
            part = tf.nest.map_structure(lambda t: t[i], parts)  # noqa: B023  # traced at once
            loss = strategy.run(one_step, args=(part, rates[i]))
            total += strategy.reduce(SUM, loss, axis=None)
        return total / tf.cast(tf.size(rates), tf.float32)

    run: Callable[[Any, Any], tf.Tensor] = run_steps
    return run


def next_stop(step: int, settings: TrainSettings) -> int:
    """Where the call that starts at `step` ends: at the next multiple of what happens every so many steps."""
    every = (STEPS_PER_CALL, settings.eval_every_steps, settings.checkpoint_every_steps)
    return min(settings.steps, *((step // n + 1) * n for n in every if n))


def evaluate(model: MLP, batches: Any, scale: PixelScale) -> tuple[float, float]:
    """Accuracy 0..1 and mean cross-entropy of a network on an iterable of Splits."""
    right, loss, count = 0, 0.0, 0
    for images, labels in batches:
        logits = model(images.astype(np.float32) * scale.scale + scale.offset)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        right += int(np.sum(np.argmax(logits.numpy(), axis=1) == labels))
        loss += float(tf.reduce_sum(losses))
        count += len(labels)
    return right / count, loss / count


def _remember_best(state: State, accuracy: float) -> None:
    if state.best is not None and accuracy > float(state.best_accuracy.numpy()):
        state.best_accuracy.assign(accuracy)
        for name, variable in state.best.named_weights().items():
            variable.assign(state.result.named_weights()[name].numpy())


def _restore(state: State, checkpoints: Checkpoints | None, strategy: tf.distribute.Strategy) -> list[Point]:
    """Put the last checkpoint into the variables, if there is one; returns its history."""
    like = {name: variable.numpy() for name, variable in state.variables.items()}
    found = checkpoints.load(like) if checkpoints else None
    if found:
        for name, variable in state.variables.items():
            variable.assign(found.arrays[name])
    distribution.copy_from_first(strategy, state.variables.values())
    return [Point(**entry) for entry in found.history] if found else []


def _save(
    state: State, history: list[Point], checkpoints: Checkpoints | None, strategy: tf.distribute.Strategy
) -> None:
    """Write a checkpoint; of several workers only the chief does."""
    if checkpoints and distribution.is_chief(strategy):
        arrays = {name: variable.numpy() for name, variable in state.variables.items()}
        checkpoints.save(Checkpoint(history[-1].step, arrays, [asdict(point) for point in history]))
