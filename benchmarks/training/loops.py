"""The training loops that benchmarks/training/speed.py compares: same network, data, batch size and optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tensorflow as tf

from components.common.settings import UNBOUNDED_AUGMENTATIONS, TrainSettings
from components.training import distribution
from components.training.input_pipeline import PixelScale, Resident, Split
from components.training.loop import STEPS_PER_CALL, unrolled_steps
from components.training.state import State
from components.training.step import steps_function

SIZES: Final = (784, 128, 256, 10)
BATCH: Final = 256
RATE: Final = 0.1
NO_AUGMENTATION: Final = {"augment_scale": 0.0, **{f"augment_{kind}": 0.0 for kind in UNBOUNDED_AUGMENTATIONS}}

Loop = Callable[[int], None]  # runs this number of steps


def ours(data: Split, **more: Any) -> Loop:
    """Our step as the Trainer uses it; without augmentation unless `more` enables it."""
    chosen = {"optimizer": "sgd", "learning_rate": RATE, **NO_AUGMENTATION, **more}
    settings = TrainSettings(batch_size=BATCH, hidden_layers=SIZES[1:-1], **chosen)
    source, strategy = Resident(data, settings), distribution.create("none")
    scale = PixelScale(np.full(SIZES[0], 1 / 255, np.float32), np.zeros(SIZES[0], np.float32))
    state = State.create(SIZES, settings)
    run_steps = steps_function(state, source, scale, (28, 28), settings, strategy, unrolled_steps(settings))

    def loop(steps: int) -> None:
        for start in range(0, steps, STEPS_PER_CALL):
            float(run_steps(source.take(start, start + STEPS_PER_CALL), np.full(STEPS_PER_CALL, RATE, np.float32)))

    return loop


def notebook(data: Split) -> Loop:
    """The original notebook's loop: eager GradientTape, Keras's SGD, tf.data with shuffle and batch."""
    shapes = list(itertools.pairwise(SIZES))
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in shapes]
    biases = [tf.Variable(tf.zeros(shape[1:])) for shape in shapes]
    optimizer = tf.keras.optimizers.SGD(RATE)
    pixels = data.images.astype(np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((pixels, data.labels)).repeat().shuffle(5000).batch(BATCH).prefetch(1)

    def loop(steps: int) -> None:
        for x, y in batches.take(steps):
            with tf.GradientTape() as tape:
                hidden = x
                for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                    hidden = tf.sigmoid(hidden @ weight + bias)
                logits = hidden @ weights[-1] + biases[-1]
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            gradients = tape.gradient(loss, weights + biases)
            optimizer.apply_gradients(zip(gradients, weights + biases, strict=True))

    return loop


def keras_fit(data: Split, steps_per_execution: int) -> Loop:
    """Keras's `fit` on the same batches in memory."""
    layers = [tf.keras.layers.Dense(units, activation="sigmoid") for units in SIZES[1:-1]]
    model = tf.keras.Sequential([tf.keras.Input([SIZES[0]]), *layers, tf.keras.layers.Dense(SIZES[-1])])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(RATE), loss, steps_per_execution=steps_per_execution)
    pixels = data.images.astype(np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((pixels, data.labels)).shuffle(5000).batch(BATCH, drop_remainder=True)
    batches = batches.repeat().prefetch(tf.data.AUTOTUNE)

    def loop(steps: int) -> None:
        model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)

    return loop
