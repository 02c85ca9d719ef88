"""promote, canary and rollback with a running server: which version responds before, during and after."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.versions.release import read_release
from serving.client import control
from serving.client.errors import NotFound, ServingClientError
from serving.launch import server
from serving.release import apply, decisions, history
from tests.integration.serving.release.home import IMAGE, Home
from tests.support.kill import die_at
from tests.support.pushed import folder, push
from tests.support.servers import wait_for


def test_labels_move(home: Home) -> None:
    assert home.newest() == 4
    decisions.promote(home.path, 2)
    assert home.served() == (2, 2, 2)
    decisions.canary(home.path, 3)
    assert home.served() == (2, 3, 3)
    decisions.promote(home.path)
    assert home.served() == (3, 3, 3)
    assert decisions.rollback(home.path).in_effect
    assert home.served() == (2, 2, 2)
    decisions.unpin(home.path)
    assert home.newest() == 4


def test_a_pushed_version_waits_for_its_promotion(home: Home) -> None:
    decisions.promote(home.path, 3)
    push(home.path, 5, home.model)
    time.sleep(0.3 if home.backend == "embedded" else 1.5)  # embedded polls every 0.1 s here, the others every second
    assert home.served() == (3, 3, 3)
    decisions.promote(home.path)
    assert home.served() == (5, 5, 5)


def test_a_version_that_does_not_load_moves_nothing(home: Home) -> None:
    decisions.promote(home.path, 2)
    push(home.path, 5)  # complete and blessed, but not a model
    for _ in range(2):
        with pytest.raises(InputError, match=r"version 5 does not load: \w+: "):
            decisions.promote(home.path, 5)
        assert home.served() == (2, 2, 2)
        assert read_release(home.path).pending is None
    last = history.read(home.path)[-1]
    assert (last["version"], last["outcome"]) == (5, "failed")
    assert last["after"] == {"stable": 2, "canary": None}
    assert "does not load" in last["error"]
    decisions.promote(home.path, 3)
    assert home.served() == (3, 3, 3)


def test_a_tampered_version_is_not_kept_for_a_rollback(home: Home) -> None:
    decisions.promote(home.path, 2)
    (folder(home.path, 2) / "fingerprint.pb").write_bytes(b"another")
    decisions.promote(home.path, 3)
    assert home.served() == (3, 3, 3)

    def unloaded() -> bool:  # soon after the promotion: the server unloads in the background
        try:
            client.predict({"images": IMAGE}, model="mnist", version=2)
        except NotFound:
            return True
        return False

    with home.client() as client:
        assert wait_for(unloaded)


def test_a_server_that_hangs_is_reported_and_nothing_moves(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions.promote(home.path, 2)
    process = server.require(home.path).process()
    assert process is not None
    monkeypatch.setattr(control, "STATUS_TIMEOUT_S", 0.2)
    monkeypatch.setattr(control, "RELOAD_TIMEOUT_S", 0.2)
    process.suspend()
    try:
        with pytest.raises(ServingClientError):
            decisions.promote(home.path, 3)
    finally:
        process.resume()
    assert read_release(home.path).stable == 2
    assert home.served() == (2, 2, 2)


def test_a_full_disk_moves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions.promote(home.path, 2)
    real, remaining = apply.write_durably, 1

    def full(path: Path, content: str) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise InputError(f"{path}: cannot be written (No space left on device)")
        real(path, content)

    monkeypatch.setattr(apply, "write_durably", full)
    with pytest.raises(InputError, match="No space left"):
        decisions.promote(home.path, 3)
    assert home.served() == (2, 2, 2)
    monkeypatch.undo()
    decisions.promote(home.path, 3)
    assert home.served() == (3, 3, 3)


def test_a_rollback_under_load_fails_no_request(home: Home) -> None:
    decisions.promote(home.path, 2)
    decisions.promote(home.path, 3)
    failed: list[str] = []
    seen: dict[str, list[int]] = {"stable": [], "": []}
    stop = threading.Event()

    def load(label: str) -> None:
        with home.client() as client:
            while not stop.is_set():
                try:
                    prediction = client.predict({"images": IMAGE}, model="mnist", label=label or None)
                    seen[label].append(prediction.version)
                except ServingClientError as e:
                    failed.append(str(e))
                time.sleep(0.005)

    threads = [threading.Thread(target=load, args=(label,)) for label in seen]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: all(seen.values()))
        decisions.rollback(home.path)
        counts = {label: len(versions) for label, versions in seen.items()}
        wait_for(lambda: all(len(seen[label]) > counts[label] + 5 for label in seen))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    for label, versions in seen.items():
        assert versions == sorted(versions, reverse=True)  # 3, then 2, never back
        assert set(versions) == {3, 2}
        assert set(versions[counts[label] + 1 :]) == {2}  # one request may have been in progress


@pytest.mark.parametrize(("action", "after", "steps"), [("promote", 3, range(20)), ("rollback", 1, (2, 4, 6, 99))])
def test_after_a_kill_at_any_step_it_responds_and_the_same_command_completes(
    home: Home, action: str, after: int, steps: list[int]
) -> None:
    """A promotion first loads its version; a rollback's target is already loaded. The other steps are the same."""
    processes = multiprocessing.get_context("forkserver")  # imports once, then forks for each step
    processes.set_forkserver_preload([die_at.__module__])
    shutil.move(folder(home.path, 4), home.path / "hidden")
    try:
        for step in steps:
            decisions.rollback(home.path, 1)
            decisions.promote(home.path, 2)
            recorded = len(history.read(home.path))
            process = processes.Process(target=die_at, args=(step, action, home.path))
            process.start()
            process.join(60)
            if process.exitcode == 0:
                assert step >= 7
                break
            assert process.exitcode == -signal.SIGKILL
            stable, _, unlabelled = home.served()
            assert {stable, unlabelled} <= {2, after}
            getattr(decisions, action)(home.path)
            assert home.served() == (after,) * 3
            assert read_release(home.path).pending is None
            assert [entry["outcome"] for entry in history.read(home.path)[recorded:]] == ["done"]
        else:
            pytest.fail("never completed without being killed")
    finally:
        shutil.move(home.path / "hidden", folder(home.path, 4))
