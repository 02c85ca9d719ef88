"""The evaluation: TFMA metrics over the test split, and the thresholds of the gate, which decide on the blessing."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.utils import json_utils, path_utils

from components.common import contract
from components.common.errors import InputError
from components.common.settings import GateSettings
from components.validation import model_signature, reference_predictions
from components.validation.gate import ACCURACY, calibration_error, checks, precisions
from components.validation.significance import paired
from components.validation.verdict import OVERALL, Check, Verdict, describe

log = logging.getLogger(__name__)
CONFUSION: Final = "multi_class_confusion_matrix_at_thresholds"
TOLERANCE: Final = 1e-9  # TFMA compares strictly, but a model exactly at the threshold passes
SAME_ACCURACY: Final = 1e-6  # TFMA counts in float32


def eval_config(settings: GateSettings) -> tfma.EvalConfig:
    """TFMA configuration: metrics overall and per class, thresholds for overall accuracy and each class's recall.

    With `significance`, TFMA has no threshold for the change of the accuracy: `checks` compares the models by example.
    """
    overall = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": settings.min_accuracy}),
        change_threshold=None
        if settings.significance
        else tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER,
            absolute={"value": -settings.max_accuracy_drop - TOLERANCE},
        ),
    )
    # Accuracy over the images of one class is that class's recall.
    recall = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": settings.min_class_recall})
    )
    per_digit = tfma.SlicingSpec(feature_keys=[contract.LABEL])
    accuracy = tfma.MetricConfig(
        class_name="SparseCategoricalAccuracy",
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=overall),
            config_pb2.PerSliceMetricThreshold(slicing_specs=[per_digit], threshold=recall),
        ],
    )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name=contract.SERVING_EXAMPLES,
                prediction_key=contract.SCORES,
                label_key=contract.LABEL,
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), per_digit],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
                    accuracy,
                    tfma.MetricConfig(class_name="MultiClassConfusionMatrixAtThresholds", config='"thresholds": [0.0]'),
                ]
            )
        ],
    )


class Executor(TfxExecutor):
    """TFMA's evaluation, and two files that can be read without TFMA.

    They are the verdict, in the blessing artifact, and the model's test predictions, in the evaluation artifact.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        baseline = input_dict.get(standard_component_specs.BASELINE_MODEL_KEY, [])
        if any(Path(model.uri, contract.ABSENT_FILE).exists() for model in baseline):
            input_dict = {k: v for k, v in input_dict.items() if k != standard_component_specs.BASELINE_MODEL_KEY}
        super().Do(input_dict, output_dict, exec_properties)
        folder = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        settings = GateSettings(**json.loads(exec_properties["settings"]))
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        has_baseline = bool(input_dict.get(standard_component_specs.BASELINE_MODEL_KEY))

        answers = _answers(model, input_dict, exec_properties)
        against = None
        if has_baseline:  # evaluated again, on these images: it may have been evaluated on others
            theirs = _answers(artifact_utils.get_single_instance(baseline), input_dict, exec_properties).classes
            against, answers = (
                paired(answers.labels, theirs, answers.classes),
                answers._replace(baseline_classes=theirs),
            )
        validation = tfma.load_validation_result(folder)
        failed = {
            (_slice_name(one.slice_key), _kind(failure))
            for one in validation.metric_validations_per_slice
            for failure in one.failures
        }
        result = tfma.load_eval_result(folder, model_name=tfma.CANDIDATE_KEY if has_baseline else None)
        candidate = _slices(result)
        before = _slices(tfma.load_eval_result(folder, model_name=tfma.BASELINE_KEY)) if has_baseline else None
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
        finite = float(np.isfinite(answers.probabilities).all(axis=1).mean())
        if finite == 1:
            _require_same_accuracy(answers.accuracy, candidate[OVERALL][ACCURACY])
            candidate[OVERALL]["calibration_error"] = calibration_error(answers)

        matrix = _confusion(result, answers.probabilities.shape[1])
        for name, precision in enumerate(precisions(matrix)):
            if precision is not None and str(name) in candidate:
                candidate[str(name)]["precision"] = precision
        found = [
            *checks(settings, candidate, before, failed, against, json.loads(exec_properties["class_names"])),
            Check("finite answers", OVERALL, finite, 1.0, finite == 1),
        ]
        verdict = Verdict(
            blessed=validation.validation_ok and all(check.passed for check in found),
            checks=found,
            metrics={"slices": candidate, "confusion": matrix} | ({"against": against._asdict()} if against else {}),
        )
        if not verdict.blessed:  # whatever TFMA decided: it does not compare by example, nor with NaN
            _withdraw(blessing)
        reference_predictions.write(answers, Path(folder))
        verdict.write(Path(blessing.uri, contract.VERDICT_FILE))
        worst = min((c for c in verdict.checks if c.slice != OVERALL), key=lambda c: c.value, default=None)
        shown = verdict.failures or [describe(check) for check in (verdict.checks[0], worst) if check]
        log.info("%s: %s", "blessed" if verdict.blessed else "not blessed", "; ".join(shown))


