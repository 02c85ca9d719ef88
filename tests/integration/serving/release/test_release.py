"""Promote, canary and roll back against a running server: what answers, before, during and after."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.common.errors import InputError
from components.common.ports import free_port
from components.versions.release import read_release
from serving.client import Client, connect
from serving.client.errors import NotFound, ServingClientError
from serving.launch import server
from serving.launch.backends import Setup
from serving.release import apply, control, decisions, history
from tests.conftest import ROOT, Done, environment
from tests.support.pushed import folder, push
from tests.support.servers import wait_for

IMAGE = np.zeros((1, 28, 28), np.uint8)


class _Bars(tf.Module):
    """Knows the synthetic digits: bright rows at the height of their class."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        rows = np.zeros((28, 10), np.float32)
        for digit in range(10):
            top = digit * 28 // 10
            rows[top : top + 2, digit if right else 0] = 1.0
        self.rows = tf.Variable(rows)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        ink = tf.reduce_mean(tf.cast(images, tf.float32), axis=2)
        probabilities = tf.nn.softmax(tf.linalg.matmul(ink, self.rows))
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=1)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that is right about the synthetic digits, and one that is wrong."""
    root = tmp_path_factory.mktemp("exported")
    for name, right in (("right", True), ("wrong", False)):
        model = _Bars(right)
        tf.saved_model.save(model, str(root / name), signatures={"serving_default": model.serve})
    return root / "right", root / "wrong"


@pytest.fixture
def home(backend: str, exported: tuple[Path, Path], data: Path, tmp_path: Path) -> Iterator[Path]:
    """Versions 1 to 4 served without labels; 4 is wrong about everything."""
    right, wrong = exported
    for version in (1, 2, 3):
        push(tmp_path, version, right)
    push(tmp_path, 4, wrong)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist").symlink_to(data)
    up(tmp_path, backend)
    yield tmp_path
    server.stop(tmp_path)


def up(home: Path, backend: str) -> None:
    server.start(Setup(home, free_port(), free_port()), backend)


def client(home: Path) -> Client:
    running = server.find(home)
    assert running is not None
    return connect(f"127.0.0.1:{running.grpc_port}")


def answering(home: Path, label: str | None = None) -> int:
    with client(home) as asking:
        return asking.predict({"images": IMAGE}, model="mnist", label=label).version


def answers(home: Path) -> tuple[int, int, int]:
    """Versions that answer to stable, to canary and without a label."""
    return answering(home, "stable"), answering(home, "canary"), answering(home)


def serving(*arguments: str | Path) -> Done:
    command = [sys.executable, "-m", "serving", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


def test_labels_move_and_a_restart_keeps_them(home: Path, backend: str) -> None:
    assert answering(home) == 4
    decisions.promote(home, 2)
    assert answers(home) == (2, 2, 2)
    decisions.canary(home, 3)
    assert answers(home) == (2, 3, 3)
    decisions.promote(home)
    assert answers(home) == (3, 3, 3)
    server.stop(home)
    up(home, backend)
    assert answers(home) == (3, 3, 3)
    done = serving("rollback", "--home", home, "--json").json
    assert (done["stable"], done["in_effect"]) == (2, True)
    assert answers(home) == (2, 2, 2)
    assert serving("status", "--home", home, "--json").json["labels"] == {"stable": 2, "canary": 2}
    assert serving("query", "--home", home, "--count", "1", "--json").json["version"] == 2
    decisions.unpin(home)
    assert answering(home) == 4


def test_a_pushed_version_waits_for_its_promotion(home: Path, exported: tuple[Path, Path]) -> None:
    decisions.promote(home, 3)
    push(home, 5, exported[0])
    time.sleep(1.5)  # the server looks once a second
    assert answers(home) == (3, 3, 3)
    decisions.promote(home)
    assert answers(home) == (5, 5, 5)


def test_a_version_that_does_not_load_moves_nothing(home: Path, backend: str) -> None:
    decisions.promote(home, 2)
    push(home, 5)  # whole and blessed, but no model
    for _ in range(2):
        with pytest.raises(InputError, match=r"version 5 does not load: \w+: "):
            decisions.promote(home, 5)
        assert answers(home) == (2, 2, 2)
        assert read_release(home).pending is None
    last = history.read(home)[-1]
    assert (last["version"], last["outcome"]) == (5, "failed")
    assert last["after"] == {"stable": 2, "canary": None}
    assert "does not load" in last["error"]
    decisions.promote(home, 3)
    assert answers(home) == (3, 3, 3)


def test_what_was_tampered_with_is_not_started(home: Path, backend: str) -> None:
    decisions.promote(home, 2)
    server.stop(home)
    (folder(home, 2) / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(InputError, match="not as it was pushed"):
        up(home, backend)
    decisions.rollback(home, 1)
    decisions.promote(home, 3)
    up(home, backend)
    assert answers(home) == (3, 3, 3)


def test_a_labelled_version_that_does_not_load_is_no_start(home: Path, backend: str) -> None:
    decisions.promote(home, 2)
    server.stop(home)
    push(home, 5)
    assert not decisions.promote(home, 5).in_effect
    with pytest.raises(InputError, match="version 5 does not load: "):
        up(home, backend)
    assert server.find(home) is None
    decisions.rollback(home)
    up(home, backend)
    assert answers(home) == (2, 2, 2)


def test_what_only_a_rollback_would_need_is_not_loaded_tampered_with(home: Path) -> None:
    decisions.promote(home, 2)
    (folder(home, 2) / "fingerprint.pb").write_bytes(b"another")
    decisions.promote(home, 3)
    assert answers(home) == (3, 3, 3)
    with client(home) as asking, pytest.raises(NotFound):
        asking.predict({"images": IMAGE}, model="mnist", version=2)


def test_a_server_that_hangs_is_said_and_nothing_moves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions.promote(home, 2)
    running = server.find(home)
    assert running is not None
    process = running.process()
    assert process is not None
    monkeypatch.setattr(control, "STATUS_TIMEOUT_S", 0.5)
    monkeypatch.setattr(control, "RELOAD_TIMEOUT_S", 0.5)
    process.suspend()
    try:
        with pytest.raises(ServingClientError):
            decisions.promote(home, 3)
    finally:
        process.resume()
    assert read_release(home).stable == 2
    assert answers(home) == (2, 2, 2)


def test_a_full_disk_moves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions.promote(home, 2)
    real, left = apply.write_durably, 1

    def full(path: Path, content: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(f"{path}: cannot be written (No space left on device)")
        real(path, content)

    monkeypatch.setattr(apply, "write_durably", full)
    with pytest.raises(InputError, match="No space left"):
        decisions.promote(home, 3)
    assert answers(home) == (2, 2, 2)
    monkeypatch.undo()
    decisions.promote(home, 3)
    assert answers(home) == (3, 3, 3)


def test_a_comparison_says_promote_or_roll_back(home: Path) -> None:
    decisions.promote(home, 1)
    good = serving("canary", "3", "--shadow", "60", "--home", home, "--json", "--max-latency-ratio", "1000")
    assert good.code == 0, good.stderr
    shadow = good.json["shadow"]
    assert (shadow["verdict"], shadow["agreement"], shadow["canary"]["accuracy"]) == ("promote", 1.0, 1.0)
    assert [shadow[label]["version"] for label in ("stable", "canary")] == [1, 3]
    bad = serving("canary", "4", "--shadow", "60", "--home", home)
    assert bad.code == 3
    assert "roll back: python -m serving canary --clear" in bad.stdout
    assert "digits fewer right of 60" in bad.stdout
    assert answers(home)[:2] == (1, 4)  # the verdict is advice
    assert [entry["outcome"] for entry in history.read(home)] == ["done", "done", "promote", "done", "roll back"]


def test_a_rollback_under_load_fails_no_request(home: Path) -> None:
    decisions.promote(home, 2)
    decisions.promote(home, 3)
    failed: list[str] = []
    seen: dict[str, list[int]] = {"stable": [], "": []}
    stop = threading.Event()

    def load(label: str) -> None:
        with client(home) as asking:
            while not stop.is_set():
                try:
                    answer = asking.predict({"images": IMAGE}, model="mnist", label=label or None)
                    seen[label].append(answer.version)
                except ServingClientError as e:
                    failed.append(str(e))
                time.sleep(0.005)

    threads = [threading.Thread(target=load, args=(label,)) for label in seen]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(seen.values()))
    decisions.rollback(home)
    counts = {label: len(versions) for label, versions in seen.items()}
    wait_for(lambda: all(len(seen[label]) > counts[label] + 5 for label in seen))
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    for label, versions in seen.items():
        assert versions == sorted(versions, reverse=True)  # 3 until it is 2, never back
        assert set(versions) == {3, 2}
        assert set(versions[counts[label] + 1 :]) == {2}  # one may have been under way


DYING = """
import os, signal, sys
from serving.release import apply, control, decisions, history
left = int(sys.argv[1])
def dying(module, name):
    real = getattr(module, name)
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(module, name, call)
dying(apply, "write_durably")
dying(history, "append")
for name in ("reload", "wait_available", "confirm", "wait_highest"):
    dying(control.Control, name)
