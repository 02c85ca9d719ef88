"""An ExampleValidator that stops the run: anomalies are an error, not only an artifact. It also measures drift."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.components.example_validator.executor import Executor as TfxExecutor
from tfx.components.statistics_gen.executor import DEFAULT_FILE_NAME as STATISTICS_FILE
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.components.base import base_driver as dsl_base_driver
from tfx.orchestration.portable import base_driver, data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.utils import io_utils

from components.common import contract
from components.common.errors import DataAnomaliesError
from components.common.settings import DataSettings
from components.data import accepted
from components.validation import drift
from components.validation.verdict import Check, Verdict
from components.validation.verdict import describe as describe_check

log = logging.getLogger(__name__)
ACCEPTED: Final = "accepted"
ON_DRIFT: Final = "on_drift"
PREVIOUS: Final = "previous"  # property of the execution: name of the record with the statistics of the data before
# Properties of the artifact, for `run --plan`: the data that was validated, and that record.
DATA_IDENTITY: Final = "data_identity"
COMPARED_WITH: Final = "compared_with"


def describe(split: str, anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One line per anomaly: `train: mean_intensity: unexpectedly low values: ...`."""
    lines = []
    for name, info in sorted(anomalies.anomaly_info.items()):
        reasons = [f"{r.short_description}: {r.description}" for r in info.reason] or [info.description]
        lines += [f"{split}: {name}: {reason}" for reason in reasons]
    if anomalies.HasField("dataset_anomaly_info"):
        lines += [f"{split}: data set: {r.description}" for r in anomalies.dataset_anomaly_info.reason]
    return lines


# The runner requires the first base class, the component the second.
class Driver(base_driver.BaseDriver, dsl_base_driver.BaseDriver):
    """Adds the data to compare with to the cache key. Only TFX's local orchestrator runs drivers."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        statistics = artifact_utils.get_single_instance(execution_info.input_dict[keys.STATISTICS_KEY])
        folder = Path(execution_info.exec_properties[ACCEPTED])
        train = Statistics.FromString(_statistics(statistics, contract.TRAIN_SPLIT))
        before = accepted.previous(folder, drift.identity(train))
        output = driver_output_pb2.DriverOutput()
        output.exec_properties[PREVIOUS].string_value = before.name if before else ""
        return output


class Executor(TfxExecutor):
    """TFX's validation, then DataAnomaliesError if there is an anomaly, or drift that is to stop the run.

    A failed execution publishes no artifact, so nothing downstream runs and the result is never cached.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> Any:
        result = super().Do(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict[keys.STATISTICS_KEY])
        splits = {name: Statistics.FromString(_statistics(statistics, name)) for name in contract.SPLITS}
        artifact = artifact_utils.get_single_instance(output_dict[keys.ANOMALIES_KEY])
        _require_no_anomalies(artifact, splits)

        folder, identity = Path(exec_properties[ACCEPTED]), drift.identity(splits[contract.TRAIN_SPLIT])
        if (chosen := exec_properties.get(PREVIOUS)) is None:  # there is no driver
            before = accepted.previous(folder, identity)
        else:
            before = folder / chosen if chosen else None
        artifact.set_string_custom_property(COMPARED_WITH, before.name if before else "")  # for `run --plan`
        artifact.set_string_custom_property(DATA_IDENTITY, identity)
        schema_folder = artifact_utils.get_single_uri(input_dict[keys.SCHEMA_KEY])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        checks = drift_checks(splits, Statistics.FromString(before.read_bytes()) if before else None, schema)
        verdict = Verdict(all(check.passed for check in checks), checks)
        verdict.write(Path(artifact.uri, contract.DRIFT_FILE))
        for check in checks:
            log.info("%s", describe_check(check))
        if verdict.failures and exec_properties[ON_DRIFT] == "stop":
            raise DataAnomaliesError(
                "The data has drifted:\n" + "\n".join(f"  {line}" for line in verdict.failures),
                "Correct the data. If it is right, accept it: --set data.on_drift=warn "
                "(the bounds are in components/schema.pbtxt).",
            )
        accepted.record(folder, identity, _statistics(statistics, contract.TRAIN_SPLIT))
        log.info("no anomalies in %s%s", ", ".join(splits), ", but drift" if verdict.failures else "")
        return result


def drift_checks(splits: Mapping[str, Statistics], before: Statistics | None, schema: Schema) -> list[Check]:
    """Compare eval and test with train, and train with the train split of the data before, if there is any."""
    train, checks = splits[contract.TRAIN_SPLIT], []
    for name in (contract.EVAL_SPLIT, contract.TEST_SPLIT):
        checks += drift.skew(train, splits[name], schema, f"{name} against train")
    if before is not None:
        checks += drift.drift(train, before, schema, "train against the data before")
    return checks


def _require_no_anomalies(artifact: Any, splits: Mapping[str, Statistics]) -> None:
    lines = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        content = Path(artifact_utils.get_split_uri([artifact], split), DEFAULT_FILE_NAME).read_bytes()
        lines += describe(split, anomalies_pb2.Anomalies.FromString(content))
    if absent := drift.absent_classes(splits[contract.TRAIN_SPLIT], splits[contract.TEST_SPLIT]):
        classes = ", ".join(absent)
        lines.append(f"{contract.TEST_SPLIT}: {contract.LABEL}: no example of class {classes}: its recall is unknown")
    if lines:
        raise DataAnomaliesError(
            "The data has anomalies:\n" + "\n".join(f"  {line}" for line in lines),
            "Correct the data. If the data is right, change components/schema.pbtxt or the bounds in the settings "
            "(data.classes, data.min_mean_intensity, data.max_mean_intensity).",
        )


def _statistics(artifact: Any, split: str) -> bytes:
    return Path(artifact_utils.get_split_uri([artifact], split), STATISTICS_FILE).read_bytes()


class _Spec(component_spec.ComponentSpec):
    INPUTS = {
        keys.STATISTICS_KEY: component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        keys.SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {keys.ANOMALIES_KEY: component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
    PARAMETERS = {
        ACCEPTED: component_spec.ExecutionParameter(type=str),
        ON_DRIFT: component_spec.ExecutionParameter(type=str),
    }


class ExampleValidator(base_component.BaseComponent):
    """TFX component: ExampleStatistics and Schema in, ExampleAnomalies out. Fails if there are anomalies.

    Compares eval and test with train, and train with that of the last different data that a run accepted. The values
    and their bounds are in contract.DRIFT_FILE of the artifact.

    Args:
        accepted: folder of the statistics of accepted data.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, statistics: BaseChannel, schema: BaseChannel, settings: DataSettings, accepted: Path) -> None:
        anomalies = OutputChannel(standard_artifacts.ExampleAnomalies, self, keys.ANOMALIES_KEY)
        super().__init__(
            spec=_Spec(
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                accepted=str(accepted),
                on_drift=settings.on_drift,
            )
        )
