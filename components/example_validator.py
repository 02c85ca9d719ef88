"""An ExampleValidator that stops the run: anomalies are an error, not only an artifact."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator.component import ExampleValidator as TfxExampleValidator
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.components.example_validator.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs

from components.common.errors import DataAnomaliesError

log = logging.getLogger(__name__)


def describe(split: str, anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One line per anomaly: `train: mean_intensity: unexpectedly low values: ...`."""
    lines = []
    for name, info in sorted(anomalies.anomaly_info.items()):
        reasons = [f"{r.short_description}: {r.description}" for r in info.reason] or [info.description]
        lines += [f"{split}: {name}: {reason}" for reason in reasons]
    if anomalies.HasField("dataset_anomaly_info"):
        lines += [f"{split}: data set: {r.description}" for r in anomalies.dataset_anomaly_info.reason]
    return lines


class Executor(TfxExecutor):
    """TFX's validation, then DataAnomaliesError if any split has an anomaly.

    A failed execution publishes no artifact, so nothing downstream runs and the result is never cached.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> Any:
        result = super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        lines, splits = [], artifact_utils.decode_split_names(artifact.split_names)
        for split in splits:
            content = Path(artifact_utils.get_split_uri([artifact], split), DEFAULT_FILE_NAME).read_bytes()
            lines += describe(split, anomalies_pb2.Anomalies.FromString(content))
        if lines:
            raise DataAnomaliesError(
                "The data violates the schema:\n" + "\n".join(f"  {line}" for line in lines),
                "Correct the data. If the data is right, change components/schema.pbtxt or the bounds in the settings "
                "(data.classes, data.min_mean_intensity, data.max_mean_intensity).",
            )
        log.info("no anomalies in %s", ", ".join(splits))
        return result


class ExampleValidator(TfxExampleValidator):
    """TFX component: ExampleStatistics and Schema in, ExampleAnomalies out. Fails if there are anomalies."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
