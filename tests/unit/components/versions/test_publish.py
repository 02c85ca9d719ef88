from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from pathlib import Path

import pytest

from components.versions.manifest import Manifest
from components.versions.publish import TEMPORARY, prune, publish


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 1000)
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights" * 100_000)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def visible(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir() if not path.name.startswith("."))


def test_versions_are_complete_and_increase_even_when_the_clock_does_not(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "serving" / "mnist"
    versions = [publish(model, base, now_s) for now_s in (100, 100, 50)]
    assert [version.name for version in versions] == ["100", "101", "102"]
    for version in versions:
        assert content(version) == content(model)


def described(version: int, files: dict[str, str]) -> Manifest:
    return Manifest(
        model="mnist", version=version, run_id="run", git_commit=None, created_utc="", settings={}, data_sha256={},
        blessed=True, infra_blessed=True, gate=[], infra=[], metrics={}, weights_sha256="", files=files,
    )  # fmt: skip


def test_the_newest_version_is_not_pushed_twice_unless_it_was_changed(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    first = publish(model, base, 1, described)
    assert publish(model, base, 5, described) == first
    (first / "saved_model.pb").write_bytes(b"another")
    second = publish(model, base, 5, described)
    assert second.name == "5"
    (model / "saved_model.pb").write_bytes(b"trained again")
    assert publish(model, base, 5, described).name == "6"
    assert publish(model, base, 5, described).name == "6"
    assert publish(model, base, 5, described, tampered=[6]).name == "7"
    assert visible(base) == ["1", "5", "6", "7"]


def test_old_versions_are_deleted_unless_they_are_protected(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    for now_s in (8, 9, 10, 11):
        publish(model, base, now_s)
    assert prune(base, keep=2, protected={8}) == [9]
    assert visible(base) == ["10", "11", "8"]
    assert prune(base, keep=5, protected=()) == []
    assert prune(base, keep=1, protected=()) == [8, 10]
    assert not list(base.glob(".deleting-*"))


def test_leftovers_of_a_killed_push_are_swept_and_other_folders_kept(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    (base / f"{TEMPORARY}7").mkdir(parents=True)
    (base / "notes").mkdir()
    publish(model, base, 8)
    assert visible(base) == ["8", "notes"]
    assert not (base / f"{TEMPORARY}7").exists()


def _publish_with_little_room(model: Path, base: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    publish(model, base, 1)


def test_a_write_that_fails_leaves_no_version(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    process = multiprocessing.get_context("spawn").Process(target=_publish_with_little_room, args=(model, base))
    process.start()
    process.join(60)
    assert process.exitcode != 0
    assert visible(base) == []
    assert publish(model, base, 1).name == "1"


def _publish_often(model: Path, base: Path, times: int) -> None:
    for _ in range(times):
        publish(model, base, 1)


def test_two_concurrent_pushers_never_share_a_version(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_publish_often, args=(model, base, 5)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(visible(base)) == 10 and all(name.isdecimal() for name in visible(base))


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02])
def test_kill_9_leaves_complete_versions_only(model: Path, tmp_path: Path, delay_s: float) -> None:
    base = tmp_path / "mnist"
    base.mkdir()
    started = base / "started"
    process = multiprocessing.get_context("spawn").Process(target=_publish_until_killed, args=(model, base, started))
    process.start()
    while not started.exists():
        time.sleep(0.001)
    time.sleep(delay_s)
    process.kill()
    process.join(60)
    for name in visible(base):
        if name.isdecimal():
            assert content(base / name) == content(model)
    publish(model, base, 1)
    assert not list(base.glob(f"{TEMPORARY}*"))


def _publish_until_killed(model: Path, base: Path, started: Path) -> None:
    started.write_text("")
    _publish_often(model, base, 1000)
