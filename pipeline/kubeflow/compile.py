"""Compile the DAG for Kubeflow Pipelines: a bare PipelineSpec of schema 2.1.0 and a platform spec, in one YAML file.

TFX's KubeflowV2DagRunner builds the spec for Vertex AI; this module changes it to what open-source KFP needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import yaml

from components.common.errors import InputError, UsageError
from components.common.home import Home
from components.common.settings import REAL_MNIST
from pipeline.kubeflow import runtime_parameters
from pipeline.output_capture import captured
from pipeline.settings import Settings

COMMAND: Final = ["python", "-m", "pipeline.kubeflow.entrypoint"]
EXTRA: Final = "Install this project with its extra 'kubeflow' (in a clone: make setup)."
HEADER: Final = "# Compiled by `python -m pipeline compile`. Do not edit: change the settings and compile again.\n"
_TYPES: Final = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", str: "STRING", bool: "BOOLEAN"}
_TEMPLATE: Final = "{{"  # starts a placeholder in KFP and Argo


def write(settings: Settings, output: Path, home: Home) -> dict[str, Any]:
    """Compile to `output`, atomically; library messages go to the home's logs.

    Returns:
        output, image, nodes in alphabetical order, parameters with their defaults.

    Raises:
        UsageError: as `compiled`.
        InputError: as `compiled`, or `output` or the home is not writable.
    """
    check(settings)
    require_kfp()
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with captured(home.logs("compile")):
            text = compiled(settings)
        temporary.write_text(text)
        temporary.replace(output)
    except OSError as e:
        raise InputError(
            f"{e.filename or output}: cannot be written ({e.strerror})", "Name another --output or --home."
        ) from e
    spec = next(iter(yaml.safe_load_all(text)))
    parameters = {k: v["defaultValue"] for k, v in spec["root"]["inputDefinitions"]["parameters"].items()}
    nodes = list(spec["root"]["dag"]["tasks"])
    return {"output": str(output), "image": settings.kubeflow.image, "nodes": nodes, "parameters": parameters}


def compiled(settings: Settings) -> str:
    """The package as YAML; equal settings produce equal bytes, on any machine.

    Raises:
        UsageError: a setting that a cluster cannot use.
        InputError: the extra `kubeflow` is not installed.
    """
    check(settings)
    require_kfp()
    from pipeline.kubeflow.platform_spec import platform_spec

    pipeline = runtime_parameters.dag(settings)
    properties = runtime_parameters.properties(pipeline)
    _check_nodes(settings, set(properties))
    spec = _tfx_spec(pipeline, settings.kubeflow.image)
    affected = {setting: _affected_by(settings, setting, properties) for setting in runtime_parameters.RUNTIME_SETTINGS}
    other_data = runtime_parameters.properties(
        runtime_parameters.dag(settings, runtime_parameters.expected_files(settings, "another content"))
    )
    readers = {node for node in properties if other_data[node] != properties[node]}
    with_volume = {*_affected_by(settings, "kubeflow.volume_path", properties), *readers}

    _name_as_kfp_does(spec)
    _add_parameters(spec, settings, affected)
    for node, task in spec["root"]["dag"]["tasks"].items():
        # A task that mounts the volume reads or writes more than its artifacts; KFP's cache key does not cover that.
        task["cachingOptions"] = {} if node in with_volume else {"enableCache": True}
        container = spec["deploymentSpec"]["executors"][_executor(node)]["container"]
        container.pop("lifecycle", None)  # KFP ignores it; the entrypoint runs the driver
        container["args"] = _arguments(node, container["args"], spec)
        if node in readers or any(node in nodes for nodes in affected.values()):
            container["args"].insert(0, f"--settings={runtime_parameters.to_json(settings)}")
        if node in readers:
            container["args"].insert(0, "--reads-data")
        if resources := settings.kubeflow.resources_of(node):
            container["resources"] = {"resourceCpuLimit": resources.cpu, "resourceMemoryLimit": resources.memory}
            container["resources"] |= {"resourceCpuRequest": resources.cpu, "resourceMemoryRequest": resources.memory}

    labels = [_executor(node) for node in properties]
    platform = platform_spec(settings.kubeflow, labels, {_executor(node) for node in with_volume})
    documents: str = yaml.safe_dump_all([spec, platform], sort_keys=True, width=120)
    return HEADER + documents


def check(settings: Settings) -> None:
    """Raises UsageError for a setting that a cluster cannot use."""
    source = settings.data.source
    if source != REAL_MNIST and not source.startswith("/"):
        raise UsageError(
            f"data.source is '{source}', which is not an absolute path, so tasks in a cluster cannot find it",
            f"Name the folder by its path in the task, below {settings.kubeflow.volume_path} or in the image.",
        )
    for section, values in asdict(settings).items():
        for key, value in values.items():
            if _TEMPLATE in json.dumps(value):
                raise UsageError(
                    f"{section}.{key} contains '{_TEMPLATE}', which starts a placeholder in Kubeflow Pipelines",
                    "Use a value without it.",
                )


def require_kfp() -> None:
    """Raises InputError if the packages for compiling and submitting are missing."""
    try:
        import kfp.kubernetes
        import kfp.pipeline_spec  # noqa: F401
    except ImportError as e:
        raise InputError(f"the package kfp is not installed ({e.name or e})", EXTRA) from e


def _tfx_spec(pipeline: Any, image: str) -> dict[str, Any]:
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as tfx_runner

    config = tfx_runner.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=COMMAND, use_pipeline_spec_2_1=True
    )
    spec: dict[str, Any] = tfx_runner.KubeflowV2DagRunner(config).run(pipeline, write_out=False)["pipelineSpec"]
    return spec


def _affected_by(settings: Settings, setting: str, properties: Mapping[str, Any]) -> list[str]:
    """The nodes that depend on a setting, because their properties change with it."""
    other = runtime_parameters.changed(settings, {setting: _another(runtime_parameters.value_of(settings, setting))})
    now = runtime_parameters.properties(runtime_parameters.dag(other))
    return [node for node in properties if now[node] != properties[node]]


def _another(value: Any) -> Any:
    """A different valid value of the same type."""
    if isinstance(value, str):
        return f"{value.removeprefix(REAL_MNIST)}/another"
    return value + 1 if isinstance(value, int) else (value / 2 or 0.5)


def _executor(node: str) -> str:
    return f"exec-{node}"


def _name_as_kfp_does(spec: dict[str, Any]) -> None:
    """Add the prefixes of KFP's own compiler to component and executor names; KFP's local runner requires them."""
    spec["components"] = {
        f"comp-{node}": component | {"executorLabel": _executor(node)} for node, component in spec["components"].items()
    }
    executors = spec["deploymentSpec"]["executors"]
    spec["deploymentSpec"]["executors"] = {_executor(k.removesuffix("_executor")): v for k, v in executors.items()}
    for node, task in spec["root"]["dag"]["tasks"].items():
        task["componentRef"] = {"name": f"comp-{node}"}


def _add_parameters(spec: dict[str, Any], settings: Settings, affected: Mapping[str, list[str]]) -> None:
    """Declare the runtime parameters with their defaults, and pass them to the nodes that depend on them."""
    inputs = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for setting, nodes in affected.items():
        name, default = runtime_parameters.parameter_name(setting), runtime_parameters.value_of(settings, setting)
        kind = {"parameterType": _TYPES[type(default)]}
        inputs[name] = kind | {"defaultValue": default, "isOptional": True, "description": f"The setting {setting}."}
        for node in nodes:
            component = spec["components"][f"comp-{node}"].setdefault("inputDefinitions", {})
            component.setdefault("parameters", {})[name] = dict(kind)
            task_inputs = spec["root"]["dag"]["tasks"][node].setdefault("inputs", {})
            task_inputs.setdefault("parameters", {})[name] = {"componentInputParameter": name}


def _arguments(node: str, tfx: list[str], spec: Mapping[str, Any]) -> list[str]:
    """The entrypoint's arguments, which replace TFX's first six; the rest are Beam's."""
    flags = dict(zip(tfx[:6:2], tfx[1:6:2], strict=True))
    component = {k: v for k, v in spec["components"][f"comp-{node}"].items() if k.endswith("Definitions")}
    return [
        f"--node={node}",
        f"--executor={flags['--executor_class_path']}",
        f"--component={json.dumps(component, sort_keys=True)}",
        "--executor-input={{$}}",
        *tfx[6:],
    ]


def _check_nodes(settings: Settings, nodes: set[str]) -> None:
    if unknown := settings.kubeflow.nodes_with_resources() - nodes:
        raise UsageError(
            f"kubeflow.resources names '{min(unknown)}', which is not a node", f"Nodes: {', '.join(sorted(nodes))}"
        )
