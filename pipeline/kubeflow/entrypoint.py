"""What a task's container runs: one TFX executor, between KFP's launcher and TFX.

    python -m pipeline.kubeflow.entrypoint --node=Trainer --executor=... --component=... --executor-input={{$}} ...

The launcher of open-source KFP differs from what TFX expects of Vertex AI. It hands inputs without their types, adds
outputs that no component declared (`executor-logs`), names artifacts by addresses that neither TensorFlow nor Beam can
open, and runs no ExampleGen driver. None of that is a contract, so only the compiled component counts here: types come
from it, undeclared artifacts are dropped, and what is local already stays as it is.

The last line on stdout is RESULT and a JSON object, for `submit`; the exit code is that of a local run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as tfx_utils
from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver as example_gen_driver
from tfx.orchestration.portable import outputs_utils
from tfx.types import standard_component_specs as keys
from tfx.utils import import_utils

from components.common import contract
from components.common.errors import UserError
from pipeline import lineage
from pipeline.failure import explain
from pipeline.kubeflow import runtime_parameters
from pipeline.kubeflow.artifact_paths import RUN_ID_VARIABLE, local_path, with_addresses
from pipeline.kubeflow.watch import RESULT
from pipeline.run import EXIT_CODES, prepare_data
from pipeline.settings import Settings

log = logging.getLogger(__name__)
Artifacts = dict[str, list[Any]]  # of TFX


class NotPushedError(UserError):
    """A Kubeflow run knows only success and failure; one that pushed nothing is not a success."""

    exit_code = EXIT_CODES["not_blessed"]


@dataclass
class Task:
    """One task as KFP describes it, made fit for TFX.

    Attributes:
        component: the compiled interface: types of all artifacts and parameters.
        given: KFP's ExecutorInput; artifacts are local and typed, parameters are TFX's properties only.
        parameters: values of the runtime parameters, by setting ("train.steps").
        addresses: remote address of each artifact, by local path.
    """

    component: pb.ComponentSpec
    given: pb.ExecutorInput
    parameters: dict[str, Any]
    addresses: dict[str, str]


def read_task(component: str, executor_input: str) -> Task:
    """Parse the two JSON texts of the command line; unknown fields are of newer versions of KFP, and passed over."""
    spec = json_format.Parse(component, pb.ComponentSpec(), ignore_unknown_fields=True)
    given = json_format.Parse(executor_input, pb.ExecutorInput(), ignore_unknown_fields=True)
    addresses: dict[str, str] = {}
    for lists, declared in (
        (given.inputs.artifacts, spec.input_definitions.artifacts),
        (given.outputs.artifacts, spec.output_definitions.artifacts),
    ):
        for key in [key for key in lists if key not in declared]:
            del lists[key]
        for key, found in lists.items():
            for artifact in found.artifacts:
                artifact.type.CopyFrom(declared[key].artifact_type)
                artifact.name = artifact.uri  # TFX makes ids of names, and KFP's are not unique
                path = local_path(artifact.uri)
                if path != artifact.uri:
                    addresses[path] = artifact.uri
                artifact.uri = path
    _drop_absent(given.inputs.artifacts)

    names = {runtime_parameters.parameter_name(setting): setting for setting in runtime_parameters.RUNTIME_SETTINGS}
    values = given.inputs.parameter_values
    parameters = {names[k]: getattr(values[k], values[k].WhichOneof("kind")) for k in list(values) if k in names}
    for key in [key for key in values if key in names]:
        del values[key]
    return Task(spec, given, parameters, addresses)


def _drop_absent(inputs: Any) -> None:
    """Leave out optional inputs whose producer had nothing to say: on KFP a task always has all of its outputs."""
    for key in list(inputs):
        if any(Path(artifact.uri, contract.ABSENT_FILE).exists() for artifact in inputs[key].artifacts):
            log.info("input %s is absent", key)
            del inputs[key]


def renew_properties(task: Task, node_id: str, settings: Settings, reads_data: bool) -> None:
    """Make the node's properties anew from the settings, with the values of this run's parameters. Raises UserError."""
    settings = runtime_parameters.changed(settings, task.parameters)
    files = (
        prepare_data(settings, runtime_parameters.home_of(settings), lambda line: log.info("%s", line))
        if reads_data
        else None
    )
    for name, value in runtime_parameters.properties(runtime_parameters.dag(settings, files))[node_id].items():
        json_format.ParseDict(value, task.given.inputs.parameter_values[name])


def execute(task: Task, executor_class: type[BaseExecutor], beam_args: Sequence[str]) -> tuple[Artifacts, Artifacts]:
    """Run the executor; returns its artifacts, inputs and outputs. What KFP is to know is then in the output file."""
    names: dict[int, str] = {}
    output_file = Path(task.given.outputs.output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    if issubclass(executor_class, BaseExampleGenExecutor):
        _run_driver(task, output_file)
    inputs = tfx_utils.parse_raw_artifact_dict(task.given.inputs.artifacts, names)
    outputs: Artifacts = tfx_utils.parse_raw_artifact_dict(task.given.outputs.artifacts, names)
    properties = tfx_utils.parse_execution_properties(
        task.given.inputs.parameter_values, {}, task.component.input_definitions
    )
    for artifact in _each(outputs):
        Path(artifact.uri).mkdir(parents=True, exist_ok=True)

    context = {
        "unique_id": output_file.parent.name,
        "tmp_dir": str(output_file.parent / ".temp"),
        "pipeline_run_id": os.environ.get(RUN_ID_VARIABLE, ""),
    }
    if issubclass(executor_class, BaseBeamExecutor):
        executor = executor_class(BaseBeamExecutor.Context(beam_pipeline_args=list(beam_args), **context))
    else:
        executor = executor_class(BaseExecutor.Context(extra_flags=list(beam_args), **context))
    executor.Do(inputs, outputs, properties)

    outputs_utils.tag_output_artifacts_with_version(outputs)
    if keys.BLESSING_KEY in outputs:
        tfx_utils.refactor_model_blessing(outputs[keys.BLESSING_KEY][0], names)
    output_file.write_text(json.dumps(_executor_output(task, outputs, names), sort_keys=True))
    return inputs, outputs


def _run_driver(task: Task, output_file: Path) -> None:
    """TFX's ExampleGen driver (span, version, fingerprint); Vertex AI runs it before the task, KFP does not."""
    example_gen_driver._run_driver(task.given, task.component.input_definitions)
    driven = json_format.Parse(output_file.read_text(), pb.ExecutorOutput(), ignore_unknown_fields=True)
    for name, value in driven.parameter_values.items():
        task.given.inputs.parameter_values[name].CopyFrom(value)
    for key, found in driven.artifacts.items():
        task.given.outputs.artifacts[key].artifacts[0].metadata.update(
            json_format.MessageToDict(found.artifacts[0].metadata)
        )
    output_file.unlink()