def _answers(
    model: Any, inputs: dict[str, Any], properties: dict[str, Any]
) -> reference_predictions.ReferencePredictions:
    saved_model = Path(path_utils.serving_model_path(model.uri))
    (split,) = json.loads(properties[standard_component_specs.EXAMPLE_SPLITS_KEY])
    examples = inputs[standard_component_specs.EXAMPLES_KEY]
    files = tf.io.gfile.glob(str(Path(artifact_utils.get_split_uri(examples, split), "*")))
    signature = model_signature.read(saved_model)
    if signature is None:
        raise InputError(
            f"{saved_model}: no SavedModel with a signature {contract.SERVING_DEFAULT!r} for images",
            "Export it as components/training/export.py does.",
        )
    return reference_predictions.predict(saved_model, files, (signature.image_height, signature.image_width))


def _require_same_accuracy(served: float, evaluated: float) -> None:
    """TFMA and clients use different signatures of the model, which must agree."""
    if not abs(served - evaluated) < SAME_ACCURACY:
        raise RuntimeError(
            f"accuracy is {served:.6f} with {contract.SERVING_DEFAULT}, {evaluated:.6f} with "
            f"{contract.SERVING_EXAMPLES}: the exported signatures disagree"
        )


def _withdraw(blessing: Any) -> None:
    """Change the blessing that TFX's executor wrote to "not blessed"."""
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE)
    Path(blessing.uri, constants.BLESSED_FILE_NAME).unlink(missing_ok=True)
    Path(blessing.uri, constants.NOT_BLESSED_FILE_NAME).touch()


def _kind(failure: Any) -> str:
    """The threshold that was missed: "value" is the absolute one, "change" the one relative to the baseline."""
    return "value" if failure.metric_threshold.HasField("value_threshold") else "change"


def _slice_name(key: Any) -> str:
    """TFMA's SliceKey proto as "overall" or the class."""
    return ",".join(str(getattr(one, one.WhichOneof("kind"))) for one in key.single_slice_keys) or OVERALL


def _slices(result: Any) -> dict[str, dict[str, float]]:
    """TFMA's result for one model as {"overall" or a class: {metric: value}}, overall first, classes in order."""
    found = {}
    for key, outputs in sorted(result.slicing_metrics, key=lambda one: [value for _, value in one[0]]):
        name = ",".join(str(value) for _, value in key) or OVERALL
        found[name] = {k: float(v["doubleValue"]) for k, v in outputs[""][""].items() if "doubleValue" in v}
    return found


def _confusion(result: Any, classes: int) -> list[list[int]]:
    """TFMA's overall confusion matrix as counts [actual][predicted]."""
    matrix = [[0] * classes for _ in range(classes)]
    (overall,) = [outputs[""][""] for key, outputs in result.slicing_metrics if not key]
    for entry in overall[CONFUSION]["multiClassConfusionMatrixAtThresholds"]["matrices"][0]["entries"]:
        actual, predicted = entry.get("actualClassId", 0), entry.get("predictedClassId", 0)  # JSON leaves 0 out
        if predicted >= 0:  # -1: no class above the threshold
            matrix[actual][predicted] = int(entry["numWeightedExamples"])
    return matrix


class _Spec(standard_component_specs.EvaluatorSpec):
    PARAMETERS = {
        **standard_component_specs.EvaluatorSpec.PARAMETERS,
        "settings": component_spec.ExecutionParameter(type=str),
        "class_names": component_spec.ExecutionParameter(type=str),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """TFX component: Examples, Model and the baseline's Model in, ModelEvaluation and ModelBlessing out.

    Evaluates the test split and compares the model with the thresholds of `settings`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        baseline_model: BaseChannel,
        settings: GateSettings,
        class_names: Sequence[str] = (),
    ) -> None:
        spec = _Spec(
            examples=examples,
            model=model,
            baseline_model=baseline_model,
            evaluation=OutputChannel(standard_artifacts.ModelEvaluation, self, standard_component_specs.EVALUATION_KEY),
            blessing=OutputChannel(standard_artifacts.ModelBlessing, self, standard_component_specs.BLESSING_KEY),
            example_splits=json_utils.dumps([contract.TEST_SPLIT]),
            eval_config=eval_config(settings),
            settings=json.dumps(asdict(settings)),
            class_names=json.dumps(class_names),
        )
        super().__init__(spec=spec)