from pathlib import Path
getattr(decisions, sys.argv[2])(Path(sys.argv[3]))
"""


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_at_any_step_it_answers_and_the_same_command_finishes(home: Path, action: str) -> None:
    """Between any two steps. A promotion loads its version first; what a rollback goes to is loaded already."""
    shutil.rmtree(folder(home, 4))
    before, after = (2, 3) if action == "promote" else (2, 1)
    for step in range(20):
        decisions.rollback(home, 1)
        decisions.promote(home, 2)
        recorded = len(history.read(home))
        command = [sys.executable, "-c", DYING, str(step), action, str(home)]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            assert step >= 7
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert answering(home, "stable") in (before, after)
        assert answering(home) in (before, after)
        getattr(decisions, action)(home)
        assert answers(home) == (after,) * 3
        assert json.loads((home / "serving" / "release.json").read_text())["pending"] is None
        assert [entry["outcome"] for entry in history.read(home)[recorded:]] == ["done"]
    else:
        pytest.fail("never reached the end")


def test_a_server_in_the_foreground_is_the_homes_too(home: Path, backend: str) -> None:
    server.stop(home)
    ports = ("--grpc-port", str(free_port()), "--rest-port", str(free_port()))
    command = [sys.executable, "-m", "serving", "up", "--foreground", "--backend", backend, "--home", str(home), *ports]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: server.version_states(int(ports[3])), 60)
        assert decisions.promote(home, 2).in_effect
        assert answers(home) == (2, 2, 2)
    finally:
        assert server.stop(home) is not None
        process.communicate(timeout=20)
