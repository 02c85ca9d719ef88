"""Watch a run on Kubeflow Pipelines until it ends: its tasks in the table of a local run, its end as a local Result."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

from components.common.errors import InputError, UserError
from pipeline.kubeflow.api_client import Server, Unanswered
from pipeline.progress import Progress, State
from pipeline.run import EXIT_CODES, Result, Status

PATIENCE: Final = 12  # polls without an answer, one after another, before giving up
SHOWN_LINES: Final = 15  # of a failed task's log
RESULT: Final = "mnist-tfx result:"  # begins the entrypoint's last line
FINAL: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")
_STATES: Final[dict[str, State]] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "ran",
    "CACHED": "cached",
    "FAILED": "failed",
    "ERROR": "failed",
    "CANCELED": "failed",
    "CANCELING": "running",
    "SKIPPED": "skipped",
}
_BY_EXIT_CODE: Final[dict[int, Status]] = {code: status for status, code in EXIT_CODES.items()}


class NotFinishedError(UserError):
    """The run goes on, but nobody waits for it any more."""

    exit_code = 1


@dataclass(frozen=True)
class TaskView:
    """One node of the DAG, as the API server describes its task.

    Attributes:
        pods: ids under which its log may be found, the likeliest first.
        message: the server's own words about a failure.
    """

    state: State
    seconds: float
    pods: tuple[str, ...]
    message: str


def tasks_of(run: dict[str, Any], nodes: Sequence[str]) -> dict[str, TaskView]:
    """The tasks of these nodes; those that have not begun are absent.

    KFP lists every step of its workflow: a node `Trainer` has a driver `Trainer-driver` and below `Trainer` the pod
    that does the work. A node whose pod was skipped came from the cache.
    """
    details = (run.get("run_details") or {}).get("task_details") or []
    by_id = {detail.get("task_id"): detail for detail in details}
    found = {}
    for detail in details:
        node = detail.get("display_name")
        if node not in nodes:
            continue
        children = [c for c in detail.get("child_tasks") or [] if c]
        below = [by_id[c["task_id"]] for c in children if c.get("task_id") in by_id]
        state = _STATES.get(str(detail.get("state", "")).upper(), "waiting")
        if state == "ran" and below and all(str(b.get("state")).upper() == "SKIPPED" for b in below):
            state = "cached"
        candidates = [*(c.get("pod_name") for c in children), *(b.get("pod_name") for b in below)]
        candidates += [*(b.get("task_id") for b in below), detail.get("pod_name"), detail.get("task_id")]
        message = next((str((d.get("error") or {}).get("message")) for d in [*below, detail] if d.get("error")), "")
        found[node] = TaskView(state, _seconds(detail), tuple(dict.fromkeys(filter(None, candidates))), message)
    return found


def follow(
    server: Server, run_id: str, nodes: Sequence[str], stream: TextIO, *, timeout_s: float, poll_s: float
) -> tuple[dict[str, Any], Progress]:
    """Show the run on `stream` until it ends; returns what the server says of it then.

    Raises:
        NotFinishedError: the time is over; the run goes on.
        InputError: the server is gone, or refuses.
    """
    deadline = time.monotonic() + timeout_s
    unanswered = 0
    with Progress(list(nodes), stream) as progress:
        while True:
            try:
                run, unanswered = server.run(run_id), 0
            except Unanswered as e:
                unanswered += 1
                if unanswered >= PATIENCE:
                    raise InputError(
                        f"{server.host}: no answer any more ({e}); run {run_id} may still be going on",
                        f"When the server is back: {server.host}/#/runs/details/{run_id}",
                    ) from e
            else:
                for node, task in tasks_of(run, nodes).items():
                    progress.show(node, task.state, task.seconds, task.message)
                if str(run.get("state", "")).upper() in FINAL:
                    return run, progress
            if time.monotonic() + poll_s > deadline:
                raise NotFinishedError(
                    f"run {run_id} has not ended after {timeout_s:g} s; it goes on",
                    f"Look at it: {server.host}/#/runs/details/{run_id}, or wait longer: --timeout SECONDS",
                )
            time.sleep(poll_s)


def conclude(server: Server, run: dict[str, Any], progress: Progress, logs: Path, seconds: float) -> Result:
    """The Result of a run that has ended, from its state and what its tasks said last. Writes their logs to `logs`."""
    run_id = str(run["run_id"])
    tasks = tasks_of(run, [node.id for node in progress.nodes])
    texts = {node: _log(server, run_id, task) for node, task in tasks.items() if task.state in ("ran", "failed")}
    logs.mkdir(parents=True, exist_ok=True)
    for node, text in texts.items():
        (logs / f"{node}.log").write_text(text)
    said = {node: told for node, text in texts.items() if (told := last_words(text))}

    result = Result(run_id, seconds=round(seconds, 2))
    result.nodes = [{"id": n.id, "state": n.state, "seconds": round(n.seconds, 2)} for n in progress.nodes]
    for told in said.values():
        result.metrics |= {name: round(value, 6) for name, value in (told.get("metrics") or {}).items()}
        for field in ("blessed", "infra_blessed"):
            if told.get(field) is not None:
                setattr(result, field, told[field])
        if told.get("pushed_destination"):
            result.pushed_version = Path(told["pushed_destination"]).name
    if str(run["state"]).upper() == "SUCCEEDED":
        result.status, result.exit_code = "pushed", EXIT_CODES["pushed"]
        return result
    failed = next((node for node in tasks if tasks[node].state == "failed"), None)
    told = said.get(failed or "", {})
    result.exit_code = int(told.get("exit_code") or 1)
    result.status = _BY_EXIT_CODE.get(result.exit_code, "failed")
    failures = [line for t in said.values() for line in t.get("failures") or []]
    if result.status == "not_blessed" and failures:
        result.error = f"not blessed, nothing pushed: {'; '.join(failures)}"
    elif failed:
        shown = told.get("error") or _tail(failed, texts.get(failed, ""), tasks[failed].message)
        result.error = f"{shown}\nLog: {logs / f'{failed}.log'}" if texts.get(failed) else str(shown)
    else:
        message = (run.get("error") or {}).get("message") or "the server gives no reason"
        result.error = f"run {run_id} ended as {run['state']}: {message}"
    return result


def last_words(log: str) -> dict[str, Any]:
    """What the entrypoint said in its last line; {} if the task ended before it could."""
    for line in reversed(log.splitlines()):
        _, found, text = line.partition(RESULT)
        if found:
            try:
                told = json.loads(text)
            except ValueError:
                return {}
            return told if isinstance(told, dict) else {}
    return {}


def _tail(node: str, log: str, message: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-SHOWN_LINES:]
    reason = message or ("its last lines:" if lines else "the server has neither a reason nor a log of it")
    return "\n".join([f"{node} failed: {reason}", *(f"  {line}" for line in lines)])


def _log(server: Server, run_id: str, task: TaskView) -> str:
    """The log of a task, "" if the server has none: pods are deleted after a while, log archives are optional."""
    for pod in task.pods:
        try:
            if text := server.log(run_id, pod):
                return text
        except (Unanswered, InputError):
            continue
    return ""


def _seconds(detail: dict[str, Any]) -> float:
    try:
        start = datetime.fromisoformat(detail["start_time"])
        end = datetime.fromisoformat(detail["end_time"]) if detail.get("end_time") else datetime.now(start.tzinfo)
        return max(0.0, (end - start).total_seconds()) if end.year > 1970 else 0.0
    except (KeyError, ValueError, TypeError):
        return 0.0
