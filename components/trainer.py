"""The Trainer: reads TFX's files, trains and exports the model. The loop and the step are in components/training/."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.component import Trainer as TfxTrainer
from tfx.proto import trainer_pb2
from tfx.types.channel import BaseChannel

from components.common import contract
from components.common.settings import DataSettings, TrainSettings
from components.common.source_key import source_sha256
from components.training import distribution, export
from components.training.checkpoints import Checkpoints, run_key
from components.training.input_pipeline import PixelScale, Source, load_eval_split, load_train_split, pixel_scale
from components.training.loop import Point, Trained, evaluate, train
from components.training.progress import Reporter, Stopwatch
from components.versions.weights import weights_sha256

log = logging.getLogger(__name__)

WEIGHTS_MODULE: Final = "components.training.loop"  # with its imports, all the code that affects the weights


def checkpoint_folder(settings: TrainSettings, model_folder: Path) -> Path:
    """By default `<node>/checkpoints`: a rerun is another execution, with another `<node>/model/<execution>`."""
    return Path(settings.checkpoint_folder) if settings.checkpoint_folder else model_folder.parents[1] / "checkpoints"


def checkpoint_key(settings: TrainSettings, source: Source, scale: PixelScale, classes: int) -> str:
    """A hash of everything that affects the weights."""
    return run_key(
        asdict(settings),
        data=source.digest,
        order=type(source).__name__,
        scale=hashlib.sha256(scale.scale.tobytes() + scale.offset.tobytes()).hexdigest(),
        classes=classes,
        source=source_sha256([WEIGHTS_MODULE]),
        tensorflow=tf.__version__,
    )


def exported_point(history: list[Point], settings: TrainSettings) -> Point:
    """The validated point whose weights are exported."""
    validated = [point for point in history if point.eval_accuracy is not None]
    return max(validated, key=lambda p: p.eval_accuracy or 0.0) if settings.keep == "best" else validated[-1]


def summary(
    trained: Trained, settings: TrainSettings, examples: int, train_accuracy: float, seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of history.json; `seconds` is the wall time of each part of the run."""
    exported = exported_point(trained.history, settings)
    steps_done = settings.steps - trained.resumed_at_step
    return {
        "train_accuracy": train_accuracy,
        "eval_accuracy": exported.eval_accuracy,
        "weights_sha256": weights_sha256({name: v.numpy() for name, v in trained.model.named_weights().items()}),
        "exported_step": exported.step,
        "resumed_at_step": trained.resumed_at_step,
        "train_examples": examples,
        "loop_seconds": seconds["loop"],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "steps_per_second": steps_done / seconds["loop"],
        "seconds": seconds,
        "settings": asdict(settings),
        "history": [asdict(point) for point in trained.history],
    }


def run_fn(fn_args: Any) -> None:
    """TFX entry point: load, train, export.

    `fn_args.custom_config` is {"train": TrainSettings as a dict, "data": DataSettings.of_examples()}.
    """
    settings, data = TrainSettings(**fn_args.custom_config["train"]), DataSettings(**fn_args.custom_config["data"])
    distribution.divide_cores(settings.shards)
    strategy = distribution.create(settings.strategy)  # must come before any other TensorFlow operation
    size, classes = (data.image_height, data.image_width), data.classes
    timed = Stopwatch()
    log.info("reading examples")
    with timed("read"):
        source = load_train_split(fn_args.train_files, data.pixels, classes, settings)
        validation = load_eval_split(fn_args.eval_files, data.pixels, classes)
    with timed("transform_graph"):
        transform_output = tft.TFTransformOutput(fn_args.transform_output)
        scale = pixel_scale(transform_output, data.pixels)
    model_folder, run_folder = Path(fn_args.serving_model_dir).parent, Path(fn_args.model_run_dir)
    key = checkpoint_key(settings, source, scale, classes)
    checkpoints = Checkpoints(checkpoint_folder(settings, model_folder), key)

    with timed("loop"), Reporter(run_folder, settings.steps) as reporter:
        trained = train(source, validation, scale, size, classes, settings, strategy, checkpoints, reporter)
    with timed("evaluate_train_split"):
        train_accuracy, _ = evaluate(trained.model, source.batches(), scale)
    log.info("exporting the SavedModel")
    with timed("export"):
        export.save(trained.model, transform_output, size, fn_args.serving_model_dir)

    results = summary(trained, settings, source.examples, train_accuracy, timed.seconds)
    for folder in (run_folder, model_folder):
        (folder / contract.HISTORY_FILE).write_text(json.dumps(results, indent=1))
    checkpoints.remove()
    log.info("weights %s", results["weights_sha256"])
    log.info(
        "%d steps, %.0f a second, eval accuracy %.4f%s",
        settings.steps,
        results["steps_per_second"],
        results["eval_accuracy"],
        f", resumed at step {trained.resumed_at_step}" if trained.resumed_at_step else "",
    )


class Trainer(TfxTrainer):
    """TFX component: Examples, TransformGraph and Schema in, Model and ModelRun out. Runs `run_fn`."""

    def __init__(
        self,
        examples: BaseChannel,
        transform_graph: BaseChannel,
        schema: BaseChannel,
        data: DataSettings,
        settings: TrainSettings,
    ) -> None:
        super().__init__(
            run_fn="components.trainer.run_fn",
            examples=examples,
            transform_graph=transform_graph,
            schema=schema,
            train_args=trainer_pb2.TrainArgs(splits=[contract.TRAIN_SPLIT], num_steps=settings.steps),
            eval_args=trainer_pb2.EvalArgs(splits=[contract.EVAL_SPLIT]),
            custom_config={"train": asdict(settings), "data": data.of_examples()},
        )
