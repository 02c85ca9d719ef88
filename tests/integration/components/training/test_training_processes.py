"""Training runs as processes of their own: killed and resumed, repeated, and as several workers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

STEPS = 400
TIMEOUT_S = 120
DISTRIBUTED = {"steps": 150, "optimizer": "momentum", "learning_rate": 0.1}


def start(folder: Path, env: dict[str, str] | None = None, **settings: object) -> subprocess.Popen[str]:
    given = {"steps": STEPS, "checkpoint_every_steps": 30, "eval_every_steps": 50, **settings}
    command = [sys.executable, "-m", "tests.support.training", str(folder), json.dumps(given)]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(step it went on from, weights' SHA-256)"""
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err[-2000:]
    resumed, digest = out.splitlines()[-1].removeprefix("resumed ").split()
    return int(resumed), digest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return finish(start(tmp_path_factory.mktemp("whole")))[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_run_resumes_to_the_weights_of_one_in_another_process_that_was_not(
    tmp_path: Path, whole: str, number: signal.Signals
) -> None:
    with start(tmp_path) as running:
        assert running.stdout is not None
        wanted = random.randint(60, STEPS - 80)
        for line in running.stdout:
            if int(line.split()[0]) >= wanted:
                running.send_signal(number)
                break
    assert running.returncode == -number
    resumed, digest = finish(start(tmp_path))
    assert 0 < resumed < STEPS
    assert digest == whole


def weights(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def assert_equal_to_1e5(path: Path, one: Path) -> None:
    for name, array in weights(one).items():
        np.testing.assert_allclose(weights(path)[name], array, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of one process after as many steps as the distributed runs take."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder, checkpoint_folder=str(folder / "weights.npz"), **DISTRIBUTED))
    return folder / "weights.npz"


def test_two_replicas_in_one_process_equal_one(tmp_path: Path) -> None:
    for name, more in {"one": {}, "two": {"strategy": "mirrored", "devices": 2}}.items():
        out = str(tmp_path / f"{name}.npz")
        finish(start(tmp_path / name, checkpoint_folder=out, **(DISTRIBUTED | {"optimizer": "sgd"} | more)))
    assert_equal_to_1e5(tmp_path / "two.npz", tmp_path / "one.npz")


def two_workers(folder: Path) -> tuple[int, str]:
    """Train with two workers in folders 0 and 1; they end bit-identical to each other."""
    ports = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(server.getsockname()[1])
    running = []
    for index in range(2):
        own = folder / str(index)
        own.mkdir(exist_ok=True)
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": task}
        settings = {"strategy": "multi_worker", "checkpoint_folder": str(own / "weights.npz"), **DISTRIBUTED}
        running.append(start(own, {"TF_CONFIG": json.dumps(config)}, **settings))
    try:
        first, second = (finish(process) for process in running)
    finally:
        for process in running:
            process.kill()
    assert first == second
    return first


def test_two_workers_resumed_from_the_chiefs_checkpoint_equal_one_process(tmp_path: Path, alone: Path) -> None:
    with start(tmp_path / "0", **DISTRIBUTED) as running:  # worker 1 will find no checkpoint
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
    assert list((tmp_path / "0").glob("*.checkpoint"))
    resumed, _ = two_workers(tmp_path)
    assert resumed >= 30
    assert [len(list((tmp_path / str(i)).glob("*.checkpoint"))) for i in range(2)] == [1, 0]  # only the chief writes
    assert_equal_to_1e5(tmp_path / "1" / "weights.npz", alone)
