"""Watch a run on Kubeflow Pipelines until it ends: show its tasks and return a Result, as for a local run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

from components.common.errors import InputError, UserError
from pipeline.kubeflow.api_client import ApiClient, UnavailableError
from pipeline.progress import Progress, State
from pipeline.run import EXIT_CODES, Result, Status

MAX_FAILED_POLLS: Final = 12  # in a row, before giving up
LOG_TAIL_LINES: Final = 15  # of a failed task's log, for the error message
RESULT_PREFIX: Final = "mnist-tfx result:"  # starts the entrypoint's last line
FINAL_STATES: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")
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
_STATUS_BY_EXIT_CODE: Final[dict[int, Status]] = {code: status for status, code in EXIT_CODES.items()}


class NotFinishedError(UserError):
    """The wait timed out; the run continues."""

    exit_code = 1


@dataclass(frozen=True)
class TaskStatus:
    """The state of one node of the DAG.

    Attributes:
        pods: pod ids under which the server may have its log, most likely first.
        message: the server's error message, "" if there is none.
    """

    state: State
    seconds: float
    pods: tuple[str, ...]
    message: str


def tasks_of(run: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, TaskStatus]:
    """The tasks of these nodes, by node id; nodes that have not started are absent.

    KFP lists every step of its workflow: a node `Trainer` has a driver `Trainer-driver`, and the pod that does the work
    is a child of `Trainer`. If that pod was skipped, the node's outputs came from the cache.
    """
    details = (run.get("run_details") or {}).get("task_details") or []
    by_id = {detail.get("task_id"): detail for detail in details}
    tasks = {}
    for detail in details:
        node = detail.get("display_name")
        if node not in nodes:
            continue
        links = [link for link in detail.get("child_tasks") or [] if link]
        children = [by_id[link["task_id"]] for link in links if link.get("task_id") in by_id]
        state = _STATES.get(str(detail.get("state", "")).upper(), "waiting")
        if state == "ran" and children and all(str(c.get("state")).upper() == "SKIPPED" for c in children):
            state = "cached"
        pods = [*(link.get("pod_name") for link in links), *(child.get("pod_name") for child in children)]
        pods += [*(child.get("task_id") for child in children), detail.get("pod_name"), detail.get("task_id")]
        errors = [d["error"] for d in (*children, detail) if d.get("error")]
        message = str(errors[0].get("message")) if errors else ""
        tasks[node] = TaskStatus(state, _seconds(detail), tuple(dict.fromkeys(filter(None, pods))), message)
    return tasks


def wait_until_finished(
    client: ApiClient, run_id: str, nodes: Sequence[str], stream: TextIO, *, timeout_s: float, poll_s: float
) -> tuple[dict[str, Any], Progress]:
    """Show the run on `stream` until it ends; returns the server's description of the run, and the progress shown.

    Raises:
        NotFinishedError: the run has not ended after `timeout_s`.
        InputError: the server is unavailable, or rejects the request.
    """
    deadline = time.monotonic() + timeout_s
    failed_polls = 0
    with Progress(list(nodes), stream) as progress:
        while True:
            try:
                run, failed_polls = client.get_run(run_id), 0
            except UnavailableError as e:
                failed_polls += 1
                if failed_polls >= MAX_FAILED_POLLS:
                    raise InputError(
                        f"{client.host}: the server no longer responds ({e}); run {run_id} may still be running",
                        f"When the server is back: {client.host}/#/runs/details/{run_id}",
                    ) from e
            else:
                for node, task in tasks_of(run, nodes).items():
                    progress.show(node, task.state, task.seconds, task.message)
                if str(run.get("state", "")).upper() in FINAL_STATES:
                    return run, progress
            if time.monotonic() + poll_s > deadline:
                raise NotFinishedError(
                    f"run {run_id} has not ended after {timeout_s:g} s; it continues",
                    f"See {client.host}/#/runs/details/{run_id}, or wait longer: --timeout SECONDS",
                )
            time.sleep(poll_s)


def result_of(client: ApiClient, run: Mapping[str, Any], progress: Progress, logs: Path, seconds: float) -> Result:
    """The Result of a finished run, from its state and the result lines of its tasks. Writes their logs to `logs`.

    Raises:
        OSError: `logs` is not writable.
    """
    run_id = str(run["run_id"])
    tasks = tasks_of(run, [node.id for node in progress.nodes])
    texts = {node: _log(client, run_id, task) for node, task in tasks.items() if task.state in ("ran", "failed")}
    logs.mkdir(parents=True, exist_ok=True)
    for node, text in texts.items():
        (logs / f"{node}.log").write_text(text)
    reports = {node: report for node, text in texts.items() if (report := task_report(text))}

    result = Result(run_id, seconds=round(seconds, 2))
    result.nodes = [{"id": n.id, "state": n.state, "seconds": round(n.seconds, 2)} for n in progress.nodes]
    for report in reports.values():
        result.metrics |= {name: round(value, 6) for name, value in (report.get("metrics") or {}).items()}
        result.drift += report.get("drift") or []
        for field in ("blessed", "infra_blessed"):
            if report.get(field) is not None:
                setattr(result, field, report[field])
        if report.get("pushed_destination"):
            result.pushed_version = Path(report["pushed_destination"]).name
    if str(run["state"]).upper() == "SUCCEEDED":
        result.status, result.exit_code = "pushed", EXIT_CODES["pushed"]
        return result

    failed = next((node for node in tasks if tasks[node].state == "failed"), None)
    report = reports.get(failed or "", {})
    result.exit_code = int(report.get("exit_code") or 1)
    result.status = _STATUS_BY_EXIT_CODE.get(result.exit_code, "failed")
    failures = [line for r in reports.values() for line in r.get("failures") or []]
    if result.status == "not_blessed" and failures:
        result.error = f"not blessed, nothing pushed: {'; '.join(failures)}"
    elif failed:
        error = report.get("error") or _tail(failed, texts.get(failed, ""), tasks[failed].message)
        result.error = f"{error}\nLog: {logs / f'{failed}.log'}" if texts.get(failed) else str(error)
    else:
        message = (run.get("error") or {}).get("message") or "the server gave no reason"
        result.error = f"run {run_id} ended as {run['state']}: {message}"
    return result


def task_report(log: str) -> dict[str, Any]:
    """The JSON object of the last line with RESULT_PREFIX; {} if the task ended before it wrote one."""
    for line in reversed(log.splitlines()):
        _, prefix, text = line.partition(RESULT_PREFIX)
        if prefix:
            try:
                report = json.loads(text)
            except ValueError:
                return {}
            return report if isinstance(report, dict) else {}
    return {}


def _tail(node: str, log: str, message: str) -> str:
    """An error message for a task without a result line."""
    lines = [line for line in log.splitlines() if line.strip()][-LOG_TAIL_LINES:]
    reason = message or ("the end of its log:" if lines else "the server returned neither a reason nor a log")
    return "\n".join([f"{node} failed: {reason}", *(f"  {line}" for line in lines)])


def _log(client: ApiClient, run_id: str, task: TaskStatus) -> str:
    """The log of a task, "" if the server has none: pods are deleted after a while, and log archives are optional."""
    for pod in task.pods:
        try:
            if text := client.get_log(run_id, pod):
                return text
        except (UnavailableError, InputError):
            continue
    return ""


def _seconds(detail: Mapping[str, Any]) -> float:
    """The duration of a task so far; 0 if it has not started."""
    try:
        start = datetime.fromisoformat(detail["start_time"])
        end = datetime.fromisoformat(detail["end_time"]) if detail.get("end_time") else datetime.now(start.tzinfo)
        return max(0.0, (end - start).total_seconds()) if end.year > 1970 else 0.0
    except (KeyError, ValueError, TypeError):
        return 0.0
