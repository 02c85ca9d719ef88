from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.versions import manifest
from components.versions.manifest import Manifest
from components.versions.publish import TEMPORARY, prune, publish, versions
from tests.support.pushed import described


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
    published = [publish(model, base, now_s) for now_s in (100, 100, 50)]
    assert [version.name for version in published] == ["100", "101", "102"]
    for version in published:
        assert content(version) == content(model)


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


def test_documents_are_pushed_with_the_model_and_hashed_but_are_not_part_of_it(model: Path, tmp_path: Path) -> None:
    def documents(version: int) -> dict[str, str]:
        return {"README.md": f"# {version}, described at {time.monotonic()}\n", "model_card.json": "{}\n"}

    base = tmp_path / "mnist"
    first = publish(model, base, 1, described, documents=documents)
    assert (first / "README.md").read_text().startswith("# 1,")
    assert manifest.verify(first).files.keys() >= {"README.md", "model_card.json", "saved_model.pb"}
    assert publish(model, base, 5, described, documents=documents) == first
    (first / "README.md").write_text("edited")
    assert publish(model, base, 5, described, documents=documents).name == "5"


def test_new_class_names_are_published_with_an_unchanged_model(model: Path, tmp_path: Path) -> None:
    def named(*names: str) -> Callable[[int, dict[str, str]], Manifest]:
        settings = {"data": {"class_names": list(names)}} if names else {}
        return lambda version, files: replace(described(version, files), settings=settings)

    calls = [named(), named("Shirt", "Bag"), named("Shirt", "Bag"), named("Bag", "Shirt"), named()]
    assert [publish(model, tmp_path / "mnist", 1, call).name for call in calls] == ["1", "2", "2", "3", "4"]


def test_old_versions_are_deleted_unless_they_are_protected(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    for now_s in (8, 9, 10, 11):
        publish(model, base, now_s)
    assert prune(base, keep=2, protected=lambda: {8}) == [9]
    assert visible(base) == ["10", "11", "8"]
    assert prune(base, keep=5, protected=tuple) == []
    assert prune(base, keep=1, protected=tuple) == [8, 10]
    assert not list(base.glob(".deleting-*"))


def test_folders_that_no_run_pushed_do_not_displace_good_versions(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    for number in (1, 2, 3):
        (model / "saved_model.pb").write_bytes(b"%d" % number)
        publish(model, base, number, described)
    for number in (4, 5, 6):
        shutil.copytree(model, base / str(number))
    assert prune(base, keep=2, protected=tuple) == [1, 4]
    assert visible(base) == ["2", "3", "5", "6"]


def test_a_version_is_not_writable_by_everyone_although_the_model_is(model: Path, tmp_path: Path) -> None:
    for path in (model, *model.rglob("*")):
        path.chmod(path.stat().st_mode | 0o777)
    before = os.umask(0o022)
    try:
        version = publish(model, tmp_path / "mnist", 8, described)
    finally:
        os.umask(before)
    assert not [path for path in (version, *version.rglob("*")) if path.stat().st_mode & 0o022]


def test_leftovers_of_a_killed_push_are_swept_and_other_folders_kept(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    (base / f"{TEMPORARY}7").mkdir(parents=True)
    (base / "notes").mkdir()
    publish(model, base, 8)
    assert visible(base) == ["8", "notes"]
    assert not (base / f"{TEMPORARY}7").exists()


@pytest.mark.parametrize("name", ["007", "\u0663", "99999999999999999999", "-1", "1.0"])
def test_a_folder_whose_name_no_push_writes_is_not_a_version(model: Path, tmp_path: Path, name: str) -> None:
    base = tmp_path / "mnist"
    (base / name).mkdir(parents=True)
    assert versions(base) == []
    assert publish(model, base, 8).name == "8"
    assert prune(base, keep=1, protected=tuple) == []
    assert (base / name).is_dir()


def test_the_highest_number_leaves_none_for_a_push_and_nothing_is_deleted(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "mnist"
    publish(model, base, 8)
    (base / str(2**63 - 1)).mkdir()
    with pytest.raises(InputError, match="no version number is left") as caught:
        publish(model, base, 9)
    assert "move the folder away" in caught.value.remedy
    assert visible(base) == ["8", str(2**63 - 1)]


def test_links_are_deleted_and_their_targets_kept(model: Path, tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "mnist", tmp_path / "elsewhere"
    shutil.copytree(model, elsewhere)
    base.mkdir()
    for name in ("7", f"{TEMPORARY}3", ".deleting-4"):
        (base / name).symlink_to(elsewhere)
    publish(model, base, 8)
    assert prune(base, keep=1, protected=tuple) == [7]
    assert visible(base) == ["8"]
    assert content(elsewhere) == content(model)


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(model: Path, tmp_path: Path) -> None:
    base, target = tmp_path / "mnist", tmp_path / "precious"
    base.mkdir()
    target.write_text("content")
    (base / ".push.lock").symlink_to(target)
    with pytest.raises(InputError, match="is a symlink"):
        publish(model, base, 8)
    assert target.read_text() == "content"


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
