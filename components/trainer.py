"""The Trainer: from TFX's files to a trained and exported model. The loop is in training_loop.py, a step of it in
training_step.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
import tensorflow_transform as tft

from components.common import contract
from components.common.settings import TrainSettings
from components.training import distribution, export
from components.training.checkpoints import Checkpoints, run_key
from components.training.input_pipeline import PixelScale, Source, load_eval_split, load_train_split, pixel_scale
from components.training.loop import Point, evaluate, train
from components.validation.model_signature import Takes, write_takes
from components.versions.weights import weights_sha256

log = logging.getLogger(__name__)

# A checkpoint is of no use to other code: these decide the weights.
SOURCE: Final = ("augment.py", "model.py", "optimizers.py", "training_data.py", "training_loop.py", "training_step.py")


def run_fn(fn_args: Any) -> None:
    """TFX entry point: load, train, export.

    `fn_args.custom_config` holds {"train": TrainSettings as a dict, "data": DataSettings as a dict}.
    """
    settings, data = TrainSettings(**fn_args.custom_config["train"]), fn_args.custom_config["data"]
    distribution.divide_cores(settings.shards)
    strategy = distribution.create(settings.strategy)  # before anything else runs in TensorFlow
    seconds = Stopwatch()
    size, classes = (data["image_height"], data["image_width"]), data["classes"]
    log.info("reading examples")
    with seconds("read"):
        source = load_train_split(fn_args.train_files, size[0] * size[1], classes, settings)
        validation = load_eval_split(fn_args.eval_files, size[0] * size[1], classes)
    with seconds("transform_graph"):
        transform_output = tft.TFTransformOutput(fn_args.transform_output)
        scale = pixel_scale(transform_output, size[0] * size[1])
    model_folder = Path(fn_args.serving_model_dir).parent  # the Model artifact
    checkpoints = Checkpoints(_checkpoint_folder(settings, model_folder), _run_key(settings, source, scale, classes))

    with seconds("loop"), Reporter(Path(fn_args.model_run_dir), settings) as reporter:
        trained = train(source, validation, scale, size, classes, settings, strategy, checkpoints, reporter)
    with seconds("evaluate_train_split"):
        train_accuracy, _ = evaluate(trained.model, source.batches(), scale)
    log.info("exporting the SavedModel")
    with seconds("export"):
        export.save(trained.model, transform_output, size, fn_args.serving_model_dir)
        write_takes(model_folder, Takes(*size, classes))

    steps_done = settings.steps - trained.resumed_at_step
    digest = weights_sha256({name: v.numpy() for name, v in trained.model.named_weights().items()})
    validated = [point for point in trained.history if point.eval_accuracy is not None]
    chosen = max(validated, key=lambda p: p.eval_accuracy or 0.0) if settings.keep == "best" else validated[-1]
    results = {
        "train_accuracy": train_accuracy,
        "eval_accuracy": chosen.eval_accuracy,
        "weights_sha256": digest,
        "exported_step": chosen.step,
        "resumed_at_step": trained.resumed_at_step,
        "train_examples": source.examples,
        "loop_seconds": seconds.parts["loop"],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "steps_per_second": steps_done / seconds.parts["loop"],
        "seconds": seconds.parts,
        "settings": asdict(settings),
        "history": [asdict(point) for point in trained.history],
    }
    for folder in (Path(fn_args.model_run_dir), model_folder):
        (folder / contract.HISTORY_FILE).write_text(json.dumps(results, indent=1))
    checkpoints.remove()
    resumed = f", resumed at step {trained.resumed_at_step}" if trained.resumed_at_step else ""
    log.info("weights %s", digest)
    log.info(
        "%d steps, %.0f a second, eval accuracy %.4f%s",
        settings.steps,
        results["steps_per_second"],
        chosen.eval_accuracy,
        resumed,
    )


class Stopwatch:
    """Wall seconds by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.parts[part] = round(time.monotonic() - started, 3)


class Reporter:
    """Tells the log (and so the live table) and TensorBoard about each new point."""

    def __init__(self, folder: Path, settings: TrainSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = tf.summary.create_file_writer(str(folder))
        self._steps = settings.steps
        self._eval_accuracy = ""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def __call__(self, point: Point, steps_per_second: float) -> None:
        if point.eval_accuracy is not None:
            self._eval_accuracy = f"eval accuracy {point.eval_accuracy:.4f}, "
        left = (self._steps - point.step) / steps_per_second
        log.info(
            "step %d of %d, loss %.4f, %s%.0f steps/s, %.0f s left",
            point.step,
            self._steps,
            point.loss,
            self._eval_accuracy,
            steps_per_second,
            left,
        )
        with self._writer.as_default(step=point.step):
            for name, value in asdict(point).items():
                if name != "step" and value is not None:
                    write_scalar(name, value)
            write_scalar("steps_per_second", steps_per_second)


def write_scalar(name: str, value: float) -> None:
    """tf.summary.scalar, which since TensorFlow 2.21 needs the package tensorboard even to write."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
    )
    tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)


def _checkpoint_folder(settings: TrainSettings, model_folder: Path) -> Path:
    """Beside the folders of the executions, `<node>/model/<execution>`: a rerun is another execution."""
    return Path(settings.checkpoint_folder) if settings.checkpoint_folder else model_folder.parents[1] / "checkpoints"


def _run_key(settings: TrainSettings, source: Source, scale: PixelScale, classes: int) -> str:
    here = Path(__file__).parent
    return run_key(
        asdict(settings),
        data=source.digest,
        order=type(source).__name__,
        scale=hashlib.sha256(scale.scale.tobytes() + scale.offset.tobytes()).hexdigest(),
        classes=classes,
        source=[hashlib.sha256((here / name).read_bytes()).hexdigest() for name in SOURCE],
        tensorflow=tf.__version__,
    )
