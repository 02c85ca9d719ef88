"""Where a pushed version, or a run's results, came from: node by node, back to the hashes of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.common.commands import command
from components.common.errors import InputError
from components.common.home import Home
from components.versions import manifest
from components.versions.release import pushed_versions, read_release, version_folder
from pipeline import history, records
from pipeline.history import Artifact, Execution, History

SERVED = "served"


@dataclass(frozen=True)
class Provenance:
    """The executions that led to a version or a run.

    Attributes:
        version: None if the run pushed nothing.
        executions: those that wrote the artifacts, which may belong to earlier runs; the last node first.
        data_sha256: of each uncompressed IDX file, by role; empty if it is not recorded.
        missing: what is not recorded, in one line each.
    """

    version: str | None
    run_id: str | None
    executions: list[Execution] = field(default_factory=list)
    data_sha256: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        nodes = [
            {
                "id": execution.node,
                "run_id": execution.run_id,
                "execution": execution.id,
                "inputs": [_json(key, artifact) for key, artifact in _pairs(execution.inputs)],
                "outputs": [_json(key, artifact) for key, artifact in _pairs(execution.outputs)],
            }
            for execution in self.executions
        ]
        return {
            "version": self.version,
            "run_id": self.run_id,
            "nodes": nodes,
            "data_sha256": self.data_sha256,
            "missing": self.missing,
        }

    def lines(self) -> Iterator[str]:
        """The tree for a terminal; a node that several others read is shown once."""
        yield f"version {self.version}, of run {self.run_id}" if self.version else f"run {self.run_id}"
        wrote = {artifact.id: e for e in self.executions for _, artifact in _pairs(e.outputs)}
        read = {artifact.id for e in self.executions for _, artifact in _pairs(e.inputs)}
        shown: set[int] = set()

        def branch(execution: Execution, before: str, last: bool) -> Iterator[str]:
            again = execution.id in shown
            shown.add(execution.id)
            made = ", ".join(f"{artifact.type} {artifact.id}" for _, artifact in _pairs(execution.outputs))
            origin = "" if execution.run_id == self.run_id else f", of run {execution.run_id}"
            text = "see above" if again else f"execution {execution.id}{origin}: {made}"
            yield f"{before}{'`-' if last else '|-'} {execution.node} {text}"
            if again:
                return
            inner = before + ("   " if last else "|  ")
            sources = list({wrote[a.id].id: wrote[a.id] for _, a in _pairs(execution.inputs) if a.id in wrote}.values())
            for i, source in enumerate(sources):
                yield from branch(source, inner, i == len(sources) - 1)
            if not execution.inputs and execution.node == "ExampleGen":
                for i, (role, digest) in enumerate(self.data_sha256.items(), 1):
                    yield f"{inner}{'`-' if i == len(self.data_sha256) else '|-'} {role} {digest}"

        ends = [e for e in self.executions if not any(a.id in read for _, a in _pairs(e.outputs))]
        for i, execution in enumerate(ends):
            yield from branch(execution, "", i == len(ends) - 1)
        if not self.executions:
            yield from (f"{role} {digest}" for role, digest in self.data_sha256.items())
        yield from self.missing


def provenance(home: Home, name: str) -> Provenance:
    """Of a version or a run; SERVED is the version that is served.

    Raises:
        InputError: nothing is pushed, or there is no run.
        UsageError: there is no such version or run.
    """
    if name == SERVED:
        name = _served(home)
    with history.opened(home) as past:
        pushed = {v: e for e, v in _pushes(past)} if past else {}
        if past and name in pushed:
            return _of_version(home, past, name, pushed[name])
        if name.isdecimal() and int(name) in pushed_versions(home.root):
            known = manifest.read(version_folder(home.root, int(name)))
            missing = "ML Metadata here has no record of this version: only its manifest says where it came from"
            return Provenance(name, known.run_id, data_sha256=known.data_sha256, missing=[missing])
        run = records.find(home, name)
        ended = [e for e in past.run(run.run_id) if e.succeeded] if past else []
        missing_run = [] if ended else ["ML Metadata here has no record of this run"]
        executions = _upstream(past, [a for e in ended for _, a in _pairs(e.outputs)]) if past else []
        return Provenance(run.version, run.run_id, executions, run.data_sha256 or {}, missing_run)


def _served(home: Home) -> str:
    versions = pushed_versions(home.root)
    stable = read_release(home.root).stable
    if stable is None and not versions:
        raise InputError(f"{home.root}: no version is pushed", f"Run the pipeline: {command('pipeline', 'run')}")
    return str(stable if stable is not None else versions[-1])


def _of_version(home: Home, past: History, version: str, pusher: Execution) -> Provenance:
    executions = _upstream(past, [artifact for _, artifact in _pairs(pusher.outputs)])
    data: dict[str, str] = {}
    missing = []
    try:
        data = manifest.read(version_folder(home.root, int(version))).data_sha256
    except (InputError, ValueError):
        missing.append(f"version {version} is not in the home any more")
        config = past.properties(("custom_config",)).get(pusher.id, {}).get("custom_config")
        data = history.settings_in(config).get("data_sha256", {})
    return Provenance(version, pusher.run_id, executions, data, missing)


def _pushes(past: History) -> Iterator[tuple[Execution, str]]:
    """The execution that wrote each pushed version."""
    versions = past.artifact_properties(("pushed_version",))
    for execution in past.executions:
        if execution.ran:
            for _, artifact in _pairs(execution.outputs):
                if version := versions.get(artifact.id, {}).get("pushed_version"):
                    yield execution, version


def _upstream(past: History, artifacts: list[Artifact]) -> list[Execution]:
    """The executions that wrote these artifacts, and all artifacts that those read; the latest first."""
    wrote = {artifact.id: e for e in reversed(past.executions) if e.ran for _, artifact in _pairs(e.outputs)}
    found: dict[int, Execution] = {}
    todo = [artifact.id for artifact in artifacts]
    while todo:
        execution = wrote.get(todo.pop())
        if execution is not None and execution.id not in found:
            found[execution.id] = execution
            todo += [artifact.id for _, artifact in _pairs(execution.inputs)]
    return sorted(found.values(), key=lambda execution: execution.id, reverse=True)


def _pairs(artifacts: Mapping[str, list[Artifact]]) -> list[tuple[str, Artifact]]:
    return [(key, artifact) for key, found in artifacts.items() for artifact in found]


def _json(key: str, artifact: Artifact) -> dict[str, Any]:
    return {
        "key": key,
        "type": artifact.type,
        "id": artifact.id,
        "folder": str(artifact.folder),
        "exists": artifact.folder.is_dir(),
    }
