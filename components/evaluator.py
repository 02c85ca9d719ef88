"""The gate: TFMA metrics over the test split, and the thresholds that decide whether a model is blessed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants
from tfx.components.evaluator.component import Evaluator as TfxEvaluator
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.types.channel import BaseChannel
from tfx.utils import path_utils, proto_utils

from components.common import contract
from components.common.errors import InputError
from components.common.settings import GateSettings
from components.validation import model_signature, reference_predictions
from components.validation.verdict import OVERALL, Check, Verdict, describe

log = logging.getLogger(__name__)
ACCURACY: Final = "sparse_categorical_accuracy"
CONFUSION: Final = "multi_class_confusion_matrix_at_thresholds"
TOLERANCE: Final = 1e-9  # TFMA compares strictly, but a model exactly at the threshold passes
SAME_ACCURACY: Final = 1e-6  # TFMA counts in float32


def eval_config(settings: GateSettings) -> tfma.EvalConfig:
    """TFMA configuration: metrics overall and per class, thresholds for overall accuracy and each class's recall."""
    overall = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": settings.min_accuracy}),
        change_threshold=tfma.GenericChangeThreshold(
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


def checks(
    config: tfma.EvalConfig,
    candidate: dict[str, dict[str, float]],
    baseline: dict[str, dict[str, float]] | None,
    failed: set[tuple[str, str]],
) -> list[Check]:
    """The gate's thresholds, each with the measured value and TFMA's decision: overall first, then by class.

    Args:
        config: the result of `eval_config`.
        candidate, baseline: {slice: {metric: value}} of each model; `baseline` is None if there is none.
        failed: (slice, kind) of TFMA's failures; kind is "value" or "change".
    """
    (accuracy,) = [m for m in config.metrics_specs[0].metrics if m.per_slice_thresholds]
    overall, recall = (entry.threshold for entry in accuracy.per_slice_thresholds)
    found = []
    for name, metrics in candidate.items():
        threshold, metric = (overall, "accuracy") if name == OVERALL else (recall, "recall")
        value, bound = metrics[ACCURACY], threshold.value_threshold.lower_bound.value
        before = baseline.get(name, {}).get(ACCURACY) if baseline else None
        found.append(Check(metric, name, value, bound, (name, "value") not in failed, before))
        if name == OVERALL and before is not None:
            bound = before + overall.change_threshold.absolute.value + TOLERANCE
            found.append(Check("accuracy against baseline", name, value, bound, (name, "change") not in failed, before))
    return found


def precisions(confusion: list[list[int]]) -> list[float | None]:
    """Precision of each class from a confusion matrix [actual][predicted]; None for a class that is never predicted."""
    columns = list(zip(*confusion, strict=True))
    return [column[k] / sum(column) if sum(column) else None for k, column in enumerate(columns)]


def calibration_error(answers: reference_predictions.ReferencePredictions, bins: int = 10) -> float:
    """Expected calibration error of the top class, 0..1 (Guo et al. 2017, eq. 3): |accuracy - confidence| by bin."""
    confidence = answers.probabilities.max(axis=1)
    right = answers.probabilities.argmax(axis=1) == answers.labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == k].mean() - confidence[place == k].mean()) * (place == k).sum() for k in set(place)]
    return float(sum(gaps) / len(right))


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
        config = tfma.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config)
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        has_baseline = bool(input_dict.get(standard_component_specs.BASELINE_MODEL_KEY))

        answers = _answers(model, input_dict, exec_properties)
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
        else:  # whatever TFMA decided: comparisons with NaN are always false
            _withdraw(blessing)

        matrix = _confusion(result, answers.probabilities.shape[1])
        for name, precision in enumerate(precisions(matrix)):
            if precision is not None and str(name) in candidate:
                candidate[str(name)]["precision"] = precision
        verdict = Verdict(
            blessed=validation.validation_ok and finite == 1,
            checks=[
                *checks(config, candidate, before, failed),
                Check("finite answers", OVERALL, finite, 1.0, finite == 1),
            ],
            metrics={"slices": candidate, "confusion": matrix},
        )
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


class Evaluator(TfxEvaluator):
    """TFX component: Examples, Model and the baseline's Model in, ModelEvaluation and ModelBlessing out.

    Evaluates the test split and compares the model with the thresholds of `settings`.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self, examples: BaseChannel, model: BaseChannel, baseline_model: BaseChannel, settings: GateSettings
    ) -> None:
        super().__init__(
            examples=examples,
            example_splits=[contract.TEST_SPLIT],
            model=model,
            baseline_model=baseline_model,
            eval_config=eval_config(settings),
        )
