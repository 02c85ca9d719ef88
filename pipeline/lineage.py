"""Read ML Metadata (MLMD): the outcome of a run, the origin of a pushed version."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.types import standard_component_specs as keys

from components.common import contract
from components.common.contract import MANIFEST_PROPERTY
from components.common.errors import InputError
from components.validation.verdict import OVERALL, Check, Verdict

MODEL_RUN, PUSHED_MODEL = "ModelRun", "PushedModel"  # names of TFX's types


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run, as far as it got.

    Attributes:
        metrics: test_accuracy and test_cross_entropy (TFMA), train_accuracy and eval_accuracy (Trainer).
        blessed: the Evaluator's verdict; None when it did not run.
        infra_blessed: the InfraValidator's verdict; None when it did not run.
        checks: the Evaluator's checks, for the table.
        failures: the thresholds that the model missed, one line each.
        pushed_destination: folder of the pushed version; None when nothing was pushed.
        drift: one line for each drift of the data beyond its bound.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    infra_blessed: bool | None = None
    checks: list[Check] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    pushed_destination: str | None = None
    drift: list[str] = field(default_factory=list)


def outputs(store: MetadataStore, execution_id: int) -> dict[str, list[mlmd.Artifact]]:
    """Output artifacts of an execution, which may be a cached one, by output key."""
    return _artifacts(store, execution_id, _OUTPUT_EVENTS)


def _artifacts(store: MetadataStore, execution_id: int, kinds: Collection[int]) -> dict[str, list[mlmd.Artifact]]:
    """Artifacts of an execution's events of these kinds, by key."""
    events = [event for event in store.get_events_by_execution_ids([execution_id]) if event.type in kinds]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    found: dict[str, list[mlmd.Artifact]] = {}
    for event in events:
        found.setdefault(event.path.steps[0].key, []).append(artifacts[event.artifact_id])
    return found


_OUTPUT_EVENTS = (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT, mlmd.Event.DECLARED_OUTPUT)


def outcome(store: MetadataStore, execution_ids: dict[str, int]) -> Outcome:
    """The outcome of one run, from the artifacts of its nodes.

    Args:
        execution_ids: by node id; nodes that did not run are absent.
    """
    made = (found for i in execution_ids.values() for found in outputs(store, i).values())
    return outcome_of({found[0].type: found[0] for found in made})


def outcome_of(found: dict[str, mlmd.Artifact]) -> Outcome:
    """The outcome that artifacts record; `found` has them by type name. Other types are ignored."""
    metrics: dict[str, float] = {}
    gate = infra = destination = None
    drift: list[str] = []
    if "ExampleAnomalies" in found:
        drift = Verdict.read(Path(found["ExampleAnomalies"].uri, contract.DRIFT_FILE)).failures
    if MODEL_RUN in found:
        history = _read(found[MODEL_RUN], contract.HISTORY_FILE)
        metrics |= {name: history[name] for name in ("train_accuracy", "eval_accuracy") if name in history}
    if "ModelBlessing" in found:
        gate = Verdict.read(Path(found["ModelBlessing"].uri, contract.VERDICT_FILE))
        overall = gate.metrics["slices"][OVERALL]
        metrics["test_accuracy"] = overall["sparse_categorical_accuracy"]
        metrics["test_cross_entropy"] = overall["sparse_categorical_crossentropy"]
    if "InfraBlessing" in found and gate and gate.blessed:
        infra = Verdict.read(Path(found["InfraBlessing"].uri, contract.VERDICT_FILE))
    if PUSHED_MODEL in found:
        pushed = found[PUSHED_MODEL].custom_properties
        if pushed["pushed"].int_value == 1:
            destination = pushed["pushed_destination"].string_value
    return Outcome(
        metrics=metrics,
        blessed=gate.blessed if gate else None,
        infra_blessed=infra.blessed if infra else None,
        checks=list(gate.checks) if gate else [],
        failures=[line for verdict in (gate, infra) if verdict for line in verdict.failures],
        pushed_destination=destination,
        drift=drift,
    )


@dataclass(frozen=True)
class PushedVersion:
    """What MLMD records about a pushed version.

    Attributes:
        model_id, evaluation_id, evaluation_uri: its Model and ModelEvaluation artifacts.
        blessed, infra_blessed: the verdicts of its two blessings.
        manifest_sha256: hash of its manifest when it was pushed.
    """

    model_id: int
    evaluation_id: int
    evaluation_uri: str
    blessed: bool
    infra_blessed: bool
    manifest_sha256: str


def connection_config(database: Path) -> mlmd.ConnectionConfig:
    """The connection to a home's database.

    Unlike TFX's function, this creates no folder: on a machine that compiles for Kubeflow, there is no home.
    """
    sqlite = mlmd.SqliteMetadataSourceConfig(
        filename_uri=str(database), connection_mode=mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    )
    return mlmd.ConnectionConfig(sqlite=sqlite)


@contextmanager
def opened(database: Path) -> Iterator[MetadataStore]:
    """The MLMD store of a home. Raises InputError if there is none."""
    if not database.is_file():
        raise InputError(f"{database}: no such file, so there is no record of what was pushed")
    with metadata.Metadata(connection_config(database)) as handle:
        yield handle.store


def pushed_version(store: MetadataStore, version: int) -> PushedVersion | None:
    """The origin of a pushed version; None if no run recorded it."""
    pushed = [
        artifact
        for artifact in store.get_artifacts_by_type("PushedModel")
        if artifact.custom_properties["pushed_version"].string_value == str(version)
    ]
    if not pushed:
        return None
    last = max(pushed, key=lambda artifact: artifact.id)
    given = _artifacts(store, _producers(store, last)[0], (mlmd.Event.INPUT,))
    (blessing,), (infra,) = given[keys.MODEL_BLESSING_KEY], given[keys.INFRA_BLESSING_KEY]
    # In homes of version 0.1.0, a Resolver also output its baseline's blessing: use the execution with an evaluation.
    made = (outputs(store, execution_id) for execution_id in _producers(store, blessing))
    evaluation = next(found[keys.EVALUATION_KEY][0] for found in made if keys.EVALUATION_KEY in found)
    return PushedVersion(
        model_id=given[keys.MODEL_KEY][0].id,
        evaluation_id=evaluation.id,
        evaluation_uri=evaluation.uri,
        blessed=blessing.custom_properties["blessed"].int_value == 1,
        infra_blessed=infra.custom_properties["blessed"].int_value == 1,
        manifest_sha256=last.custom_properties[MANIFEST_PROPERTY].string_value,
    )


def _producers(store: MetadataStore, artifact: mlmd.Artifact) -> list[int]:
    """Executions with this output, latest first: the one that wrote it, and those that took it from the cache."""
    events = store.get_events_by_artifact_ids([artifact.id])
    return sorted((event.execution_id for event in events if event.type in _OUTPUT_EVENTS), reverse=True)


def _read(artifact: mlmd.Artifact, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(artifact.uri, name).read_text())
    return content
