"""Training runs as separate processes: killed and resumed, repeated, and with several replicas and workers.

All runs have the same settings, so that one uninterrupted run is the reference for all.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

STEPS = 401
SETTINGS = {
    "steps": STEPS,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "checkpoint_every_steps": 30,
    "eval_every_steps": 50,
}
TIMEOUT_S = 120


def start(folder: Path, env: dict[str, str] | None = None, **settings: object) -> subprocess.Popen[str]:
    """Start a run with its checkpoint and weights in `folder`."""
    folder.mkdir(exist_ok=True)
    given = json.dumps({**SETTINGS, **settings})
    command = [sys.executable, "-m", "tests.support.training", str(folder), str(folder / "weights.npz"), given]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return (step that the run resumed at, SHA-256 of its weights)."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err[-2000:]
    resumed, digest = out.splitlines()[-1].removeprefix("resumed ").split()
    return int(resumed), digest


def interrupt(process: subprocess.Popen[str], number: signal.Signals, step: int) -> int:
    """Send a signal after this step; return the last step that the run reported."""
    with process:
        assert process.stdout is not None
        last, sent = 0, False
        for line in process.stdout:
            last = int(line.split()[0])
            if last >= step and not sent:
                process.send_signal(number)
                sent = True
    assert process.returncode == -number
    return last


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "weights.npz") as stored:
        return {name: stored[name] for name in stored.files}


def assert_equal_to_1e5(folder: Path, reference: Path) -> None:
    for name, array in weights(reference).items():
        np.testing.assert_allclose(weights(folder)[name], array, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and SHA-256 of the weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(start(folder))[1]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with the checkpoint of a run that got SIGKILL, was resumed and got SIGTERM; and its last step."""
    folder = tmp_path_factory.mktemp("interrupted")
    interrupt(start(folder), signal.SIGKILL, random.randint(60, 150))
    return folder, interrupt(start(folder), signal.SIGTERM, random.randint(180, 250))


def test_a_killed_and_a_terminated_run_resume_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, whole: tuple[Path, str], interrupted: tuple[Path, int]
) -> None:
    folder, last_step = interrupted
    shutil.copytree(folder, tmp_path / "copy")
    assert finish(start(tmp_path / "copy")) == (last_step, whole[1])  # SIGTERM wrote a checkpoint of its last step


def test_two_replicas_in_one_process_equal_one(tmp_path: Path, whole: tuple[Path, str]) -> None:
    finish(start(tmp_path, strategy="mirrored", devices=2))
    assert_equal_to_1e5(tmp_path, whole[0])


def two_workers(folder: Path) -> tuple[int, str]:
    """Train with two workers in folders 0 and 1; they end bit-identical to each other."""
    ports = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(server.getsockname()[1])
    running = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": task}
        running.append(start(folder / str(index), {"TF_CONFIG": json.dumps(config)}, strategy="multi_worker"))
    try:
        first, second = (finish(process) for process in running)
    finally:
        for process in running:
            process.kill()
    assert first == second
    return first


def test_two_workers_resumed_from_the_chiefs_checkpoint_equal_one_process(
    tmp_path: Path, whole: tuple[Path, str], interrupted: tuple[Path, int]
) -> None:
    folder, last_step = interrupted
    shutil.copytree(folder, tmp_path / "0")  # worker 1 finds no checkpoint
    assert two_workers(tmp_path)[0] == last_step
    checkpoints = [len(list((tmp_path / str(i)).glob("*.checkpoint"))) for i in range(2)]
    assert checkpoints == [1, 0]  # only the chief writes
    assert_equal_to_1e5(tmp_path / "1", whole[0])
