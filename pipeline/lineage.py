"""Questions to ML Metadata (MLMD), answered as plain values. Reads only."""

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
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.types import standard_component_specs as keys

from components.common import contract
from components.common.contract import MANIFEST_PROPERTY
from components.common.errors import InputError
from components.validation.verdict import OVERALL, Check, Verdict

MODEL_RUN, PUSHED_MODEL = "ModelRun", "PushedModel"  # names of TFX's types


@dataclass(frozen=True)
class Outcome:
    """What a run led to, as far as it got.

    Attributes:
        metrics: test_accuracy and test_cross_entropy (TFMA), train_accuracy and eval_accuracy (Trainer).
        blessed: the Evaluator's verdict; None when it did not run.
        infra_blessed: the InfraValidator's verdict; None when it had nothing to validate.
        checks: the Evaluator's, for the table.
        failures: the bounds that the model missed, a line each.
        pushed_destination: folder of the pushed version; None when nothing was pushed.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    infra_blessed: bool | None = None
    checks: list[Check] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    pushed_destination: str | None = None


def outputs(store: MetadataStore, execution_id: int) -> dict[str, list[mlmd.Artifact]]:
    """Output artifacts of an execution by output key, those it took from the cache included."""
    return _artifacts(store, execution_id, _OUTPUT_EVENTS)


def _artifacts(store: MetadataStore, execution_id: int, kinds: Collection[int]) -> dict[str, list[mlmd.Artifact]]:
    """Artifacts by key that an execution has in events of these kinds."""
    events = [event for event in store.get_events_by_execution_ids([execution_id]) if event.type in kinds]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    found: dict[str, list[mlmd.Artifact]] = {}
    for event in events:
        found.setdefault(event.path.steps[0].key, []).append(artifacts[event.artifact_id])
    return found


FINISHED = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
_OUTPUT_EVENTS = (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT, mlmd.Event.DECLARED_OUTPUT)


def outcome(store: MetadataStore, execution_ids: dict[str, int]) -> Outcome:
    """Put together what the nodes of one run published.

    Args:
        execution_ids: by node id; nodes that did not run are simply absent.
    """
    made = (found for i in execution_ids.values() for found in outputs(store, i).values())
    return outcome_of({found[0].type: found[0] for found in made})


def outcome_of(found: dict[str, mlmd.Artifact]) -> Outcome:
    """Put together what these artifacts say, by name of their type; those of other types are passed over."""
    metrics: dict[str, float] = {}
    gate = infra = destination = None
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
    )


@dataclass(frozen=True)
class PushedVersion:
    """What MLMD knows about a pushed version.

    Attributes:
        model_id, evaluation_id, evaluation_uri: the artifacts behind it.
        blessed, infra_blessed: the verdicts of the blessings that let it through.
        manifest_sha256: of its manifest, as it was pushed.
    """

    model_id: int
    evaluation_id: int
    evaluation_uri: str
    blessed: bool
    infra_blessed: bool
    manifest_sha256: str


@contextmanager
def opened(database: Path) -> Iterator[MetadataStore]:
    """The MLMD store of a home. Raises InputError if there is none."""
    if not database.is_file():
        raise InputError(f"{database}: no such file, so nothing is known about what was pushed")
    with metadata.Metadata(sqlite_metadata_connection_config(str(database))) as handle:
        yield handle.store


def pushed_version(store: MetadataStore, version: int) -> PushedVersion | None:
    """Where a pushed version came from; None if no run recorded it."""
    pushed = [
        artifact
        for artifact in store.get_artifacts_by_type("PushedModel")
        if artifact.custom_properties["pushed_version"].string_value == str(version)
    ]
    if not pushed:
        return None
    last = max(pushed, key=lambda artifact: artifact.id)
    given = _artifacts(store, _made_by(store, last)[0], (mlmd.Event.INPUT,))
    (blessing,), (infra,) = given[keys.MODEL_BLESSING_KEY], given[keys.INFRA_BLESSING_KEY]
    # The Resolver of a later run puts the blessing of its baseline out, too: ask for the one with an evaluation.
    made = (outputs(store, execution_id) for execution_id in _made_by(store, blessing))
    evaluation = next(found[keys.EVALUATION_KEY][0] for found in made if keys.EVALUATION_KEY in found)
    return PushedVersion(
        model_id=given[keys.MODEL_KEY][0].id,
        evaluation_id=evaluation.id,
        evaluation_uri=evaluation.uri,
        blessed=blessing.custom_properties["blessed"].int_value == 1,
        infra_blessed=infra.custom_properties["blessed"].int_value == 1,
        manifest_sha256=last.custom_properties[MANIFEST_PROPERTY].string_value,
    )


def _made_by(store: MetadataStore, artifact: mlmd.Artifact) -> list[int]:
    """Executions that put an artifact out, latest first: who made it, who took it from the cache."""
    events = store.get_events_by_artifact_ids([artifact.id])
    return sorted((event.execution_id for event in events if event.type in _OUTPUT_EVENTS), reverse=True)


def earlier_answers(store: MetadataStore, node_context: str, execution_id: int) -> set[frozenset[int]]:
    """The sets of artifacts that a node put out in its finished executions before `execution_id`.

    Args:
        node_context: name of the node's MLMD context, `<pipeline>.<node id>`.
    """
    context = store.get_context_by_type_and_name("node", node_context)
    executions = store.get_executions_by_context(context.id) if context else []
    done = [e.id for e in executions if e.last_known_state in FINISHED and e.id < execution_id]
    return {answer(store, i) for i in done}


def answer(store: MetadataStore, execution_id: int) -> frozenset[int]:
    """Ids of the artifacts that an execution put out."""
    return frozenset(a.id for found in outputs(store, execution_id).values() for a in found)


def _read(artifact: mlmd.Artifact, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(artifact.uri, name).read_text())
    return content
