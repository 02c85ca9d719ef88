"""Convert KFP's description of a task to what TFX expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from pipeline.kubeflow import runtime_parameters
from pipeline.kubeflow.artifact_paths import local_path


@dataclass
class Task:
    """One task, converted from KFP's description to TFX's.

    Attributes:
        component: the compiled interface, with the types of all artifacts and parameters.
        executor_input: KFP's ExecutorInput, but artifacts have types and local paths, and parameters are TFX's
            execution properties only.
        parameters: values of the runtime parameters, by setting ("train.steps").
        uris: URI in the object store of each artifact, by local path.
    """

    component: pb.ComponentSpec
    executor_input: pb.ExecutorInput
    parameters: dict[str, Any]
    uris: dict[str, str]


def parse(component: str, executor_input: str) -> Task:
    """Parse the JSON arguments of the command line. Unknown fields come from newer versions of KFP and are ignored."""
    spec = json_format.Parse(component, pb.ComponentSpec(), ignore_unknown_fields=True)
    parsed = json_format.Parse(executor_input, pb.ExecutorInput(), ignore_unknown_fields=True)
    uris: dict[str, str] = {}
    for lists, declared in (
        (parsed.inputs.artifacts, spec.input_definitions.artifacts),
        (parsed.outputs.artifacts, spec.output_definitions.artifacts),
    ):
        for key in [key for key in lists if key not in declared]:
            del lists[key]
        for key, found in lists.items():
            for artifact in found.artifacts:
                artifact.type.CopyFrom(declared[key].artifact_type)
                artifact.name = artifact.uri  # TFX derives ids from names, and KFP's names are not unique
                path = local_path(artifact.uri)
                if path != artifact.uri:
                    uris[path] = artifact.uri
                artifact.uri = path

    names = {runtime_parameters.parameter_name(setting): setting for setting in runtime_parameters.RUNTIME_SETTINGS}
    values = parsed.inputs.parameter_values
    parameters = {names[k]: getattr(values[k], values[k].WhichOneof("kind")) for k in list(values) if k in names}
    for key in [key for key in values if key in names]:
        del values[key]
    return Task(spec, parsed, parameters, uris)
