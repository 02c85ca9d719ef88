"""The training loop: steps, validation and checkpoints, until the last step or a signal. A step is in step.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from components.common import signals
from components.common.errors import UserError
from components.common.settings import TrainSettings
from components.training import distribution, optimizers
from components.training.checkpoints import Checkpoint, Checkpoints
from components.training.input_pipeline import PixelScale, Source, Split
from components.training.model import MLP
from components.training.state import State
from components.training.step import steps_function

STEPS_PER_CALL: Final = 250  # steps inside one tf.function call, which costs 1.5 ms; progress is reported after each
MAX_UNROLLED_STEPS: Final = 5  # per loop iteration; more take longer to trace than they save in 3000 steps


@dataclass(frozen=True)
class Point:
    """One entry of the history.

    Attributes:
        step: steps done.
        loss: mean cross-entropy per training example since the previous entry.
        learning_rate: rate of the last step.
        eval_accuracy, eval_loss: on the eval split, 0..1 and mean cross-entropy; None if not evaluated at this step.
    """

    step: int
    loss: float
    learning_rate: float
    eval_accuracy: float | None = None
    eval_loss: float | None = None


@dataclass(frozen=True)
class Trained:
    """The network to export, the history, and the step at which the run resumed (0 if it did not)."""

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
    """Train to the last step, from the checkpoint if there is one.

    Args:
        size: (height, width) of an image in pixels.
        checkpoints: None disables checkpoints.
        report: called at least every STEPS_PER_CALL steps, with the new point and the steps per second.

    Raises:
        UserError: the loss is no longer finite.
    """
    with strategy.scope():
        state = State.create((size[0] * size[1], *settings.hidden_layers, classes), settings)
    history = _restore(state, checkpoints, strategy)
    first = counted_from = step = int(state.step.numpy())
    run_steps = steps_function(state, source, scale, size, settings, strategy, unrolled_steps(settings, first))
    since = time.monotonic()
    with signals.postponed() as received:
        while step < settings.steps and not received:
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
                accuracy, eval_loss = evaluate(state.model, validation.batches(), scale)
                point = Point(step, loss, float(rates[-1]), accuracy, eval_loss)
                state.remember_best(accuracy)
            history.append(point)
            report(point, (step - counted_from) / (time.monotonic() - since))
            if counted_from == first:  # the first call traces and compiles: not counted
                counted_from, since = step, time.monotonic()
            every = settings.checkpoint_every_steps
            if every and (step % every == 0 or received) and step < settings.steps:
                _save(state, history, checkpoints, strategy)
    return Trained(state.best or state.model, history, first)


def next_stop(step: int, settings: TrainSettings) -> int:
    """The end of the call that starts at `step`: the next step with a report, an evaluation or a checkpoint."""
    every = (STEPS_PER_CALL, settings.eval_every_steps, settings.checkpoint_every_steps)
    return min(settings.steps, *((step // n + 1) * n for n in every if n))


def unrolled_steps(settings: TrainSettings, first: int = 0) -> int:
    """Steps per iteration of the loop inside a call: a divisor of the number of steps in any call.

    Args:
        first: the step that the run starts at; it may be a multiple of another checkpoint interval than today's.
    """
    every = (STEPS_PER_CALL, settings.eval_every_steps, settings.checkpoint_every_steps)
    common = math.gcd(settings.steps, first, *every)
    return max(n for n in range(1, MAX_UNROLLED_STEPS + 1) if common % n == 0)


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


def _restore(state: State, checkpoints: Checkpoints | None, strategy: tf.distribute.Strategy) -> list[Point]:
    """Load the checkpoint into the variables, if there is one; returns its history."""
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
    """Write a checkpoint; with several workers, only the chief does."""
    if checkpoints and distribution.is_chief(strategy):
        arrays = {name: variable.numpy() for name, variable in state.variables.items()}
        checkpoints.save(Checkpoint(history[-1].step, arrays, [asdict(point) for point in history]))
