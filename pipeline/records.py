"""What a home records about its runs: run.json, and for runs of older versions also ML Metadata. No TensorFlow."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.common.commands import command
from components.common.errors import InputError, UsageError
from components.common.home import RESULT_FILE, Home
from pipeline import history
from pipeline.history import History
from pipeline.node_keys import PARAMETER, files_changed, shown

LATEST, PREVIOUS = "latest", "previous"
EVALUATION: Final = "ModelEvaluation"  # TFX's type


@dataclass(frozen=True)
class Run:
    """One run. What a run of an older version, or a run that failed early, did not record is None or empty.

    Attributes:
        folder: its logs.
        started_utc: ISO time in UTC.
        status: "pushed", "not_blessed", "anomalies" or "failed".
        version: the pushed version; of a cached Pusher, that of an earlier run.
        metrics: test_accuracy and others, by name.
        checks: the gate's checks, each a components.validation.verdict.Check as a dict.
        nodes: {"id", "state", "seconds", "reason", "peak_mb"} of each node; the last two are newer.
        settings: by section and key.
        data_sha256: SHA-256 of each uncompressed IDX file, by role.
        evaluation: folder of the ModelEvaluation artifact, if it still exists: see reference_predictions.read.
        sources: the first digits of the SHA-256 of each source file that the nodes use, by path.
        executions: MLMD execution id of each node, by node id.
    """

    run_id: str
    folder: Path
    started_utc: str | None = None
    status: str = "failed"
    version: str | None = None
    blessed: bool | None = None
    infra_blessed: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    error: str | None = None
    settings: dict[str, dict[str, Any]] | None = None
    data_sha256: dict[str, str] | None = None
    evaluation: Path | None = None
    sources: dict[str, str] | None = None
    executions: dict[str, int] = field(default_factory=dict)


def runs(home: Home) -> list[Run]:
    """The finished runs whose records are in the home, newest last. Raises InputError, OSError if it is unreadable."""
    found = []
    for modified_ns, path in _results(home):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # damaged: skip it
            found.append(_parsed(json.loads(path.read_text()), path, modified_ns))
    with history.opened(home) as past:
        if past is None:
            return found
        configs = past.properties(("custom_config", PARAMETER))
        return [_completed(run, past, configs) for run in found]


def find(home: Home, name: str) -> Run:
    """The run with this id, beginning of an id, pushed version, or "latest" or "previous".

    Raises:
        InputError: there is no finished run here.
        UsageError: no run, or more than one, is called so; the message names the nearest.
    """
    return choose(runs(home), name, home)


def choose(known: list[Run], name: str, home: Home) -> Run:
    """`find` in the result of `runs`."""
    if not known:
        raise InputError(f"{home.root}: no finished run here", f"Start one: {command('pipeline', 'run')}")
    if name in (LATEST, PREVIOUS):
        if name == PREVIOUS and len(known) < 2:
            raise UsageError(f"there is no previous run: {known[-1].run_id} is the only one")
        return known[-1 if name == LATEST else -2]
    pushed = [run for run in known if run.version == name]
    exact = [run for run in known if run.run_id == name] or _pushers(pushed)
    found = exact or [run for run in known if name and run.run_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{name}' is the beginning of {len(found)} runs", "They are " + _listed(found))
    names = [LATEST, PREVIOUS, *(run.run_id for run in known), *(run.version for run in known if run.version)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [run.run_id for run in known[-3:]]
    raise UsageError(
        f"no run or version '{name}' in {home.root}",
        f"The nearest: {', '.join(dict.fromkeys(near))}. All: {command('pipeline', 'runs')}",
    )


def differences(a: Run, b: Run) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What differs: {"settings": {"train.steps": (a's, b's)}, "data": {role: (a's SHA-256, b's)}, "code": {path: ...}}.

    What only one of the two recorded is left out: the other may be of a version that did not have it, or have ended
    before.
    """
    return {
        "settings": changed(flat(a.settings or {}), flat(b.settings or {})),
        "data": changed(a.data_sha256 or {}, b.data_sha256 or {}),
        "code": changed(a.sources or {}, b.sources or {}),
    }


