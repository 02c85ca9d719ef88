"""Whether each node runs or comes from the cache, and why. `run --plan` and the run itself both ask here."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.common.contract import HISTORY_FILE, MANIFEST_PROPERTY, UNVERIFIED_VERSIONS
from components.common.errors import InputError, UsageError
from components.common.home import Home
from components.common.settings import REAL_MNIST
from components.data import accepted, idx, mnist
from components.data.idx import IdxFiles
from components.versions import manifest, publish
from pipeline import history, unchanged
from pipeline.history import Artifact, Execution, History
from pipeline.node_keys import PARAMETER, USED, NodeKey, differences, listed, node_keys
from pipeline.settings import Settings
from pipeline.unchanged import UnverifiedVersions

NODES: Final = tuple(USED)
# Properties of artifacts: of the Baseline's model, of the ExampleValidator's anomalies, of the Pusher's PushedModel.
_CHOICE, _COMPARED, _IDENTITY, _DESTINATION = "choice", "compared_with", "data_identity", "pushed_destination"


@dataclass(frozen=True)
class Decision:
    """Whether a node's result comes from the cache, and why, or why not."""

    node: str
    cached: bool
    reason: str


@dataclass(frozen=True)
class Planner:
    """Decides for one run.

    Attributes:
        keys: of each node.
        unverified: pushed versions that do not match the record of a run.
        forced: why a node is to run whatever the cache has, by node.
    """

    home: Home
    settings: Settings
    keys: Mapping[str, NodeKey]
    unverified: UnverifiedVersions
    forced: Mapping[str, str]

    def decide_now(self, node: str, execution_ids: Mapping[str, int]) -> Decision:
        """`decide` in a run, of which these are the executions so far, by node."""
        with history.opened(self.home) as past:
            ids = {number: name for name, number in execution_ids.items()}
            current = {ids[e.id]: e for e in past.executions if e.id in ids} if past else {}
            return self.decide(node, past, current)[0]

    def decide(
        self, node: str, past: History | None, current: Mapping[str, Execution]
    ) -> tuple[Decision, Execution | None]:
        """The decision about a node, and the execution whose outputs it takes from the cache.

        Args:
            current: this run's executions so far, or those that it will take from the cache; nodes that will run are
                absent.
        """
        if node in self.forced:
            return Decision(node, False, self.forced[node]), None
        attempts = [e for e in reversed(past.executions) if e.node == node] if past else []
        earlier = [execution for execution in attempts if execution.succeeded]
        unfinished = [f"did not finish in run {e.run_id}" for e in attempts[:1] if not e.succeeded]
        if past is None or not earlier:
            return Decision(node, False, listed(unfinished) or "not run before"), None
        available = {a.id for execution in current.values() for a in _flat(execution.outputs)}
        key, texts, problems = self.keys[node].text, past.properties((PARAMETER, UNVERIFIED_VERSIONS)), []
        for execution in earlier:
            known = texts.get(execution.id, {})
            if known.get(PARAMETER) == key and not _new_inputs(execution, available):
                problem = self._problem(execution, past, known.get(UNVERIFIED_VERSIONS) or "")
                if problem is None:
                    return Decision(node, True, f"same as run {_origin(execution, earlier).run_id}"), execution
                problems.append(problem)
        if problems:
            return Decision(node, False, problems[0]), None
        before = texts.get(earlier[0].id, {}).get(PARAMETER)
        lines = _changes(before, key, earlier[0].run_id)
        if new := _new_inputs(earlier[0], available):
            lines.append(f"input {new[0]} is new" if len(new) == 1 else f"inputs {', '.join(new)} are new")
        return Decision(node, False, listed(lines + unfinished)), None

    def _problem(self, execution: Execution, past: History, unverified: str) -> str | None:
        """Why the outputs of an execution with the same key and inputs cannot be used; None if they can."""
        properties = past.artifact_properties((_CHOICE, _COMPARED, _IDENTITY, _DESTINATION))
        for artifact in _flat(execution.outputs):
            known = properties.get(artifact.id, {})
            if (destination := known.get(_DESTINATION)) and not Path(destination).exists():
                return f"version {Path(destination).name} is gone"
            if problem := unchanged.damage(artifact.id, artifact.folder, self.home.artifacts):
                return f"output {artifact.type} {problem}"
            if not artifact.live:
                return f"output {artifact.type} was removed"
            if _IDENTITY in known:
                latest = accepted.previous(self.home.accepted_statistics, known[_IDENTITY])
                if (latest.name if latest else "") != known[_COMPARED]:
                    return "the data to compare with is new"
            if _CHOICE in known:
                return self._other_baseline(known[_CHOICE] or "", _flat(execution.inputs)[0])
        if execution.node == "Pusher" and unverified != unverified_text(self.unverified):
            numbers = sorted({*self.unverified.tampered, *self.unverified.unrecorded})
            return f"version {', '.join(map(str, numbers))} is not what a run pushed" if numbers else "versions changed"
        return None

    def _other_baseline(self, before: str, candidate: Artifact) -> str | None:
        """How the baseline differs from the one before, as components/baseline.py chooses it; None if it does not."""
        try:
            weights = json.loads((candidate.folder / HISTORY_FILE).read_text())["weights_sha256"]
        except (OSError, ValueError, KeyError):
            return "the weights of the candidate are not recorded"
        size = {name: getattr(self.settings.data, name) for name in ("image_height", "image_width", "classes")}
        pushed = False
        for number in reversed(publish.versions(self.home.serving_model)):
            try:
                known = manifest.verify(self.home.serving_model / str(number))
            except InputError:
                continue
            if known.weights_sha256 == weights:
                pushed = True
            elif number not in self.unverified.tampered and size.items() <= known.settings.get("data", {}).items():
                now = f"{number} {known.weights_sha256}"
                return None if now == before else f"the baseline is now version {number}"
        return None if pushed or not before else "the baseline is gone"


