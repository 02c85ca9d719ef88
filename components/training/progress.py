"""Training progress in the log (which the live table shows) and TensorBoard, and the duration of each part."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import tensorflow as tf

from components.training.loop import Point

log = logging.getLogger(__name__)


class Stopwatch:
    """Measures the wall seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - started, 3)


class Reporter:
    """Writes each new point of the history to the log and to TensorBoard.

    Args:
        folder: for TensorBoard files; created if missing.
        steps: number of steps of the whole run.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = tf.summary.create_file_writer(str(folder))
        self._steps = steps
        self._eval_accuracy = ""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def __call__(self, point: Point, steps_per_second: float) -> None:
        if point.eval_accuracy is not None:
            self._eval_accuracy = f"eval accuracy {point.eval_accuracy:.4f}, "
        left_s = (self._steps - point.step) / steps_per_second
        log.info(
            "loss %.4f, %sstep %d of %d, %.0f steps/s, %.0f s left",
            point.loss,
            self._eval_accuracy,
            point.step,
            self._steps,
            steps_per_second,
            left_s,
            extra={"done": point.step, "total": self._steps},  # the live table shows them as a bar
        )
        with self._writer.as_default(step=point.step):
            for name, value in asdict(point).items():
                if name != "step" and value is not None:
                    _write_scalar(name, value)
            _write_scalar("steps_per_second", steps_per_second)


def _write_scalar(name: str, value: float) -> None:
    """Like tf.summary.scalar, which since TensorFlow 2.21 requires the package tensorboard even to write."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
    )
    tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
