"""The command of a task's container: run one TFX executor under KFP's launcher.

    python -m pipeline.kubeflow.entrypoint --node=Trainer --executor=... --component=... --executor-input={{$}} ...

The launcher of open-source KFP differs from Vertex AI's, for which TFX was written: it passes inputs without types,
adds outputs that no component declares (`executor-logs`), identifies artifacts by URIs that TensorFlow and Beam cannot
open, and does not run ExampleGen's driver. KFP documents none of this, so this module relies only on the compiled
component: it takes types from there, drops undeclared artifacts, and leaves local paths unchanged.

The last line on stdout is RESULT_PREFIX and a JSON object, for `submit --wait`; exit codes are those of a local run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
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

from components.common.errors import UserError
from pipeline import lineage
from pipeline.failure import explain
from pipeline.kubeflow import runtime_parameters
from pipeline.kubeflow.artifact_paths import RUN_ID_VARIABLE, with_uris
from pipeline.kubeflow.task import Task, parse
from pipeline.kubeflow.watch import RESULT_PREFIX
from pipeline.run import EXIT_CODES, prepare_data
from pipeline.settings import Settings

log = logging.getLogger(__name__)
Artifacts = dict[str, list[Any]]  # TFX artifacts by key


class NotPushedError(UserError):
    """Nothing was pushed. A Kubeflow run can only succeed or fail, and this is not a success."""

    exit_code = EXIT_CODES["not_blessed"]


def update_properties(task: Task, node_id: str, settings: Settings, reads_data: bool) -> None:
    """Recompute the node's properties from the settings and this run's parameters. Raises UserError."""
    settings = runtime_parameters.changed(settings, task.parameters)
    files = (
        prepare_data(settings, runtime_parameters.home_of(settings), lambda line: log.info("%s", line))
        if reads_data
        else None
    )
    for name, value in runtime_parameters.properties(runtime_parameters.dag(settings, files))[node_id].items():
        json_format.ParseDict(value, task.executor_input.inputs.parameter_values[name])


def execute(task: Task, executor_class: type[BaseExecutor], beam_args: Sequence[str]) -> tuple[Artifacts, Artifacts]:
    """Run the executor and write its outputs to KFP's output file; returns input and output artifacts."""
    names: dict[int, str] = {}
    output_file = Path(task.executor_input.outputs.output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    if issubclass(executor_class, BaseExampleGenExecutor):
        _run_driver(task, output_file)
    inputs = tfx_utils.parse_raw_artifact_dict(task.executor_input.inputs.artifacts, names)
    outputs: Artifacts = tfx_utils.parse_raw_artifact_dict(task.executor_input.outputs.artifacts, names)
    properties = tfx_utils.parse_execution_properties(
        task.executor_input.inputs.parameter_values, {}, task.component.input_definitions
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
    """Run TFX's ExampleGen driver (span, version, fingerprint). Vertex AI runs it before the task; KFP does not."""
    example_gen_driver._run_driver(task.executor_input, task.component.input_definitions)
    driven = json_format.Parse(output_file.read_text(), pb.ExecutorOutput(), ignore_unknown_fields=True)
    for name, value in driven.parameter_values.items():
        task.executor_input.inputs.parameter_values[name].CopyFrom(value)
    for key, found in driven.artifacts.items():
        task.executor_input.outputs.artifacts[key].artifacts[0].metadata.update(
            json_format.MessageToDict(found.artifacts[0].metadata)
        )
    output_file.unlink()


def _executor_output(task: Task, outputs: Artifacts, names: Mapping[int, str]) -> dict[str, Any]:
    translated = pb.ExecutorOutput()
    for key, artifacts in tfx_utils.translate_executor_output(outputs, names).items():
        translated.artifacts[key].CopyFrom(artifacts)
    content: dict[str, Any] = with_uris(json_format.MessageToDict(translated), task.uris)
    return content


def result(inputs: Artifacts, outputs: Artifacts) -> dict[str, Any]:
    """The outcome of the run, as far as this task's artifacts contain it (fields of lineage.Outcome)."""
    found = {artifact.type_name: artifact.mlmd_artifact for artifact in (*_each(inputs), *_each(outputs))}
    return asdict(lineage.outcome_of(found))


def check_pushed(outputs: Artifacts) -> None:
    """Raises NotPushedError if this is a Pusher that pushed nothing."""
    for pushed in outputs.get(keys.PUSHED_MODEL_KEY, []):
        if not pushed.get_int_custom_property("pushed"):
            raise NotPushedError("not blessed, nothing pushed", "The logs of the earlier nodes give the reason.")


def _each(artifacts: Artifacts) -> Iterable[Any]:
    return (artifact for found in artifacts.values() for artifact in found)


def run(arguments: argparse.Namespace, beam_args: Sequence[str]) -> dict[str, Any]:
    """Run the task; returns its result."""
    executor_class = import_utils.import_class_by_path(arguments.executor)
    task = parse(arguments.component, arguments.executor_input)
    if arguments.settings:
        update_properties(task, arguments.node, runtime_parameters.from_json(arguments.settings), arguments.reads_data)
    inputs, outputs = execute(task, executor_class, beam_args)
    check_pushed(outputs)
    return result(inputs, outputs)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="pipeline.kubeflow.entrypoint", description=__doc__, allow_abbrev=False)
    parser.add_argument("--node", required=True, help="node id")
    parser.add_argument("--executor", required=True, help="import path of the TFX executor's class")
    parser.add_argument("--component", required=True, help="input and output definitions of the component, JSON")
    parser.add_argument("--settings", default="", help="settings from which the properties are computed, JSON")
    parser.add_argument("--reads-data", action="store_true", help="the properties depend on the data too")
    parser.add_argument("--executor-input", required=True, help="KFP's ExecutorInput, JSON")
    arguments, beam_args = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    report: dict[str, Any] = {"node": arguments.node, "exit_code": 0, "error": None}
    try:
        report |= run(arguments, beam_args)
    except Exception as e:
        log.exception("node %s failed", arguments.node)
        report["error"], report["exit_code"] = explain(arguments.node, e, None)
        print(f"error: {report['error']}", file=sys.stderr, flush=True)
    print(RESULT_PREFIX, json.dumps(report), flush=True)
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
