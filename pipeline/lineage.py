"""Questions to ML Metadata (MLMD), answered as plain values. Reads only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import contract

MODEL_RUN, EVALUATION, PUSHED_MODEL = "ModelRun", "ModelEvaluation", "PushedModel"  # names of TFX's types


@dataclass(frozen=True)
class Outcome:
    """What a run led to, as far as it got.

    Attributes:
        metrics: test_accuracy and test_cross_entropy (TFMA), train_accuracy and eval_accuracy (Trainer).
        blessed: the Evaluator's verdict; None when it did not run.
        failures: the bounds of the gate that the model missed, a line each.
        pushed_destination: folder of the pushed version; None when nothing was pushed.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    failures: list[str] = field(default_factory=list)
    pushed_destination: str | None = None


def outputs(store: MetadataStore, execution_id: int) -> dict[str, list[mlmd.Artifact]]:
    """Output artifacts of an execution by output key, those it took from the cache included."""
    events = [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in _OUTPUT_EVENTS]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
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
    blessed, failures, destination = None, [], None
    if MODEL_RUN in found:
        history = _read(found[MODEL_RUN], contract.HISTORY_FILE)
        metrics |= {name: history[name] for name in ("train_accuracy", "eval_accuracy") if name in history}
    if EVALUATION in found:
        verdict = _read(found[EVALUATION], contract.VERDICT_FILE)
        overall = verdict["slices"]["overall"]
        metrics["test_accuracy"] = overall["sparse_categorical_accuracy"]
        metrics["test_cross_entropy"] = overall["sparse_categorical_crossentropy"]
        blessed, failures = verdict["blessed"], verdict["failures"]
    if PUSHED_MODEL in found:
        pushed = found[PUSHED_MODEL].custom_properties
        if pushed["pushed"].int_value == 1:
            destination = pushed["pushed_destination"].string_value
    return Outcome(metrics, blessed, failures, destination)


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
