"""The gate: TFMA metrics over the test split, with bounds that decide whether a model is blessed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow_model_analysis as tfma
from tfx.components.evaluator.component import Evaluator
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components import contract
from components.settings import GateSettings

ACCURACY: Final = "sparse_categorical_accuracy"
CROSS_ENTROPY: Final = "sparse_categorical_crossentropy"
EXAMPLE_COUNT: Final = "example_count"


@dataclass(frozen=True)
class Check:
    """One bound of the gate and whether the model holds it.

    Attributes:
        metric, slice: what was measured, e.g. accuracy over `overall`.
        value: measured on the candidate.
        bound: lowest passing value.
        baseline: the same metric of the last blessed model; None when there is none.
        passed: value >= bound.
    """

    metric: str
    slice: str
    value: float
    bound: float
    baseline: float | None
    passed: bool

    def __str__(self) -> str:
        against = "" if self.baseline is None else f" (baseline {self.baseline:.4f})"
        return f"{self.metric}[{self.slice}] {self.value:.4f} {'>=' if self.passed else '<'} {self.bound:.4f}{against}"


def eval_config(settings: GateSettings) -> tfma.EvalConfig:
    """TFMA configuration: metrics overall and per digit, an absolute and a baseline threshold on accuracy."""
    accuracy_threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": settings.min_accuracy}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER,
            absolute={"value": -settings.max_accuracy_drop - 1e-9},  # TFMA compares strictly: equal must pass
        ),
    )
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
                    tfma.MetricConfig(class_name="SparseCategoricalAccuracy", threshold=accuracy_threshold),
                ]
            )
        ],
    )


def checks(config: tfma.EvalConfig, overall: dict[str, float], baseline: dict[str, float] | None) -> list[Check]:
    """The bounds of `eval_config` beside what was measured; each as TFMA judges it."""
    (threshold,) = [m.threshold for m in config.metrics_specs[0].metrics if m.HasField("threshold")]
    value, floor = overall[ACCURACY], threshold.value_threshold.lower_bound.value
    found = [Check("accuracy", "overall", value, floor, None, value >= floor)]
    if baseline is not None:
        floor = baseline[ACCURACY] + threshold.change_threshold.absolute.value
        found.append(Check("accuracy", "overall", value, floor, baseline[ACCURACY], value >= floor))
    return found


class Executor(TfxExecutor):
    """TFMA's evaluation, then verdict.json: the figures, so that no reader of a result needs TFMA."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        super().Do(input_dict, output_dict, exec_properties)
        folder = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
        config = tfma.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config)
        has_baseline = bool(input_dict.get(standard_component_specs.BASELINE_MODEL_KEY))
        candidate = _slices(folder, tfma.CANDIDATE_KEY if has_baseline else "")
        baseline = _slices(folder, tfma.BASELINE_KEY)["overall"] if has_baseline else None
        verdict = {
            "blessed": blessing.get_int_custom_property("blessed") == 1,
            "checks": [asdict(check) for check in checks(config, candidate["overall"], baseline)],
            "slices": candidate,
        }
        Path(folder, contract.VERDICT_FILE).write_text(json.dumps(verdict, indent=1))


def _slices(folder: str, model_name: str) -> dict[str, dict[str, float]]:
    """TFMA's result as {"overall" or "label=3": {metric: value}}."""
    result = tfma.load_eval_result(folder, model_name=model_name or None)
    found = {}
    for key, outputs in result.slicing_metrics:
        name = ",".join(f"{feature}={value}" for feature, value in key) or "overall"
        metrics = outputs[""][""]
        found[name] = {metric: float(v["doubleValue"]) for metric, v in metrics.items() if "doubleValue" in v}
    return dict(sorted(found.items()))


class GateEvaluator(Evaluator):
    """TFX's Evaluator with the executor above; same inputs and outputs."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
