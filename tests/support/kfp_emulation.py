"""An emulation of open-source KFP's driver and launcher, to run a compiled package without a cluster.

It follows KFP's source, not the expectations of TFX: each task has its own file system, inputs come from an object
store by URI and without their types, each task has an undeclared output `executor-logs`, empty folders are lost, nulls
in metadata are rejected, and a volume exists only while a task that mounts it runs. Each task is a fork of
module_host.py, which imports TFX once. Not emulated: pods, images, permissions, KFP's cache, parallel tasks.
"""

from __future__ import annotations

import graphlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from pipeline.kubeflow.artifact_paths import ROOT_VARIABLE
from pipeline.kubeflow.compile import COMMAND
from pipeline.kubeflow.watch import task_report
from tests.support.module_host import ModuleHost

REPOSITORY = Path(__file__).resolve().parents[2]
BUCKET = "minio://mlpipeline/v2/artifacts"
Artifact = dict[str, Any]


@dataclass(frozen=True)
class TaskRun:
    """A finished task: its log, and its registered output artifacts by key."""

    code: int
    log: str
    outputs: dict[str, Artifact]

    @property
    def report(self) -> dict[str, Any]:
        return task_report(self.log)


class TaskFailed(Exception):
    """A task failed; `runs` are all tasks so far, by node."""

    def __init__(self, node: str, runs: dict[str, TaskRun]) -> None:
        super().__init__(f"{node} exited {runs[node].code}\n{runs[node].log[-6000:]}")
        self.node = node
        self.runs = runs


