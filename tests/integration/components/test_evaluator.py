"""The Evaluator's executor with real TFMA: a candidate is compared with its baseline by example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, channel, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import path_utils

from components.common import contract
from components.common.settings import GateSettings
from components.evaluator import Evaluator, Executor
from components.example_gen import to_examples
from components.validation import reference_predictions
from components.validation.verdict import AGAINST_BASELINE, Verdict
from pipeline.beam import BeamSettings, pipeline_args

COUNT, SIZE, CLASSES = 400, 4, 4


class ReadsPixel(tf.Module):
    """Predicts the class that one pixel of the image names."""

    def __init__(self, pixel: int) -> None:
        super().__init__()
        self.pixel = tf.Variable(pixel)

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE], tf.uint8, contract.IMAGES)])
    def images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {contract.PROBABILITIES: self.scores(tf.reshape(images, [-1, SIZE * SIZE]))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, contract.EXAMPLES)])
    def examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {contract.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return {contract.SCORES: self.scores(tf.io.decode_raw(parsed[contract.IMAGE], tf.uint8))}

    def scores(self, pixels: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(tf.gather(pixels, self.pixel, axis=1), CLASSES)


def save(artifact: Any, pixel: int) -> None:
    model = ReadsPixel(pixel)
    signatures = {contract.SERVING_DEFAULT: model.images, contract.SERVING_EXAMPLES: model.examples}
    tf.saved_model.save(model, path_utils.serving_model_dir(artifact.uri), signatures=signatures)


def evaluate(folder: Path, *, worse: int, better: int, **settings: float) -> tuple[Verdict, bool, Path]:
    """Evaluate a candidate that loses `worse` and gains `better` of COUNT images against its baseline.

    Returns:
        The verdict, whether TFX's blessing says the same, and the folder of the evaluation.
    """
    labels = (np.arange(COUNT) % CLASSES).astype(np.uint8)
    images = np.zeros((COUNT, SIZE * SIZE), np.uint8)
    images[:, 0] = images[:, 1] = labels
    images[:worse, 0] = (labels[:worse] + 1) % CLASSES  # the candidate's
    images[worse : worse + better, 1] = (labels[worse : worse + better] + 1) % CLASSES  # the baseline's

    kinds = {keys.EXAMPLES_KEY: standard_artifacts.Examples, keys.MODEL_KEY: standard_artifacts.Model,
             keys.BASELINE_MODEL_KEY: standard_artifacts.Model, keys.EVALUATION_KEY: standard_artifacts.ModelEvaluation,
             keys.BLESSING_KEY: standard_artifacts.ModelBlessing}  # fmt: skip
    found = {key: kind() for key, kind in kinds.items()}
    for key, artifact in found.items():
        artifact.uri = str(folder / key)
    found[keys.EXAMPLES_KEY].split_names = artifact_utils.encode_split_names([contract.TEST_SPLIT])
    records = Path(artifact_utils.get_split_uri([found[keys.EXAMPLES_KEY]], contract.TEST_SPLIT), "records.gz")
    records.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(records), "GZIP") as writer:
        for example in to_examples(images.reshape(-1, SIZE, SIZE), labels):
            writer.write(example)
    save(found[keys.MODEL_KEY], 0)
    save(found[keys.BASELINE_MODEL_KEY], 1)

    channels = [channel.Channel(type=kind) for kind in list(kinds.values())[:3]]
    node = Evaluator(*channels, GateSettings(min_accuracy=0.5, min_class_recall=0.5, **settings), ["a", "b", "c", "d"])
    inputs, outputs = list(kinds)[:3], list(kinds)[3:]
    context = Executor.Context(beam_pipeline_args=pipeline_args(BeamSettings()), tmp_dir=str(folder / "tmp"))
    Executor(context).Do(
        {key: [found[key]] for key in inputs}, {key: [found[key]] for key in outputs}, node.exec_properties
    )
    blessing = Path(found[keys.BLESSING_KEY].uri)
    verdict = Verdict.read(blessing / contract.VERDICT_FILE)
    said = found[keys.BLESSING_KEY].get_int_custom_property("blessed")
    same = verdict.blessed == (said == 1) == (blessing / "BLESSED").exists() != (blessing / "NOT_BLESSED").exists()
    return verdict, same, Path(found[keys.EVALUATION_KEY].uri)


@pytest.mark.parametrize(
    ("worse", "better", "settings", "refused"),
    [
        # Of TFMA's thresholds alone, the first would be blessed, the second refused.
        (24, 10, {"max_accuracy_drop": 1.0, "significance": 0.05}, True),
        (12, 10, {"max_accuracy_drop": 0.0, "significance": 0.05}, False),
    ],
)
def test_with_significance_the_gate_refuses_what_is_worse_beyond_chance(
    tmp_path: Path, worse: int, better: int, settings: dict[str, float], refused: bool
) -> None:
    verdict, same, evaluation = evaluate(tmp_path, worse=worse, better=better, **settings)
    assert [check.metric for check in verdict.checks if not check.passed] == [AGAINST_BASELINE] * refused
    assert verdict.blessed is not refused
    assert same
    assert (verdict.metrics["against"]["worse"], verdict.metrics["against"]["better"]) == (worse, better)
    (against,) = (check for check in verdict.checks if check.metric == AGAINST_BASELINE)
    assert (against.margin < 0) == refused
    assert {check.class_name for check in verdict.checks if check.metric == "recall"} == set("abcd")
    predictions = reference_predictions.read(evaluation)
    assert (predictions.baseline_classes != predictions.labels).sum() == better
