"""The gate: TFMA metrics over the test split, with bounds that decide whether a model is blessed."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator.component import Evaluator
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components import contract
from components.settings import GateSettings

log = logging.getLogger(__name__)
ACCURACY: Final = "sparse_categorical_accuracy"
OVERALL: Final = "overall"
TOLERANCE: Final = 1e-9  # TFMA compares strictly; a model exactly as good as the bound passes


@dataclass(frozen=True)
class Check:
    """One bound of the gate and whether the model holds it.

    Attributes:
        metric, slice: what was measured, e.g. accuracy over "overall" or "label=3".
        value: measured on the candidate.
        bound: lowest passing value.
        baseline: the same metric of the last blessed model; None for an absolute bound.
        passed: TFMA's verdict.
    """

    metric: str
    slice: str
    value: float
    bound: float
    baseline: float | None
    passed: bool


def describe(check: Check) -> str:
    """`accuracy[overall] 0.9595 < 0.9773 (baseline 0.9823)`"""
    against = "" if check.baseline is None else f" (baseline {check.baseline:.4f})"
    sign = ">=" if check.passed else "<"
    return f"{check.metric}[{check.slice}] {check.value:.4f} {sign} {check.bound:.4f}{against}"


def eval_config(settings: GateSettings) -> tfma.EvalConfig:
    """TFMA configuration: metrics overall and per digit, bounds on overall accuracy."""
    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": settings.min_accuracy}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER,
            absolute={"value": -settings.max_accuracy_drop - TOLERANCE},
        ),
    )
    overall = config_pb2.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name=contract.SERVING_EXAMPLES,
                prediction_key=contract.SCORES,
                label_key=contract.LABEL,
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[contract.LABEL])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
                    tfma.MetricConfig(class_name="SparseCategoricalAccuracy", per_slice_thresholds=[overall]),
                ]
            )
        ],
    )


def overall_checks(
    settings: tfma.MetricThreshold, value: float, baseline: float | None, failed: set[tuple[str, str]]
) -> list[Check]:
    """The bounds on overall accuracy, with what was measured and what TFMA said.

    Args:
        settings: the threshold as `eval_config` put it.
        value, baseline: accuracy of the candidate and of the last blessed model (None: there is none), 0..1.
        failed: (metric, kind) of TFMA's failures, kind being "value" or "change".
    """
    floor = settings.value_threshold.lower_bound.value
    checks = [Check("accuracy", OVERALL, value, floor, None, (ACCURACY, "value") not in failed)]
    if baseline is not None:
        floor = baseline + settings.change_threshold.absolute.value + TOLERANCE
        checks.append(Check("accuracy", OVERALL, value, floor, baseline, (ACCURACY, "change") not in failed))
    return checks


class Executor(TfxExecutor):
    """TFMA's evaluation, then verdict.json: the figures, so that no reader of a result needs TFMA."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        super().Do(input_dict, output_dict, exec_properties)
        folder = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        config = tfma.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config)
        has_baseline = bool(input_dict.get(standard_component_specs.BASELINE_MODEL_KEY))

        validation = tfma.load_validation_result(folder)
        failed = {
            (failure.metric_key.name, _kind(failure))
            for one_slice in validation.metric_validations_per_slice
            for failure in one_slice.failures
        }
        candidate = _slices(folder, tfma.CANDIDATE_KEY if has_baseline else None)
        baseline = _slices(folder, tfma.BASELINE_KEY)[OVERALL][ACCURACY] if has_baseline else None
        (threshold,) = [p.threshold for m in config.metrics_specs[0].metrics for p in m.per_slice_thresholds]
        checks = overall_checks(threshold, candidate[OVERALL][ACCURACY], baseline, failed)
        verdict = {
            "blessed": validation.validation_ok,
            "failures": [describe(check) for check in checks if not check.passed],
            "checks": [asdict(check) for check in checks],
            "slices": candidate,
        }
        Path(folder, contract.VERDICT_FILE).write_text(json.dumps(verdict, indent=1))
        log.info("%s: %s", "blessed" if validation.validation_ok else "not blessed", "; ".join(map(describe, checks)))


def _kind(failure: Any) -> str:
    """A failure carries only the threshold that was missed: the absolute one or the one against the baseline."""
    return "value" if failure.metric_threshold.HasField("value_threshold") else "change"


def _slices(folder: str, model_name: str | None) -> dict[str, dict[str, float]]:
    """TFMA's result of one model as {"overall" or "label=3": {metric: value}}."""
    result = tfma.load_eval_result(folder, model_name=model_name)
    found = {}
    for key, outputs in result.slicing_metrics:
        name = ",".join(f"{feature}={value}" for feature, value in key) or OVERALL
        found[name] = {k: float(v["doubleValue"]) for k, v in outputs[""][""].items() if "doubleValue" in v}
    return dict(sorted(found.items()))


class GateEvaluator(Evaluator):
    """TFX's Evaluator with the executor above; same inputs and outputs."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
