"""Homes with runs in a real MLMD store, and small files as their artifacts, without running a pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types import standard_component_specs as keys

from components.common.contract import MANIFEST_PROPERTY
from components.common.home import RESULT_FILE, Home
from components.versions import manifest
from pipeline.lineage import connection_config
from pipeline.node_keys import PARAMETER, NodeKey
from tests.support.pushed import push

NODES: Final = {  # output keys and types; inputs by key: node and output key
    "ExampleGen": ({"examples": "Examples"}, {}),
    "Trainer": ({keys.MODEL_KEY: "Model"}, {}),
    "Evaluator": ({keys.EVALUATION_KEY: "ModelEvaluation", keys.BLESSING_KEY: "ModelBlessing"}, {}),
    "InfraValidator": ({keys.BLESSING_KEY: "InfraBlessing"}, {}),
    "Pusher": (
        {keys.PUSHED_MODEL_KEY: "PushedModel"},
        {
            keys.MODEL_KEY: ("Trainer", keys.MODEL_KEY),
            keys.MODEL_BLESSING_KEY: ("Evaluator", keys.BLESSING_KEY),
            keys.INFRA_BLESSING_KEY: ("InfraValidator", keys.BLESSING_KEY),
        },
    ),
}
FILE_BYTES: Final = 1000  # of each artifact


class RecordedHome(Home):
    """A home; `run` adds a run to it."""

    @property
    def store(self) -> MetadataStore:
        return MetadataStore(connection_config(self.metadata))

    def run(
        self, name: str, version: int, last: str = "Pusher", keys: Mapping[str, NodeKey] | None = None, **result: Any
    ) -> dict[str, Path]:
        """Record a run that pushes `version`, or ends after node `last`.

        A run with the version of an earlier one takes what is LIVE of its artifacts from the cache, as TFX does.

        Args:
            keys: what each node's result depends on; runs of older versions did not record it.
            result: further fields of run.json.

        Returns:
            Folders by "node/key".
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        store, made = self.store, {}
        kind = store.put_context_type(mlmd.ContextType(name="pipeline_run"))
        (run,) = store.put_contexts([mlmd.Context(type_id=kind, name=name)])
        logs = self.logs(name)
        logs.mkdir(parents=True)
        (logs / "startup.log").write_text("log")
        (logs / RESULT_FILE).write_text(json.dumps({"run_id": name} | result))
        texts = {node: key.text for node, key in (keys or {}).items()}
        for node, (outputs, inputs) in NODES.items():
            made |= self._execute(
                store,
                run,
                node,
                outputs,
                {key: made["/".join(of)] for key, of in inputs.items()},
                version,
                texts.get(node),
            )
            if node == last:
                break
        return {name: Path(artifact.uri) for name, artifact in made.items()}

    def _execute(
        self,
        store: MetadataStore,
        run: int,
        node: str,
        outputs: dict[str, str],
        inputs: dict[str, mlmd.Artifact],
        version: int,
        key: str | None,
    ) -> dict[str, mlmd.Artifact]:
        before = {a.name: a for a in store.get_artifacts()}
        names = {key: f"{node}/{key}/{version}" for key in outputs}
        cached = all(name in before and before[name].state == mlmd.Artifact.LIVE for name in names.values())
        state = mlmd.Execution.CACHED if cached else mlmd.Execution.COMPLETE
        kind = store.put_execution_type(mlmd.ExecutionType(name=node))
        execution = mlmd.Execution(type_id=kind, last_known_state=state)
        if key is not None:
            execution.custom_properties[PARAMETER].string_value = key
        (number,) = store.put_executions([execution])
        store.put_attributions_and_associations([], [mlmd.Association(execution_id=number, context_id=run)])
        made, events = {}, []
        for output, type_name in outputs.items():
            artifact = before.get(names[output]) if cached else None
            if artifact is None:
                folder = self.artifacts / node / output / str(number)
                folder.mkdir(parents=True)
                (folder / "file").write_bytes(b"x" * FILE_BYTES)
                type_id = store.put_artifact_type(mlmd.ArtifactType(name=type_name))
                artifact = mlmd.Artifact(type_id=type_id, uri=str(folder), state=mlmd.Artifact.LIVE)
                artifact.name = names[output] if names[output] not in before else f"{names[output]} {number}"
                if type_name == "PushedModel":
                    self._push(artifact, version)
                (artifact.id,) = store.put_artifacts([artifact])
            made[f"{node}/{output}"] = artifact
            events.append(_event(mlmd.Event.OUTPUT, output, artifact.id, number))
        events += [_event(mlmd.Event.INPUT, key, artifact.id, number) for key, artifact in inputs.items()]
        store.put_events(events)
        return made

    def _push(self, artifact: mlmd.Artifact, version: int) -> None:
        folder = self.serving_model / str(version)
        if not folder.exists():
            push(self.root, version)
        artifact.custom_properties["pushed"].int_value = 1
        artifact.custom_properties["pushed_version"].string_value = str(version)
        artifact.custom_properties["pushed_destination"].string_value = str(folder)
        artifact.custom_properties[MANIFEST_PROPERTY].string_value = manifest.sha256(folder / manifest.FILE_NAME)

    def states(self) -> dict[Path, bool]:
        """Whether each artifact is LIVE, by folder."""
        return {Path(a.uri): a.state == mlmd.Artifact.LIVE for a in self.store.get_artifacts()}


def _event(kind: int, key: str, artifact_id: int, execution_id: int) -> mlmd.Event:
    path = mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=key), mlmd.Event.Path.Step(index=0)])
    return mlmd.Event(type=kind, path=path, artifact_id=artifact_id, execution_id=execution_id)
