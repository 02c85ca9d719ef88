"""Changes beside pushes that delete old versions, and after a real kill -9."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import UserError
from components.versions.publish import prune, publish
from components.versions.release import protected_versions, pushed_versions, read_release, version_folder
from serving.launch import server
from serving.release import decisions, history
from tests.support import kill
from tests.support.pushed import described, push

PROMOTIONS = 15  # by each of two processes


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([kill.__name__, "tests.support.pushed"])
    return context


def push_and_prune(home: Path, model: Path, done: Event) -> None:
    while not done.is_set():
        (model / "saved_model.pb").write_bytes(os.urandom(8))  # otherwise nothing is pushed
        base = publish(model, home / "serving_model" / "mnist", 1, described).parent
        prune(base, 1, lambda: protected_versions(home))


def promote_any(home: Path, lost: Any) -> None:
    promoted = 0
    while promoted < PROMOTIONS:
        try:
            decisions.promote(home, random.choice(pushed_versions(home) or [1]))
        except UserError:  # deleted before it was chosen
            continue
        promoted += 1
        with server.locked(home / "serving"):
            stable = read_release(home).stable
            if stable is None or not version_folder(home, stable).is_dir():
                lost.put(stable)


def test_a_promoted_version_is_never_deleted_by_a_push(tmp_path: Path, processes: BaseContext) -> None:
    lost, done = processes.SimpleQueue(), processes.Event()
    models = [tmp_path / "one", tmp_path / "other"]
    for model in models:
        model.mkdir()
    pushers = [processes.Process(target=push_and_prune, args=(tmp_path, model, done)) for model in models]
    promoters = [processes.Process(target=promote_any, args=(tmp_path, lost)) for _ in range(2)]
    for process in (*pushers, *promoters):
        process.start()
    for process in promoters:
        process.join(60)
    done.set()
    for process in pushers:
        process.join(60)
    assert [process.exitcode for process in (*pushers, *promoters)] == [0] * 4
    assert lost.empty()


def killed(processes: BaseContext, home: Path, step: int, action: str, *arguments: Any, **named: Any) -> None:
    process = processes.Process(target=kill.die_at, args=(step, action, home, *arguments), kwargs=named)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


DECIDED, RECORDED = 1, 2  # steps after which the command is killed


def outcomes(home: Path) -> list[tuple[int, str, str]]:
    return [(entry["version"], entry["outcome"], entry["reason"]) for entry in history.read(home)]


def test_a_killed_promotion_is_completed_with_the_new_reason_if_nothing_was_pushed(
    home: Path, processes: BaseContext, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(processes, home, DECIDED, "promote", reason="old")
    assert read_release(home).stable is None
    decisions.promote(home, reason="new")
    assert "interrupted earlier: promote 5, reason: old; nothing was pushed since" in capsys.readouterr().err
    assert outcomes(home) == [(5, "done", "new")]


def test_a_killed_promotion_is_dropped_if_a_version_was_pushed(
    home: Path, processes: BaseContext, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(processes, home, DECIDED, "promote", reason="old")
    push(home, 6)
    decisions.promote(home, reason="new")
    assert "promote 5, reason: old; it is dropped: version 6 is the newest now" in capsys.readouterr().err
    assert read_release(home).stable == 6
    assert outcomes(home) == [(5, "interrupted", "old"), (6, "done", "new")]


def test_a_recorded_rollback_is_completed_and_goes_back_only_once(
    home: Path, processes: BaseContext, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (1, 2, 3):
        decisions.promote(home, version)
    killed(processes, home, RECORDED, "rollback", reason="old")
    push(home, 6)
    decisions.rollback(home)
    assert "it was recorded, and is completed now" in capsys.readouterr().err
    assert read_release(home).stable == 2
    assert outcomes(home)[3:] == [(2, "done", "old")]


def test_another_command_drops_a_killed_one_even_if_it_is_refused(
    home: Path, processes: BaseContext, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(processes, home, DECIDED, "promote", 3)
    with pytest.raises(UserError, match="version 9 was not pushed"):
        decisions.promote(home, 9)
    assert "promote 3, reason: none; it is dropped: this command replaces it" in capsys.readouterr().err
    assert read_release(home).pending is None
    assert outcomes(home) == [(3, "interrupted", "")]


def test_a_killed_command_frees_its_locks(home: Path, processes: BaseContext) -> None:
    """It is killed while it holds both: the home's, and the one that keeps versions from being deleted."""
    killed(processes, home, 0, "promote", 3)
    assert prune(home / "serving_model" / "mnist", 1, lambda: protected_versions(home)) == [1, 2, 3]
    decisions.promote(home)
    assert read_release(home).stable == 5
