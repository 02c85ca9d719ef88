"""Sections "Run" and "Lineage" as graphs of nodes: who read whose artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.history import Artifact, Execution
from pipeline.report.svg import Box, Flow, flow


def nodes(rows: Sequence[Mapping[str, Any]], executions: Sequence[Execution]) -> Flow:
    """The DAG of a run: a box per node with its state, seconds and reason.

    Args:
        rows: `nodes` of run.json.
        executions: of the run; a node without one has an edge from the node before it.
    """
    after = _predecessors(executions)
    boxes = []
    for k, row in enumerate(rows):
        before = (rows[k - 1]["id"],) if k else ()
        seconds = f", {row['seconds']:.1f} s" if row["state"] not in ("skipped", "waiting") else ""
        boxes.append(
            Box(
                name=row["id"],
                title=f"{row['id']}: {row['state']}{seconds}",
                note=row.get("reason") or "",
                after=after.get(row["id"], before),
                style=row["state"],
            )
        )
    return flow("Nodes of the run, in the order in which they ran", boxes)


def lineage(
    version: str | None, serving: str, executions: Sequence[Execution], data_sha256: Mapping[str, str]
) -> Flow | None:
    """From the version to the data: a box per execution with its MLMD ids; None without executions.

    Only what the version depends on is shown; without a version, all executions are.
    """
    if not executions:
        return None
    needed = _needed(executions)
    kept = [e for e in reversed(executions) if e.node in needed]
    users: dict[str, list[str]] = {}
    for node, before in _predecessors(executions).items():
        for name in before:
            users.setdefault(name, []).append(node)
    boxes = [Box("version", f"version {version}", serving)] if version else []
    for execution in kept:
        after = ["version"] if execution.node == "Pusher" else users.get(execution.node, [])
        made = ", ".join(f"{artifact.type} {artifact.id}" for artifact in _all(execution.outputs))
        cached = "" if execution.ran else " (cached)"
        boxes.append(Box(execution.node, f"{execution.node}, execution {execution.id}{cached}", made, tuple(after)))
    for role, sha256 in data_sha256.items():
        boxes.append(Box(role, role.replace("_", " "), f"sha256 {sha256[:16]}…", ("ExampleGen",), "data"))
    return flow("From the version to the data, with ids of ML Metadata", boxes)


def _needed(executions: Sequence[Execution]) -> set[str]:
    """Nodes whose artifacts the last node depends on, and that node."""
    before, found, left = _predecessors(executions), set(), [executions[-1].node]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += before.get(node, ())
    return found


def _predecessors(executions: Sequence[Execution]) -> dict[str, tuple[str, ...]]:
    """By node: the nodes whose outputs it read."""
    maker = {artifact.id: e.node for e in executions for artifact in _all(e.outputs)}
    return {e.node: tuple(dict.fromkeys(maker[a.id] for a in _all(e.inputs) if a.id in maker)) for e in executions}


def _all(artifacts: Mapping[str, Sequence[Artifact]]) -> list[Artifact]:
    return [artifact for found in artifacts.values() for artifact in found]
