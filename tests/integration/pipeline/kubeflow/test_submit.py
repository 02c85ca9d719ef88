"""`submit` as a user runs it, against an API server over real HTTP (tests/support/kfp_server.py)."""

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

from tests.conftest import ROOT, Done, environment, pipeline_command
from tests.support.kfp_server import RUN_ID, KfpServer, task

NODES = ("ExampleGen", "Trainer", "Evaluator", "Pusher")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as a package can be; what `compile` writes is tested elsewhere."""
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


def clean(home: Path) -> dict[str, str]:
    """No proxy, and a home of its own: kfp reads ~/.config/kfp."""
    return {k: v for k, v in environment().items() if "proxy" not in k.lower()} | {"HOME": str(home)}


def submit(package: Path, host: str, home: Path, *more: str, variables: dict[str, str] | None = None) -> Done:
    command = pipeline_command("submit", "--package", package, "--host", host, "--home", home, "--poll", "0.05", *more)
    done = subprocess.run(
        command, cwd=ROOT, env=clean(home) | (variables or {}), capture_output=True, text=True, timeout=60
    )
    return Done(done.returncode, done.stdout, done.stderr)


def log(node: str, **told: Any) -> str:
    words = {"node": node, "exit_code": 0, "error": None} | told
    return f"INFO {node} is at work\nmnist-tfx result: {json.dumps(words)}\n"


def details(*states: tuple[str, str]) -> list[dict[str, Any]]:
    return [step for node, state in states for step in task(node, state)]


PUSHED = [(node, "SUCCEEDED") for node in NODES]
LOGS = {
    "pod-Trainer": log("Trainer", metrics={"train_accuracy": 0.99}),
    "pod-Evaluator": log("Evaluator", metrics={"test_accuracy": 0.98}, blessed=True),
    "pod-Pusher": log("Pusher", pushed_destination="/volume/serving_model/mnist/1700000000"),
}


def test_a_run_that_succeeds_reads_as_a_local_one(package: Path, tmp_path: Path) -> None:
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
    assert "at work" in (tmp_path / "logs" / RUN_ID / "Trainer.log").read_text()

    status = subprocess.run(
        pipeline_command("status", "--json", "--home", tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert json.loads(status.stdout)["pushed_version"] == "1700000000"


@pytest.mark.parametrize(
    ("node", "words", "code", "status", "says"),
    [
        ("Pusher", {"exit_code": 3, "error": "Pusher: not blessed"}, 3, "not_blessed", "accuracy[overall] 0.94 < 0.97"),
        (
            "Trainer",
            {"exit_code": 4, "error": "Trainer: anomalies in the data"},
            4,
            "anomalies",
            "anomalies in the data",
        ),
        ("Trainer", {"exit_code": 5, "error": "Trainer: no such folder"}, 5, "failed", "Trainer: no such folder"),
        ("Trainer", {"exit_code": 1, "error": "Trainer failed: KeyError"}, 1, "failed", "Trainer failed: KeyError"),
    ],
)
def test_a_run_that_fails_names_task_reason_and_log(
    package: Path, tmp_path: Path, node: str, words: dict[str, Any], code: int, status: str, says: str
) -> None:
    ended = NODES[: NODES.index(node)]
    failures = ["accuracy[overall] 0.94 < 0.97"]
    logs = {"pod-Evaluator": log("Evaluator", blessed=False, failures=failures), f"pod-{node}": log(node, **words)}
    script = [("FAILED", [*details(*((n, "SUCCEEDED") for n in ended)), *task(node, "FAILED", "exit code 1")])]
    with KfpServer(script, logs) as server:
        done = submit(package, server.host, tmp_path, "--wait", "--json")
    assert done.code == code, done.stderr
    assert done.json["status"] == status
    assert done.json["pushed_version"] is None
    assert says in done.stderr
    assert done.states[node] == "failed"
    assert "Traceback" not in done.stderr


def test_a_task_that_died_without_a_word_shows_its_last_lines(package: Path, tmp_path: Path) -> None:
    lines = "\n".join(f"line {i}" for i in range(40))
    script = [("FAILED", [*task("ExampleGen", "SUCCEEDED"), *task("Trainer", "FAILED", "OOMKilled (exit code 137)")])]
    with KfpServer(script, {"pod-Trainer": lines}) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 1
    assert "Trainer failed: OOMKilled (exit code 137)" in done.stderr
    assert "line 39" in done.stderr
    assert "line 20" not in done.stderr
    assert str(tmp_path / "logs" / RUN_ID / "Trainer.log") in done.stderr


def test_without_logs_the_server_s_reason_is_told(package: Path, tmp_path: Path) -> None:
    with KfpServer([("FAILED", task("Trainer", "FAILED", "image cannot be pulled"))]) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 1
    assert "Trainer failed: image cannot be pulled" in done.stderr


def test_not_waiting_only_starts_the_run(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", [])]) as server:
        done = submit(package, server.host, tmp_path, "--json")
        assert server.looks == 0
    assert done.code == 0
    assert done.json == {"run_id": RUN_ID, "status": "submitted", "url": f"{server.host}/#/runs/details/{RUN_ID}"}


def test_time_is_over_before_the_run_is(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))]) as server:
        done = submit(package, server.host, tmp_path, "--wait", "--timeout", "0.5")
    assert done.code == 1
    assert f"run {RUN_ID} has not ended after 0.5 s; it goes on" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_the_wait_leaves_the_run_alone(package: Path, tmp_path: Path, number: int, code: int) -> None:
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))]) as server:
        command = pipeline_command("submit", "--package", package, "--host", server.host, "--home", tmp_path, "--wait")
        with subprocess.Popen(command, cwd=ROOT, env=clean(tmp_path), stderr=subprocess.PIPE, text=True) as waiting:
            while not server.looks:
                time.sleep(0.05)
            waiting.send_signal(number)
            _, stderr = waiting.communicate(timeout=30)
    assert waiting.returncode == code
    assert f"no longer waiting; run {RUN_ID} goes on" in stderr
    assert "Traceback" not in stderr


def test_a_server_that_goes_away_is_waited_for_then_given_up(package: Path, tmp_path: Path) -> None:
    with KfpServer([("RUNNING", task("Trainer", "RUNNING"))], vanish_after=2) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 5
    assert "no answer any more" in done.stderr and RUN_ID in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hiccup_of_the_server_is_no_failure(package: Path, tmp_path: Path) -> None:
    with KfpServer([("SUCCEEDED", details(*PUSHED))], LOGS, broken_looks=3) as server:
        done = submit(package, server.host, tmp_path, "--wait")
    assert done.code == 0, done.stderr
    assert "version 1700000000" in done.stdout


def test_a_token_is_sent_and_its_lack_explained(package: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    with KfpServer([("SUCCEEDED", details(*PUSHED))], LOGS, token="s3cret") as server:
        refused = submit(package, server.host, tmp_path)
        wrong = submit(package, server.host, tmp_path, variables={"KUBEFLOW_TOKEN": "guess"})
        by_file = submit(package, server.host, tmp_path, "--wait", "--token-file", str(secret))
        by_variable = submit(package, server.host, tmp_path, "--wait", variables={"KUBEFLOW_TOKEN": "s3cret"})
    assert (refused.code, wrong.code) == (5, 5)
    assert "HTTP 401" in refused.stderr and "--token-file" in refused.stderr
    assert (by_file.code, by_variable.code) == (0, 0), by_file.stderr
    assert all("s3cret" not in done.stdout + done.stderr for done in (refused, by_file, by_variable))


def test_mistakes_end_in_words_and_the_documented_code(package: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with KfpServer([]) as server:
        rows = [
            (submit(package, nobody, tmp_path), 5, "no answer from Kubeflow Pipelines"),
            (submit(package, "localhost:8888", tmp_path), 2, "http://localhost:8888"),
            (submit(package, "http://[half", tmp_path), 5, "http://[half"),
            (submit(package, f"{server.host}/elsewhere", tmp_path), 5, "HTTP 404"),
            (submit(tmp_path / "none.yaml", server.host, tmp_path), 5, "pipeline compile"),
            (submit(ROOT / "configs" / "quick.toml", server.host, tmp_path), 5, "not a compiled pipeline"),
            (submit(package, server.host, tmp_path, "--set", "train.stps=5"), 2, "train_steps"),
            (submit(package, server.host, tmp_path, "--set", "train.steps=5.5"), 2, "must be a number integer"),
            (submit(package, server.host, tmp_path, "--set", "train.steps"), 2, "section.key=value"),
            (submit(package, server.host, tmp_path, "--token-file", "/nowhere"), 5, "/nowhere"),
            (submit(package, "", tmp_path, variables={"KUBERNETES_SERVICE_HOST": ""}), 2, "no server named"),
        ]
        assert server.created == []
    for done, code, says in rows:
        assert done.code == code, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
