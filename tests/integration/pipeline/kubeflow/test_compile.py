"""The package that `compile` writes is reproducible, valid for KFP, and complete. Two of its tasks run in kfp.local."""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components, local
from kfp.client.client import _extract_pipeline_yaml
from kfp.local.subprocess_task_handler import SubprocessTaskHandler
from kfp.pipeline_spec import pipeline_spec_pb2

from components.common.errors import UsageError
from pipeline import settings
from pipeline.kubeflow import runtime_parameters
from pipeline.kubeflow.compile import compiled
from tests.conftest import ROOT, Pipeline

QUICK = ROOT / "configs" / "quick.toml"
ARGO_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")


@pytest.fixture(scope="module")
def executor_configs(text: str) -> dict[str, Any]:
    """The platform spec's part for Kubernetes, by executor."""
    _, platform = yaml.safe_load_all(text)
    configs: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return configs


def test_the_same_settings_give_the_same_bytes_in_another_checkout(
    pipeline: Pipeline, text: str, tmp_path: Path
) -> None:
    checkout, output = tmp_path / "another place", tmp_path / "deeper" / "pipeline.yaml"
    for part in ("components", "pipeline", "serving", "configs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    done = pipeline(
        "compile", "--json", "--config", QUICK, "--output", output, "--home", tmp_path / "home", cwd=checkout
    )
    assert (done.code, done.stderr) == (0, "")
    assert done.json["output"] == str(output)
    assert done.json["parameters"]["train_steps"] == 100
    assert output.read_text() == text


def test_no_path_of_the_compiling_machine_is_in_the_package(text: str) -> None:
    for path in (ROOT, Path.home(), Path.cwd(), Path(sys.prefix)):
        assert path == Path("/") or str(path) not in text


def test_compiling_touches_nothing_at_the_paths_of_the_cluster(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    compiled(settings.load(QUICK, [f"kubeflow.volume_path={volume}"]))
    assert not volume.exists()


def test_kfp_can_load_the_package(text: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(text)
    assert components.load_component_from_text(text).name == "mnist"
    assert set(_extract_pipeline_yaml(str(tmp_path / "pipeline.yaml")).to_dict()) == {"pipeline_spec", "platform_spec"}
    spec, platform = yaml.safe_load_all(text)
    assert spec["schemaVersion"] == "2.1.0"
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())  # raises on unknown fields
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())


def test_the_package_needs_only_what_open_source_kfp_supports(spec: dict[str, Any]) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        assert set(executor) <= {"container", "importer"}
        assert "lifecycle" not in executor["container"]
    for name, task in spec["root"]["dag"]["tasks"].items():
        assert ARGO_NAME.fullmatch(name)
        assert all(ARGO_NAME.fullmatch(needed) for needed in task.get("dependentTasks", []))
        for artifact in task["inputs"].get("artifacts", {}).values():
            producer = spec["components"][f"comp-{artifact['taskOutputArtifact']['producerTask']}"]
            assert artifact["taskOutputArtifact"]["outputArtifactKey"] in producer["outputDefinitions"]["artifacts"]


def test_tasks_that_mount_the_volume_are_never_cached(spec: dict[str, Any], executor_configs: dict[str, Any]) -> None:
    mounted = {label.removeprefix("exec-") for label, config in executor_configs.items() if "pvcMount" in config}
    cached = {k for k, task in spec["root"]["dag"]["tasks"].items() if task["cachingOptions"].get("enableCache")}
    assert mounted == {"ExampleGen", "ExampleValidator", "Baseline", "Pusher"}
    assert cached == set(spec["root"]["dag"]["tasks"]) - mounted
    assert {config["imagePullPolicy"] for config in executor_configs.values()} == {"IfNotPresent"}


def test_parameters_have_defaults_and_reach_the_nodes_that_depend_on_them(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_steps"]["defaultValue"] == 100
    assert parameters["data_source"]["defaultValue"] == "mnist"
    nodes = {
        name: {
            node
            for node, task in spec["root"]["dag"]["tasks"].items()
            if task["inputs"].get("parameters", {}).get(name) == {"componentInputParameter": name}
        }
        for name in parameters
    }
    before_training = {"ExampleGen", "StatisticsGen", "Schema", "ExampleValidator", "Transform"}
    assert "Trainer" in nodes["train_steps"]
    assert not nodes["train_steps"] & before_training
    assert "Evaluator" in nodes["gate_min_accuracy"]
    assert not nodes["gate_min_accuracy"] & {*before_training, "Trainer"}
    assert "Evaluator" in nodes["gate_significance"]
    assert "ExampleGen" in nodes["data_source"]
    assert all(nodes.values())


@pytest.mark.parametrize(
    ("setting", "nodes"),
    [
        ("data.class_names=a,b,c,d,e,f,g,h,i,j", {"Evaluator", "Pusher"}),  # and nothing is trained again
        ("gate.significance=0.05", {"Evaluator", "Pusher"}),
    ],
)
def test_only_the_nodes_that_use_a_setting_depend_on_it(setting: str, nodes: set[str]) -> None:
    before, after = (
        runtime_parameters.properties(runtime_parameters.dag(settings.load(QUICK, overrides)))
        for overrides in ([], [setting])
    )
    assert {node for node in before if before[node] != after[node]} == nodes


def test_resources_of_an_unknown_node_are_rejected() -> None:
    with pytest.raises(UsageError, match="'Trainr', which is not a node"):
        compiled(settings.load(QUICK, ['kubeflow.resources=["Trainr=1,1Gi"]']))


def test_two_tasks_run_under_kfp_local(
    spec: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kfp.local is KFP's own emulation, independent of kfp_emulation.py. The second task reads the first's artifact."""
    spec = copy.deepcopy(spec)
    tasks = {node: spec["root"]["dag"]["tasks"][node] for node in ("ExampleGen", "StatisticsGen")}
    spec["root"]["dag"]["tasks"] = tasks
    tasks["StatisticsGen"]["dependentTasks"] = ["ExampleGen"]  # it can do without its second input, the schema
    for definition in (tasks["StatisticsGen"]["inputs"], spec["components"]["comp-StatisticsGen"]["inputDefinitions"]):
        del definition["artifacts"]["schema"]
    package = yaml.safe_dump(spec).replace("mnist-tfx:0.1.0", "python:local")  # kfp.local requires a Python image
    pipeline = components.load_component_from_text(package)

    # Without a container engine, kfp.local runs only Python functions; make it run the command as a process.
    monkeypatch.setattr(SubprocessTaskHandler, "validate_not_container_component", lambda *_: None)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pipeline(data_source=str(data))  # raises if a task fails

    assert len(list((tmp_path / "root").rglob("Split-*/data_tfrecord-*"))) == 3
    assert len(list((tmp_path / "root").rglob("Split-*/FeatureStats.pb"))) == 3