def plan(settings: Settings, home: Home, forced: Mapping[str, str]) -> list[Decision]:
    """What a run with these settings would do. Changes nothing, downloads nothing. Raises InputError."""
    current: dict[str, Execution] = {}
    decisions = []
    with history.opened(home) as past:
        planner = Planner(
            home, settings, node_keys(settings, home, data_sha256(settings)), _unverified(home, past), forced
        )
        for node in NODES:
            decision, source = planner.decide(node, past, current)
            decisions.append(decision)
            if source:
                current[node] = source
    return decisions


def described(decisions: Sequence[Decision], *, as_json: bool) -> str:
    """The plan for a terminal, or as a JSON object {"plan": [{"id", "state": "run" or "cached", "reason"}]}."""
    states = [(one.node, "cached" if one.cached else "run", one.reason) for one in decisions]
    if as_json:
        return json.dumps({"plan": [{"id": node, "state": state, "reason": reason} for node, state, reason in states]})
    lines = [f"{node:<18} {state:<8} {reason}" for node, state, reason in states]
    running = sum(not one.cached for one in decisions)
    return "\n".join([*lines, f"{running} of {len(decisions)} nodes would run; nothing has run"])


def forced(first: str | None, without_cache: Sequence[str]) -> dict[str, str]:
    """The nodes that --from and --no-cache name, with the option as the reason. Raises UsageError."""
    for name in (*([first] if first else []), *without_cache):
        if name not in NODES:
            near = difflib.get_close_matches(name.lower(), [node.lower() for node in NODES], n=1, cutoff=0.0)[0]
            nearest = next(node for node in NODES if node.lower() == near)
            raise UsageError(f"there is no node '{name}'", f"The nearest is {nearest}. All: {', '.join(NODES)}")
    later = NODES[NODES.index(first) :] if first else ()
    return dict.fromkeys(later, f"--from {first}") | {node: f"--no-cache {node}" for node in without_cache}


def unverified_text(unverified: UnverifiedVersions) -> str:
    """The Pusher's parameter; empty if every version is what a run pushed."""
    return json.dumps(unverified._asdict()) if any(unverified) else ""


def data_sha256(settings: Settings) -> dict[str, str]:
    """SHA-256 of each uncompressed IDX file, by role; of MNIST, what `fetch_mnist` accepts. Raises InputError."""
    if settings.data.source == REAL_MNIST:
        return dict(zip(IdxFiles._fields, mnist.MNIST_SHA256.values(), strict=True))
    return idx.locate(Path(settings.data.source)).hashes()


def _unverified(home: Home, past: History | None) -> UnverifiedVersions:
    pushed = past.artifact_properties(("pushed_version", MANIFEST_PROPERTY)).values() if past else ()
    recorded = {
        known["pushed_version"]: known.get(MANIFEST_PROPERTY, "") for known in pushed if known["pushed_version"]
    }
    return unchanged.compared(recorded, home.serving_model)


def _changes(before: str | None, now: str, run_id: str) -> list[str]:
    """What differs between two keys; the one before, of run `run_id`, may be missing or of another version's form."""
    try:
        return differences(before or "", now)
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"no record of run {run_id}"]


def _flat(artifacts: Mapping[str, list[Any]]) -> list[Artifact]:
    return [artifact for found in artifacts.values() for artifact in found]


def _new_inputs(execution: Execution, available: set[int]) -> list[str]:
    """Types of the inputs that are not among the outputs of this run."""
    return sorted({artifact.type for artifact in _flat(execution.inputs) if artifact.id not in available})


def _origin(execution: Execution, earlier: list[Execution]) -> Execution:
    """The execution that wrote these outputs."""
    outputs = {artifact.id for artifact in _flat(execution.outputs)}
    wrote = (e for e in earlier if e.ran and outputs == {artifact.id for artifact in _flat(e.outputs)})
    return next(wrote, execution)