def _executor_output(task: Task, outputs: Artifacts, names: Mapping[int, str]) -> dict[str, Any]:
    translated = pb.ExecutorOutput()
    for key, artifacts in tfx_utils.translate_executor_output(outputs, names).items():
        translated.artifacts[key].CopyFrom(artifacts)
    content: dict[str, Any] = with_addresses(json_format.MessageToDict(translated), task.addresses)
    return content


def result(inputs: Artifacts, outputs: Artifacts) -> dict[str, Any]:
    """What this task's artifacts say of the run (see lineage.Outcome)."""
    found = {artifact.type_name: artifact.mlmd_artifact for artifact in (*_each(inputs), *_each(outputs))}
    return asdict(lineage.outcome_of(found))


def check_pushed(outputs: Artifacts) -> None:
    """Raises NotPushedError if this is a Pusher that pushed nothing."""
    for pushed in outputs.get(keys.PUSHED_MODEL_KEY, []):
        if not pushed.get_int_custom_property("pushed"):
            raise NotPushedError("not blessed, nothing pushed", "The logs of the nodes before it say why.")


def _each(artifacts: Artifacts) -> Iterable[Any]:
    return (artifact for found in artifacts.values() for artifact in found)


def run(arguments: argparse.Namespace, beam_args: Sequence[str]) -> dict[str, Any]:
    """Run the task; returns its result. Raises whatever goes wrong."""
    executor_class = import_utils.import_class_by_path(arguments.executor)
    task = read_task(arguments.component, arguments.executor_input)
    if arguments.settings:
        renew_properties(task, arguments.node, runtime_parameters.from_json(arguments.settings), arguments.reads_data)
    inputs, outputs = execute(task, executor_class, beam_args)
    check_pushed(outputs)
    return result(inputs, outputs)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="pipeline.kubeflow.entrypoint", description=__doc__, allow_abbrev=False)
    parser.add_argument("--node", required=True, help="id of the node, in messages")
    parser.add_argument("--executor", required=True, help="import path of the TFX executor's class")
    parser.add_argument("--component", required=True, help="input and output definitions of the component, JSON")
    parser.add_argument("--settings", default="", help="settings that the properties are made from, JSON")
    parser.add_argument("--reads-data", action="store_true", help="the properties depend on the data as well")
    parser.add_argument("--executor-input", required=True, help="KFP's ExecutorInput, JSON")
    arguments, beam_args = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    told: dict[str, Any] = {"node": arguments.node, "exit_code": 0, "error": None}
    try:
        told |= run(arguments, beam_args)
    except Exception as e:
        log.exception("node %s failed", arguments.node)
        told["error"], told["exit_code"] = explain(arguments.node, e, None)
        print(f"error: {told['error']}", file=sys.stderr, flush=True)
    print(RESULT, json.dumps(told), flush=True)
    return int(told["exit_code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
