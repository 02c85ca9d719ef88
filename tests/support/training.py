"""A small training run for tests. As a program: a process that can be killed, or one of several workers.

python -m tests.support.training CHECKPOINTS WEIGHTS.npz '{"steps": 500}'

It prints one line per point, then the step that it resumed at and the weights' SHA-256.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.common.settings import TrainSettings
from components.training import distribution
from components.training.checkpoints import Checkpoints, run_key
from components.training.input_pipeline import PixelScale, Resident, Split
from components.training.loop import Point, Trained, train
from components.versions.weights import weights_sha256
from tests.support.synthetic import digits

SIZE = 12
SCALE = PixelScale(np.full(SIZE * SIZE, 1 / 255, np.float32), np.zeros(SIZE * SIZE, np.float32))
# Compiling takes most of a small run's time. It takes less without augmentation, and if the number of steps is not a
# multiple of MAX_UNROLLED_STEPS.
SMALL = {
    "steps": 151,
    "batch_size": 64,
    "hidden_layers": (32,),
    "learning_rate": 0.02,
    "warmup_steps": 5,
    "augment_shift_pixels": 0.0,
    "augment_rotation_degrees": 0.0,
    "augment_scale": 0.0,
    "augment_shear": 0.0,
    "augment_elastic_pixels": 0.0,
}
AUGMENTED = {
    "augment_shift_pixels": 0.2,
    "augment_rotation_degrees": 1.0,
    "augment_scale": 0.01,
    "augment_shear": 0.01,
    "augment_elastic_pixels": 0.1,
}


def small_settings(**more: Any) -> TrainSettings:
    return TrainSettings(**{**SMALL, **more})


def split(count: int, seed: int) -> Split:
    images, labels = digits(count, seed, SIZE)
    return Split(images.reshape(count, -1), labels.astype(np.int64))


def run(
    settings: TrainSettings,
    checkpoints: Checkpoints | None = None,
    scale: PixelScale = SCALE,
    report: Callable[[Point, float], None] = lambda point, rate: None,
) -> Trained:
    strategy = distribution.create(settings.strategy)  # before anything else uses TensorFlow
    source = Resident(split(600, 0), settings)
    return train(source, split(200, 1), scale, (SIZE, SIZE), 10, settings, strategy, checkpoints, report)


def arrays(trained: Trained) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in trained.model.named_weights().items()}


def main() -> None:
    folder, weights, given = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    if devices := given.pop("devices", 0):
        virtual = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], virtual)
    checkpoints = Checkpoints(folder, run_key({}))
    settings = small_settings(**{**AUGMENTED, **given})
    trained = run(settings, checkpoints, report=lambda point, rate: print(point.step, point.loss, flush=True))
    np.savez(weights, **arrays(trained))  # type: ignore[arg-type]
    print(f"resumed {trained.resumed_at_step}", weights_sha256(arrays(trained)), flush=True)


if __name__ == "__main__":
    main()
