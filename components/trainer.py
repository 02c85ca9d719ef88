"""The Trainer: a hand-written tf.GradientTape loop over the MLP."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from components import contract, export
from components.errors import UsageError, UserError
from components.model import MLP
from components.optimizers import SGD, AdamW, Optimizer
from components.settings import TrainSettings
from components.takes import Takes, write_takes
from components.training_data import Split, load_split

log = logging.getLogger(__name__)

STEPS_PER_CALL: Final = 100  # steps inside one tf.function call: Python's share becomes negligible


def train(model: MLP, split: Split, settings: TrainSettings, report: Callable[[int, float], None]) -> None:
    """Run the loop; `model` changes in place.

    Args:
        split: the whole train split, resident in memory.
        report: called with (steps done, mean loss of the last call) every STEPS_PER_CALL steps.

    Raises:
        UserError: the loss is no longer finite.
    """
    pixels, labels = tf.constant(split.pixels), tf.constant(split.labels)  # [examples, pixels], [examples]
    variables = [*model.weights, *model.biases]
    optimizer: Optimizer = AdamW(variables, settings.weight_decay) if settings.optimizer == "adamw" else SGD(variables)

    @tf.function(reduce_retracing=True)
    def run_steps(batches: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:  # int32 [steps, batch], float32 [steps]
        total = 0.0
        for step in tf.range(tf.shape(batches)[0]):
            x = tf.gather(pixels, batches[step])  # [batch, pixels]
            y = tf.gather(labels, batches[step])  # [batch]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                logits = model(x)  # [batch, classes]
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            optimizer.apply(tape.gradient(loss, variables), rates[step])
            total += loss
        return total / tf.cast(tf.shape(batches)[0], tf.float32)

    batches = batch_order(len(split.labels), settings)
    rates = learning_rates(settings)
    for start in range(0, settings.steps, STEPS_PER_CALL):
        stop = min(start + STEPS_PER_CALL, settings.steps)
        loss = float(run_steps(batches[start:stop], rates[start:stop]))
        if not math.isfinite(loss):
            raise UserError(
                f"Training diverged: the loss is {loss} after {stop} steps",
                f"Lower the rate: --set train.learning_rate={settings.learning_rate / 10:g}. Nothing was exported.",
            )
        report(stop, loss)


def batch_order(examples: int, settings: TrainSettings) -> npt.NDArray[np.int32]:
    """Indices int32 [steps, batch_size]: each epoch a fresh permutation, its incomplete last batch left out."""
    if settings.batch_size > examples:
        raise UsageError(f"train.batch_size is {settings.batch_size}, but the train split has only {examples} examples")
    generator = np.random.default_rng(settings.seed)
    per_epoch = examples // settings.batch_size
    epochs = [
        generator.permutation(examples)[: per_epoch * settings.batch_size].reshape(per_epoch, settings.batch_size)
        for _ in range(-(-settings.steps // per_epoch))
    ]
    return np.concatenate(epochs)[: settings.steps].astype(np.int32)


def learning_rates(settings: TrainSettings) -> npt.NDArray[np.float32]:
    """Rate of every step, float32 [steps]: linear warm-up, then half a cosine to 0; constant for SGD."""
    if settings.optimizer == "sgd":
        return np.full(settings.steps, settings.learning_rate, np.float32)
    step = np.arange(settings.steps)
    warm_up = np.minimum(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = np.clip((step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps), 0.0, 1.0)
    rates: npt.NDArray[np.float32] = settings.learning_rate * warm_up * 0.5 * (1 + np.cos(np.pi * done))
    return rates.astype(np.float32)


def accuracy(model: MLP, split: Split) -> float:
    """Share of a split that the model gets right, 0..1."""
    right = 0
    for start in range(0, len(split.labels), 10_000):
        logits = model(tf.constant(split.pixels[start : start + 10_000]))
        right += int(np.sum(np.argmax(logits.numpy(), axis=1) == split.labels[start : start + 10_000]))
    return right / len(split.labels)


def run_fn(fn_args: Any) -> None:
    """TFX entry point: load, train, export.

    `fn_args.custom_config` holds {"train": TrainSettings as a dict, "data": DataSettings as a dict}.
    """
    settings = TrainSettings(**fn_args.custom_config["train"])
    data = fn_args.custom_config["data"]
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    log.info("reading examples")
    train_split = load_split(fn_args.train_files, transform_output)
    eval_split = load_split(fn_args.eval_files, transform_output)
    model = MLP((train_split.pixels.shape[1], *settings.hidden_layers, data["classes"]), settings.seed)

    history: list[dict[str, float]] = []
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        seconds = time.monotonic() - started
        history.append({"step": step, "loss": loss})
        log.info("step %d of %d, loss %.4f, %.0f steps/s", step, settings.steps, loss, step / seconds)

    train(model, train_split, settings, report)
    seconds = time.monotonic() - started
    eval_accuracy = accuracy(model, eval_split)
    results = {
        "train_accuracy": accuracy(model, train_split),
        "eval_accuracy": eval_accuracy,
        "loop_seconds": seconds,
        "steps_per_second": settings.steps / seconds,
        "settings": asdict(settings),
        "history": history,
    }
    log.info("exporting the SavedModel")
    Path(fn_args.model_run_dir).mkdir(parents=True, exist_ok=True)
    Path(fn_args.model_run_dir, contract.HISTORY_FILE).write_text(json.dumps(results, indent=1))
    export.save(model, transform_output, (data["image_height"], data["image_width"]), fn_args.serving_model_dir)
    takes = Takes(data["image_height"], data["image_width"], data["classes"])
    write_takes(Path(fn_args.serving_model_dir).parent, takes)
    log.info("%d steps, %.0f a second, eval accuracy %.4f", settings.steps, settings.steps / seconds, eval_accuracy)
