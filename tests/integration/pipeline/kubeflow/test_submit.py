"""`submit` against an API server over real HTTP (tests/support/kfp_server.py)."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.kubeflow.api_client import TOKEN_VARIABLE
from tests.conftest import DEAD_PROXIES, ROOT, pipeline_command
from tests.support.command import in_process
from tests.support.done import Done
from tests.support.kfp_server import RUN_ID, KfpServer, task

NODES = ("ExampleGen", "Trainer", "Evaluator", "Pusher")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal package; test_compile.py tests what `compile` writes."""
    tasks: dict[str, Any] = {}
    for node, before in zip(NODES, (None, *NODES), strict=False):
        tasks[node] = {"componentRef": {"name": f"comp-{node}"}, "taskInfo": {"name": node}}
        tasks[node] |= {"dependentTasks": [before]} if before else {}
    parameters = {
        "train_steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 10, "isOptional": True},
        "gate_min_accuracy": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.9, "isOptional": True},
        "data_source": {"parameterType": "STRING", "defaultValue": "mnist", "isOptional": True},
    }
    spec = {
        "pipelineInfo": {"name": "mnist"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": tasks}, "inputDefinitions": {"parameters": parameters}},
        "components": {f"comp-{node}": {"executorLabel": f"exec-{node}"} for node in NODES},
        "deploymentSpec": {"executors": {f"exec-{node}": {"container": {"image": "a:1"}} for node in NODES}},
    }
    path = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxies that nothing on loopback may use, no token, not in a pod, and an empty HOME: kfp reads ~/.config/kfp."""
    for name in ("no_proxy", "NO_PROXY", TOKEN_VARIABLE, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, proxy in DEAD_PROXIES.items():
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("HOME", str(tmp_path))


def command(package: Path, host: str, home: Path, *more: str | Path) -> list[str | Path]:
    return ["submit", "--package", package, "--host", host, "--home", home, "--poll", "0.05", *more]


def submit(package: Path, host: str, home: Path, *more: str | Path) -> Done:
    return in_process(*command(package, host, home, *more))


def log(node: str, **fields: Any) -> str:
    report = {"node": node, "exit_code": 0, "error": None} | fields
    return f"INFO {node} is running\nmnist-tfx result: {json.dumps(report)}\n"


def details(*states: tuple[str, str]) -> list[dict[str, Any]]:
    return [step for node, state in states for step in task(node, state)]


PUSHED = [(node, "SUCCEEDED") for node in NODES]
LOGS = {
    "pod-Trainer": log("Trainer", metrics={"train_accuracy": 0.99}),
    "pod-Evaluator": log("Evaluator", metrics={"test_accuracy": 0.98}, blessed=True),
    "pod-Pusher": log("Pusher", pushed_destination="/volume/serving_model/mnist/1700000000"),
}


def test_a_run_that_succeeds_is_reported_like_a_local_run(package: Path, tmp_path: Path) -> None:
    script = [
        ("PENDING", []),
        ("RUNNING", task("ExampleGen", "RUNNING")),
        ("RUNNING", [*task("ExampleGen", "SUCCEEDED", cached=True), *task("Trainer", "RUNNING")]),
        ("SUCCEEDED", [*task("ExampleGen", "SUCCEEDED", cached=True), *details(*PUSHED[1:])]),
    ]
    with KfpServer(script, LOGS) as server:
        done = submit(package, server.host, tmp_path, "--wait", "--json", "--set", "train.steps=500")
        (body,) = server.created
    assert done.code == 0, done.stderr
    result = done.json
    assert (result["run_id"], result["status"], result["pushed_version"]) == (RUN_ID, "pushed", "1700000000")
    assert result["blessed"] is True
    assert result["metrics"] == {"train_accuracy": 0.99, "test_accuracy": 0.98}
    assert done.states == {"ExampleGen": "cached", "Trainer": "ran", "Evaluator": "ran", "Pusher": "ran"}
    assert {node["seconds"] for node in result["nodes"]} == {7.5}
    shown = [line.split()[:2] for line in done.stderr.splitlines()[1:]]
    assert shown == [["ExampleGen", "cached"], ["Trainer", "ran"], ["Evaluator", "ran"], ["Pusher", "ran"]]
    assert body["runtime_config"]["parameters"] == {"train_steps": 500}
    assert body["pipeline_spec"]["schemaVersion"] == "2.1.0"
    assert "is running" in (tmp_path / "logs" / RUN_ID / "Trainer.log").read_text()

    status = in_process("status", "--json", "--home", tmp_path)
    assert status.json["pushed_version"] == "1700000000"


@pytest.mark.parametrize(
    ("node", "report", "code", "status", "message"),
    [
        ("Pusher", {"exit_code": 3, "error": "Pusher: not blessed"}, 3, "not_blessed", "accuracy[overall] 0.94 < 0.97"),
        ("Trainer", {"exit_code": 4, "error": "Trainer: anomalies"}, 4, "anomalies", "Trainer: anomalies"),
        ("Trainer", {"exit_code": 5, "error": "Trainer: no such folder"}, 5, "failed", "Trainer: no such folder"),
        ("Trainer", {"exit_code": 1, "error": "Trainer failed: KeyError"}, 1, "failed", "Trainer failed: KeyError"),
    ],
)
def test_a_run_that_fails_names_task_reason_and_log(
    package: Path, tmp_path: Path, node: str, report: dict[str, Any], code: int, status: str, message: str
) -> None:
    ended = NODES[: NODES.index(node)]
    failures = ["accuracy[overall] 0.94 < 0.97"]
    logs = {"pod-Evaluator": log("Evaluator", blessed=False, failures=failures), f"pod-{node}": log(node, **report)}
    script = [("FAILED", [*details(*((n, "SUCCEEDED") for n in ended)), *task(node, "FAILED", "exit code 1")])]
    with KfpServer(script, logs) as server:
        done = submit(package, server.host, tmp_path, "--wait", "--json")
    assert done.code == code, done.stderr
    assert done.json["status"] == status
    assert done.json["pushed_version"] is None
    assert message in done.stderr
    assert done.states[node] == "failed"


def test_a_task_without_a_result_line_shows_the_end_of_its_log(package: Path, tmp_path: Path) -> None:
    lines = "\n".join(f"line {i}" for i in range(40))
    script = [("FAILED", [*task("ExampleGen", "SUCCEEDED"), *task("Trainer", "FAILED", "OOMKilled (exit code 137)")])]
    with KfpServer(script, {"pod-Trainer": lines}) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 1
    assert "Trainer failed: OOMKilled (exit code 137)" in done.stderr
    assert "line 39" in done.stderr
    assert "line 20" not in done.stderr
    assert str(tmp_path / "logs" / RUN_ID / "Trainer.log") in done.stderr


def test_without_logs_the_reason_from_the_server_is_shown(package: Path, tmp_path: Path) -> None:
    with KfpServer([("FAILED", task("Trainer", "FAILED", "image cannot be pulled"))]) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 1
    assert "Trainer failed: image cannot be pulled" in done.stderr


def test_not_waiting_only_starts_the_run(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", [])]) as server:
        done = submit(package, server.host, tmp_path, "--json")
        assert server.polls == 0
    assert done.code == 0
    assert done.json == {"run_id": RUN_ID, "status": "submitted", "url": f"{server.host}/#/runs/details/{RUN_ID}"}


def test_the_wait_ends_after_the_timeout(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))]) as server:
        done = submit(package, server.host, tmp_path, "--wait", "--timeout", "0.5")
    assert done.code == 1
    assert f"run {RUN_ID} has not ended after 0.5 s; it continues" in done.stderr


def test_interrupting_the_wait_leaves_the_run_alone(package: Path, tmp_path: Path) -> None:
    signals = {signal.SIGINT: 130, signal.SIGTERM: 143}
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))]) as server:
        words = pipeline_command(*command(package, server.host, tmp_path, "--wait"))
        for number, code in signals.items():
            server.polls = 0
            with subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as waiting:
                while not server.polls:
                    time.sleep(0.02)
                waiting.send_signal(number)
                _, stderr = waiting.communicate(timeout=30)
            assert waiting.returncode == code
            assert f"stopped waiting; run {RUN_ID} continues" in stderr
            assert "Traceback" not in stderr


def test_the_wait_gives_up_after_repeated_connection_errors(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))], vanish_after=2) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 5
    assert "no longer responds" in done.stderr and RUN_ID in done.stderr


def test_temporary_errors_of_the_server_are_retried(package: Path, tmp_path: Path) -> None:
    with KfpServer([("SUCCEEDED", details(*PUSHED))], LOGS, failed_polls=3) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 0, done.stderr
    assert "version 1700000000" in done.stdout


def test_a_token_is_sent_from_a_file_or_the_environment(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file, wrong_file = tmp_path / "token", tmp_path / "wrong"
    token_file.write_text("s3cret\n")
    wrong_file.write_text("other\n")
    with KfpServer([("SUCCEEDED", details(*PUSHED))], LOGS, token="s3cret") as server:
        missing = submit(package, server.host, tmp_path)
        wrong = submit(package, server.host, tmp_path, "--token-file", wrong_file)
        by_file = submit(package, server.host, tmp_path, "--wait", "--token-file", token_file)
        monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
        by_variable = submit(package, server.host, tmp_path, "--wait")
    assert (missing.code, wrong.code) == (5, 5)
    assert "HTTP 401" in missing.stderr and "--token-file" in missing.stderr
    assert (by_file.code, by_variable.code) == (0, 0), by_file.stderr
    assert all("s3cret" not in done.stdout + done.stderr for done in (missing, by_file, by_variable))


def test_mistakes_have_a_message_and_an_exit_code(package: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with KfpServer([]) as server:
        rows = [
            (submit(package, nobody, tmp_path), 5, "no response from Kubeflow Pipelines"),
            (submit(package, "localhost:8888", tmp_path), 2, "http://localhost:8888"),
            (submit(package, "http://[half", tmp_path), 5, "http://[half"),
            (submit(package, f"{server.host}/elsewhere", tmp_path), 5, "HTTP 404"),
            (submit(package, "", tmp_path), 2, "no server named"),
            (submit(tmp_path / "none.yaml", server.host, tmp_path), 5, "pipeline compile"),
            (submit(ROOT / "configs" / "quick.toml", server.host, tmp_path), 5, "not a compiled pipeline"),
            (submit(package, server.host, tmp_path, "--set", "train.stps=5"), 2, "train_steps"),
            (submit(package, server.host, tmp_path, "--set", "train.steps=5.5"), 2, "must be a number integer"),
            (submit(package, server.host, tmp_path, "--set", "train.steps"), 2, "section.key=value"),
            (submit(package, server.host, tmp_path, "--token-file", "/nowhere"), 5, "/nowhere"),
        ]
        assert server.created == []
    for done, code, message in rows:
        assert done.code == code, done.stderr
        assert message in done.stderr
        assert done.stdout == ""