def described(before: Run, run: Run) -> list[str]:
    """`differences` in one short clause each."""
    found = differences(before, run)
    lines = [f"{key} {shown(a)} -> {shown(b)}" for key, (a, b) in found["settings"].items()]
    return [*lines, *(f"{role} changed" for role in found["data"]), *files_changed(list(found["code"]))]


def without_record(home: Home, known: list[Run]) -> int:
    """How many runs in ML Metadata have no run.json: interrupted, or removed by gc. Raises InputError."""
    with history.opened(home) as past:
        ids = {execution.run_id for execution in past.executions} if past else set()
    return len(ids - {run.run_id for run in known})


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys that both have with different values."""
    return {key: (a[key], b[key]) for key in a if key in b and a[key] != b[key]}


def flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings by "section.key", with lists for tuples, as JSON has them."""
    return {
        f"{section}.{key}": list(value) if isinstance(value, tuple) else value
        for section, keys in settings.items()
        for key, value in keys.items()
    }


def _results(home: Home) -> list[tuple[int, Path]]:
    """Time in ns and path of each result, oldest first; not by run id, which has several forms."""
    logs = home.root / "logs"
    paths = [folder / RESULT_FILE for folder in logs.iterdir()] if logs.is_dir() else []
    return sorted((path.stat().st_mtime_ns, path) for path in paths if path.exists())


def _parsed(content: dict[str, Any], path: Path, modified_ns: int) -> Run:
    seconds = content.get("seconds")
    flat(content.get("settings") or {})  # raises if they are damaged
    started = datetime.fromtimestamp(modified_ns / 1e9 - (seconds or 0.0), UTC).isoformat(timespec="seconds")
    return Run(
        run_id=str(content["run_id"]),
        folder=path.parent,
        started_utc=content.get("started_utc") or started,
        status=content.get("status", "failed"),
        version=content.get("pushed_version"),
        blessed=content.get("blessed"),
        infra_blessed=content.get("infra_blessed"),
        metrics={name: float(value) for name, value in (content.get("metrics") or {}).items()},
        checks=list(content.get("checks") or []),
        nodes=[dict(node) for node in content.get("nodes") or []],
        seconds=seconds,
        error=content.get("error"),
        settings=content.get("settings"),
        data_sha256=content.get("data_sha256"),
    )


def _completed(run: Run, past: History, configs: Mapping[int, Mapping[str, str]]) -> Run:
    """The run with what ML Metadata knows about it."""
    executions = [execution for execution in past.run(run.run_id) if execution.succeeded]
    keys = [history.settings_in(configs.get(e.id, {}).get(PARAMETER)) for e in executions]
    sources = {path: digest for key in keys for path, digest in key.get("sources", {}).items()}
    evaluations = [a for e in executions for made in e.outputs.values() for a in made if a.type == EVALUATION]
    settings, data = run.settings, run.data_sha256
    if settings is None or data is None:
        known = {e.node: history.settings_in(configs.get(e.id, {}).get("custom_config")) for e in executions}
        pushed, trained = known.get("Pusher", {}), known.get("Trainer", {})
        sections = {key: trained[key] for key in ("data", "train") if isinstance(trained.get(key), dict)}
        settings = settings or pushed.get("settings") or sections or None
        data = data or pushed.get("data_sha256")
    return replace(
        run,
        settings=settings,
        data_sha256=data,
        evaluation=next((a.folder for a in evaluations if a.folder.is_dir()), None),
        sources=sources or None,
        executions={execution.node: execution.id for execution in executions},
    )


def _pushers(pushed: list[Run]) -> list[Run]:
    """Of the runs with a version, the one that pushed it: the others took it from the cache."""
    return pushed[:1]


def _listed(found: list[Run]) -> str:
    return ", ".join(run.run_id for run in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
