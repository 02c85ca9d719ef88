"""InfraValidator: serve the exported model in a real server and check its predictions before the push.

TFX's InfraValidator needs Docker or Kubernetes and checks only that the model loads. This one starts the configured
backend (container, binary or embedded) in a separate process, and its predictions must equal the evaluation's.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tfx.components.infra_validator import executor as tfx_infra_validator
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.utils import path_utils

from components.common import contract
from components.common.settings import InfraSettings
from components.validation import control_model, reference_predictions, warmup
from components.validation.model_signature import ModelSignature
from components.validation.reference_predictions import SAME_PROBABILITY, ReferencePredictions
from components.validation.trial_server import ServerError, TrialServer, replay, running_server
from components.validation.verdict import OVERALL, Check, Verdict

log = logging.getLogger(__name__)
Serve = Callable[[Path, Path], AbstractContextManager[TrialServer]]
"""Serves a model (first argument) while the block runs, with a scratch folder (second)."""


def checks(settings: InfraSettings, measured: Mapping[str, float]) -> list[Check]:
    """Compare measurements of a served model with the thresholds.

    Args:
        measured: size_bytes, load_s, grpc_p99_ms, rest_p99_ms, grpc_difference, rest_difference (of probabilities,
            largest absolute one), misread (number of images that the server and the evaluation classify differently).
    """
    bounds = {
        "size_bytes": settings.max_size_bytes,
        "load_s": settings.max_load_s,
        "grpc_p99_ms": settings.max_p99_ms,
        "rest_p99_ms": settings.max_p99_ms,
        "grpc_difference": SAME_PROBABILITY,
        "rest_difference": SAME_PROBABILITY,
        "misread": 0,
    }
    # `value <= bound`, so that NaN fails.
    return [
        Check(name, OVERALL, measured[name], bound, measured[name] <= bound, at_most=True)
        for name, bound in bounds.items()
    ]


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(expected: ReferencePredictions, grpc: Any, rest: Any) -> dict[str, float]:
    """Compare served probabilities, float32 [n, classes], with the evaluation; `rest` has only the first images."""
    return {
        "grpc_difference": float(np.abs(grpc - expected.probabilities).max()),
        "rest_difference": float(np.abs(rest - expected.probabilities[: len(rest)]).max()),
        "misread": int((grpc.argmax(axis=1) != expected.probabilities.argmax(axis=1)).sum()),
    }


def measure(serve: Serve, model: Path, expected: ReferencePredictions, folder: Path, requests: int) -> dict[str, float]:
    """Serve `model`, send it the test images, and measure what `checks` needs. Raises ServerError, InputError."""
    with serve(model, folder) as (grpc_port, rest_port, load_s):
        report, served = replay(expected.images, folder, grpc_port, rest_port, requests)
    return {
        "size_bytes": size_bytes(model),
        "load_s": load_s,
        "grpc_p99_ms": report["grpc"]["p99_ms"],
        "rest_p99_ms": report["rest"]["p99_ms"],
        **compare(expected, served["grpc"], served["rest"]),
    }


def slowdown(serve: Serve, expected: ReferencePredictions, folder: Path, requests: int) -> float:
    """How many times slower than on an idle machine a known-good model is served now; 1.0 at least.

    Raises:
        ServerError: the server fails with the known-good model, too, so no model can be validated now.
    """
    count, height, width = expected.images.shape
    classes = expected.probabilities.shape[1]
    model = folder / "model"
    control_model.save(model, ModelSignature(height, width, classes))
    uniform = np.full((count, classes), 1 / classes, np.float32)
    try:
        measured = measure(serve, model, expected._replace(probabilities=uniform), folder / "server", requests)
        if measured["grpc_difference"] > SAME_PROBABILITY:
            raise ServerError("its predictions are wrong")
    except ServerError as e:
        remedy = "Check serving.backend, the machine's load and its free ports, then run again.\n" + e.remedy
        raise ServerError(f"the server does not work with a known-good model either: {e.problem}", remedy) from e
    return max(1.0, *(measured[f"{name}_p99_ms"] / p99_ms for name, p99_ms in control_model.REFERENCE_P99_MS.items()))


def validate(
    model: Path,
    expected: ReferencePredictions,
    folder: Path,
    settings: InfraSettings,
    backend: str,
    owner: Path | None = None,
) -> Verdict:
    """Compare a served model with the bounds. Refuses it only for what it causes itself.

    Args:
        folder: for scratch files.
        owner: folder that names the server's container.

    Raises:
        ServerError: the server fails with a known-good model, too.
        InputError: no server could be started at all.
    """

    def serve(model: Path, scratch: Path) -> AbstractContextManager[TrialServer]:
        return running_server(model, scratch, backend, settings.max_load_s, owner)

    try:
        measured = measure(serve, model, expected, folder / "candidate", settings.requests)
    except ServerError as e:
        slowdown(serve, expected, folder / "control", settings.requests)
        return Verdict(blessed=False, error=f"infra validation: {e}", metrics={"size_bytes": size_bytes(model)})
    found = checks(settings, measured)
    if any(check.metric.endswith("_p99_ms") and not check.passed for check in found):
        factor = slowdown(serve, expected, folder / "control", settings.requests)
        found = checks(replace(settings, max_p99_ms=settings.max_p99_ms * factor), measured)
    return Verdict(all(check.passed for check in found), found, metrics=measured)


class Executor(base_executor.BaseExecutor):
    """Validates a blessed model; the InfraBlessing contains the verdict and the model with its warm-up requests."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        blessing = artifact_utils.get_single_instance(output_dict[keys.BLESSING_KEY])
        if not model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict[keys.MODEL_BLESSING_KEY])):
            Verdict(blessed=False).write(Path(blessing.uri, contract.VERDICT_FILE))
            tfx_infra_validator._mark_not_blessed(blessing)
            log.info("not validated: the Evaluator did not bless the model")
            return
        trained = artifact_utils.get_single_instance(input_dict[keys.MODEL_KEY])
        expected = reference_predictions.read(Path(artifact_utils.get_single_uri(input_dict[keys.EVALUATION_KEY])))
        stamped = Path(path_utils.stamped_model_path(blessing.uri))
        shutil.copytree(path_utils.serving_model_path(trained.uri), stamped)
        warmup.write(stamped, warmup.requests(expected.images))
        settings = InfraSettings(**json.loads(exec_properties["settings"]))
        scratch = Path(blessing.uri, "server")
        owner = Path(blessing.uri).resolve().parent  # the same in every run of a home
        try:
            verdict = validate(stamped, expected, scratch, settings, exec_properties["backend"], owner)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        verdict.write(Path(blessing.uri, contract.VERDICT_FILE))
        if verdict.blessed:
            tfx_infra_validator._mark_blessed(blessing)
            blessing.set_int_custom_property(tfx_infra_validator._MODEL_FLAG_KEY, 1)
            log.info("infra blessed: AVAILABLE after %.1f s, p99 %.1f ms over gRPC, %.1f ms over REST",
                     *(verdict.metrics[name] for name in ("load_s", "grpc_p99_ms", "rest_p99_ms")))  # fmt: skip
        else:
            tfx_infra_validator._mark_not_blessed(blessing)
            log.info("not infra blessed: %s", "; ".join(verdict.failures).partition("\n")[0])


class _Spec(component_spec.ComponentSpec):
    INPUTS = {
        keys.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        keys.MODEL_BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        keys.EVALUATION_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {keys.BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing)}
    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "backend": component_spec.ExecutionParameter(type=str),
    }


class InfraValidator(base_component.BaseComponent):
    """TFX component: Model, ModelBlessing and ModelEvaluation in, InfraBlessing out."""

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        model_blessing: BaseChannel,
        evaluation: BaseChannel,
        settings: InfraSettings,
        backend: str,
    ) -> None:
        blessing = OutputChannel(standard_artifacts.InfraBlessing, self, keys.BLESSING_KEY)
        spec = _Spec(
            model=model,
            model_blessing=model_blessing,
            evaluation=evaluation,
            blessing=blessing,
            settings=json.dumps(asdict(settings)),
            backend=backend,
        )
        super().__init__(spec=spec)
