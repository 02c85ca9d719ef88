"""What `compile` writes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.client.client import _extract_pipeline_yaml
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.conftest import ROOT, Done, Pipeline, environment, pipeline_command

QUICK = str(ROOT / "configs" / "quick.toml")
ARGO_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")


def compile_in(folder: Path, output: Path) -> Done:
    """Compile with the command line of the checkout in `folder`."""
    command = pipeline_command(
        "compile", "--json", "--config", QUICK, "--output", output, "--home", output.parent / "h"
    )
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("package") / "deeper" / "pipeline.yaml"
    done = compile_in(ROOT, output)
    assert done.code == 0, done.stderr
    assert done.json["output"] == str(output)
    assert done.json["parameters"]["train_steps"] == 100
    assert done.stderr == ""
    return output


@pytest.fixture(scope="module")
def documents(package: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all(package.read_text())
    return spec, platform


def test_the_same_settings_give_the_same_bytes_anywhere(package: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "another place"
    for part in ("components", "pipeline", "serving", "configs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    done = compile_in(checkout, tmp_path / "out" / "pipeline.yaml")
    assert done.code == 0, done.stderr
    assert (tmp_path / "out" / "pipeline.yaml").read_bytes() == package.read_bytes()


def test_nothing_of_the_compiling_machine_is_in_it(package: Path) -> None:
    text = package.read_text()
    for path in (ROOT, Path.home(), Path.cwd(), package.parent, Path(sys.prefix)):
        assert path == Path("/") or str(path) not in text


def test_kfp_can_load_it(package: Path, documents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert components.load_component_from_file(str(package)).name == "mnist"
    assert set(_extract_pipeline_yaml(str(package)).to_dict()) == {"pipeline_spec", "platform_spec"}
    spec, platform = documents
    assert spec["schemaVersion"] == "2.1.0"
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())  # raises on fields that KFP does not know
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())


def test_only_what_open_source_kfp_runs(documents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, _ = documents
    for executor in spec["deploymentSpec"]["executors"].values():
        assert set(executor) <= {"container", "importer"}
        assert "lifecycle" not in executor["container"]
    for name, task in spec["root"]["dag"]["tasks"].items():
        assert ARGO_NAME.fullmatch(name)
        assert all(ARGO_NAME.fullmatch(needed) for needed in task.get("dependentTasks", []))
        for artifact in task["inputs"].get("artifacts", {}).values():
            producer = spec["components"][f"comp-{artifact['taskOutputArtifact']['producerTask']}"]
            assert artifact["taskOutputArtifact"]["outputArtifactKey"] in producer["outputDefinitions"]["artifacts"]


def test_tasks_that_see_the_volume_mount_it_and_are_never_cached(
    documents: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    spec, platform = documents
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounted = {label.removeprefix("exec-") for label, config in executors.items() if "pvcMount" in config}
    cached = {k for k, task in spec["root"]["dag"]["tasks"].items() if task["cachingOptions"].get("enableCache")}
    assert mounted == {"ExampleGen", "Baseline", "Pusher"}
    assert cached == set(spec["root"]["dag"]["tasks"]) - mounted
    assert {config["imagePullPolicy"] for config in executors.values()} == {"IfNotPresent"}


def test_parameters_have_defaults_and_reach_the_nodes_they_concern(
    documents: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    spec, _ = documents
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_steps"]["defaultValue"] == 100
    assert parameters["data_source"]["defaultValue"] == "mnist"
    takers = {
        name: {
            node
            for node, task in spec["root"]["dag"]["tasks"].items()
            if task["inputs"].get("parameters", {}).get(name) == {"componentInputParameter": name}
        }
        for name in parameters
    }
    before_training = {"ExampleGen", "StatisticsGen", "Schema", "ExampleValidator", "Transform"}
    assert "Trainer" in takers["train_steps"]
    assert not takers["train_steps"] & before_training
    assert "Evaluator" in takers["gate_min_accuracy"]
    assert not takers["gate_min_accuracy"] & {*before_training, "Trainer"}
    assert "ExampleGen" in takers["data_source"]
    assert all(takers.values())


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("kubeflow.image=mnist-tfx", 2, "neither a tag nor a digest"),
        ("kubeflow.image=registry:5000/mnist-tfx", 2, "neither a tag nor a digest"),
        ("kubeflow.image_pull_policy=Sometimes", 2, "Always, IfNotPresent, Never"),
        ("kubeflow.volume_claim=My Volume", 2, "volume_claim"),
        ("kubeflow.volume_path=relative", 2, "absolute path"),
        ('kubeflow.resources=["Trainer=fast"]', 2, "NODE=CPU,MEMORY"),
        ('kubeflow.secrets=["proxy"]', 2, "SECRET/KEY=VARIABLE"),
        ("data.source=digits", 2, "says nothing to a task"),
        ("data.source=~/digits", 2, "says nothing to a task"),
        ("data.source=/data/{{x}}", 2, "placeholder"),
        ('beam.args=["--name={{workflow.name}}"]', 2, "placeholder"),
        ("train.steps=0", 2, "train.steps"),
    ],
)
def test_what_cannot_travel_is_refused(pipeline: Pipeline, tmp_path: Path, override: str, code: int, says: str) -> None:
    output = tmp_path / "pipeline.yaml"
    done = pipeline("compile", "--output", output, "--home", tmp_path / "home", "--set", override)
    assert (done.code, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not output.exists()


def test_images_by_tag_or_digest_pass(settings_for: Callable[[str], Any]) -> None:
    digest = "registry:5000/a/b@sha256:" + "0" * 64
    assert [settings_for(image).image for image in ("a:1", "r.io:5000/a/b:1.2_x-y", digest)]


@pytest.fixture
def settings_for() -> Callable[[str], Any]:
    from pipeline.kubeflow_settings import KubeflowSettings

    return lambda image: KubeflowSettings(image=image)


@pytest.mark.parametrize("command", ["compile", "submit"])
def test_without_kfp_it_says_what_to_install(tmp_path: Path, command: str, package: Path) -> None:
    (tmp_path / "kfp").mkdir()
    (tmp_path / "kfp" / "__init__.py").write_text("raise ModuleNotFoundError('No module named kfp', name='kfp')")
    options = {
        "compile": ["--output", str(tmp_path / "p.yaml")],
        "submit": ["--package", str(package), "--host", "http://127.0.0.1:9"],
    }
    done = subprocess.run(
        [*pipeline_command(command, "--json", "--home", tmp_path / "home"), *options[command]],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5
    assert "pip install 'mnist-tfx[kubeflow]'" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 5


def test_an_output_that_cannot_be_written(pipeline: Pipeline, tmp_path: Path) -> None:
    done = pipeline("compile", "--output", "/dev/null/x.yaml", "--home", tmp_path)
    assert done.code == 5
    assert "/dev/null" in done.stderr