class Cluster:
    """An object store and volumes in `root`, and the package to run. Tasks run only inside this context manager."""

    def __init__(self, root: Path, package: Path) -> None:
        self.spec, self.platform = yaml.safe_load_all(package.read_text())
        self._objects = root / "objects"
        self._claims = root / "claims"
        self._scratch = root / "pods"

    def __enter__(self) -> Self:
        variables = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "_KFP_RUNTIME": "true",  # as in the image
            **{k: v for k, v in os.environ.items() if k.startswith("COVERAGE")},
        }
        self._host = ModuleHost(variables)
        self._variables = variables
        return self

    def __exit__(self, *_: object) -> None:
        self._host.close()

    def claim(self, name: str) -> Path:
        """The content of a PersistentVolumeClaim."""
        folder = self._claims / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def content(self, artifact: Artifact) -> Path:
        """Return the path of an artifact in the object store."""
        return self._objects / artifact["uri"].removeprefix("minio://")

    def downstream(self, node: str) -> set[str]:
        """Return a node and all nodes that depend on it."""
        found = {node}
        tasks = self.spec["root"]["dag"]["tasks"]
        while more := {k for k, t in tasks.items() if found & set(t.get("dependentTasks", []))} - found:
            found |= more
        return found

    def run(
        self, arguments: Mapping[str, Any] | None = None, done: Mapping[str, TaskRun] | None = None
    ) -> dict[str, TaskRun]:
        """Run all tasks except those in `done`, whose outputs are reused. Raises TaskFailed."""
        definitions = self.spec["root"]["inputDefinitions"]["parameters"]
        given = dict(arguments or {})
        assert given.keys() <= definitions.keys(), "the API server rejects unknown parameters"
        parameters = {name: given.get(name, spec["defaultValue"]) for name, spec in definitions.items()}
        runs = dict(done or {})
        run_id = uuid.uuid4().hex[:8]
        tasks = self.spec["root"]["dag"]["tasks"]
        for node in graphlib.TopologicalSorter(
            {k: t.get("dependentTasks", []) for k, t in tasks.items()}
        ).static_order():
            if node not in runs:
                runs[node] = self._run_task(run_id, node, parameters, runs)
                if runs[node].code:
                    raise TaskFailed(node, runs)
        return runs

    def _run_task(self, run_id: str, node: str, parameters: Mapping[str, Any], runs: Mapping[str, TaskRun]) -> TaskRun:
        pod = self._scratch / f"{node}-{uuid.uuid4().hex[:8]}"
        pod.mkdir(parents=True)
        executor_input = self._drive(run_id, node, parameters, runs, pod)
        label = self._component(node)["executorLabel"]
        try:
            config = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
            labels = {"metadata.labels['pipeline/runid']": run_id}
            variables = {given["name"]: labels[given["fieldPath"]] for given in config["fieldPathAsEnv"]}
            container = self.spec["deploymentSpec"]["executors"][label]["container"]
            with self._mounted(config.get("pvcMount", [])):
                return self._launch(container, executor_input, variables, pod)
        finally:
            shutil.rmtree(pod)

    def _component(self, node: str) -> dict[str, Any]:
        component: dict[str, Any] = self.spec["components"][
            self.spec["root"]["dag"]["tasks"][node]["componentRef"]["name"]
        ]
        return component

    def _drive(
        self, run_id: str, node: str, parameters: Mapping[str, Any], runs: Mapping[str, TaskRun], pod: Path
    ) -> dict[str, Any]:
        """The driver: resolve inputs and prepare outputs, as an ExecutorInput in JSON."""
        inputs = self.spec["root"]["dag"]["tasks"][node].get("inputs", {})
        values = {
            name: parameters[given["componentInputParameter"]]
            if "componentInputParameter" in given
            else given["runtimeValue"]["constant"]
            for name, given in inputs.get("parameters", {}).items()
        }
        artifacts = {}
        for key, given in inputs.get("artifacts", {}).items():
            source = given["taskOutputArtifact"]
            artifact = runs[source["producerTask"]].outputs[source["outputArtifactKey"]]
            artifacts[key] = {"artifacts": [artifact | {"type": {"instanceSchema": ""}}]}
        base = f"{BUCKET}/{self.spec['pipelineInfo']['name']}/{run_id}/{node}"
        declared = {k: v["artifactType"] for k, v in self._component(node)["outputDefinitions"]["artifacts"].items()}
        declared["executor-logs"] = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
        outputs = {
            k: {"artifacts": [{"name": k, "uri": f"{base}/{k}", "type": v, "metadata": {}}]}
            for k, v in declared.items()
        }
        return {
            "inputs": {"parameterValues": values, "artifacts": artifacts},
            "outputs": {"artifacts": outputs, "outputFile": str(pod / "tmp/kfp_outputs/output_metadata.json")},
        }

    def _launch(
        self, container: Mapping[str, Any], executor_input: dict[str, Any], variables: Mapping[str, str], pod: Path
    ) -> TaskRun:
        """The launcher: download, run the command, upload, register."""
        for found in executor_input["inputs"]["artifacts"].values():
            for artifact in found["artifacts"]:
                _copy_files(self.content(artifact), self._local(pod, artifact))
        outputs = {key: found["artifacts"][0] for key, found in executor_input["outputs"]["artifacts"].items()}
        for artifact in outputs.values():
            self._local(pod, artifact).parent.mkdir(parents=True, exist_ok=True)
        (pod / "tmp").mkdir()
        log_file = self._local(pod, outputs["executor-logs"])
        temporary = str(pod / "tmp")
        assert container["command"] == COMMAND
        arguments = [arg.replace("{{$}}", json.dumps(executor_input)) for arg in container["args"]]
        environment = self._variables | {"HOME": temporary, "TMPDIR": temporary, ROOT_VARIABLE: str(pod), **variables}
        code = self._host.run(COMMAND[-1], arguments, pod, environment, log_file, log_file)
        log = log_file.read_text(errors="replace")
        if code:
            return TaskRun(code, log, {})
        output_file = Path(executor_input["outputs"]["outputFile"])
        written = json_format.Parse(output_file.read_text(), pb.ExecutorOutput())  # the launcher rejects other fields
        for key, artifact in outputs.items():
            for registered in written.artifacts[key].artifacts if key in written.artifacts else []:
                assert registered.uri == artifact["uri"], "a task must not move its artifacts"
                metadata = json_format.MessageToDict(registered.metadata)
                assert None not in metadata.values(), "the launcher rejects nulls"
                assert str(pod) not in json.dumps(metadata), "another pod cannot use a path of this one"
                artifact["metadata"] |= metadata
            _copy_files(self._local(pod, artifact), self.content(artifact))
        return TaskRun(0, log, outputs)

    def _local(self, pod: Path, artifact: Artifact) -> Path:
        return pod / "minio" / artifact["uri"].removeprefix("minio://")

    @contextmanager
    def _mounted(self, config: Sequence[Mapping[str, str]]) -> Iterator[None]:
        mounts = [(Path(mount["mountPath"]), self.claim(mount["constant"])) for mount in config]
        for path, claim in mounts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(claim)
        try:
            yield
        finally:
            for path, _ in mounts:
                path.unlink()


def _copy_files(source: Path, target: Path) -> None:
    """Copy files only, like an object store: empty folders are lost, and a missing source is not an error."""
    for path in [source, *source.rglob("*")] if source.exists() else []:
        if path.is_file():
            place = target / path.relative_to(source) if path != source else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
