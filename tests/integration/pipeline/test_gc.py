"""What gc removes and keeps in a home with several runs, and what a kill at any moment leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store import MetadataStore

from components.common.errors import InputError
from components.common.home_size import HomeSize
from components.versions import publish, release
from pipeline import gc, integrity, lineage
from tests.support.recorded_home import FILE_BYTES, RecordedHome

REMOVALS = ("os.rename", "os.remove", "os.rmdir", "os.truncate")
MAX_STEPS = 500


@pytest.fixture
def home(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def evaluations(home: RecordedHome) -> dict[int, Path]:
    """The evaluation that `validate` reads for each pushed version."""
    found = {}
    for version in release.pushed_versions(home.root):
        pushed = lineage.pushed_version(home.store, version)
        assert pushed is not None
        found[version] = Path(pushed.evaluation_uri)
    return found


def check_sound(home: RecordedHome, last_run: dict[str, Path]) -> None:
    """What must hold after each gc, even a killed one: artifacts in use are complete, `validate` has its input."""
    for folder, live in home.states().items():
        if live or folder in last_run.values():
            assert live
            assert (folder / "file").stat().st_size == FILE_BYTES
    for evaluation in evaluations(home).values():
        assert (evaluation / "file").stat().st_size == FILE_BYTES


def test_only_what_the_newest_runs_and_the_pushed_versions_need_stays(home: RecordedHome) -> None:
    first, second, third = home.run("a", 1), home.run("b", 2), home.run("c", 3)
    for name in ("b", "c"):  # run a ended before its report
        home.report(name).parent.mkdir(exist_ok=True)
        home.report(name).write_text("report")
    shutil.rmtree(home.serving_model / "2")  # pruned
    collected = gc.collect(home, 1)
    kept = {*third.values(), first["Evaluator/evaluation"]}
    assert set(integrity.output_folders(home.artifacts, publish.DELETED)) == kept
    assert {folder for folder, live in home.states().items() if live} == kept
    assert set(home.states()) == {*first.values(), *second.values(), *third.values()}  # the records stay
    assert [path.name for path in (home.root / "logs").iterdir()] == ["c"]
    assert [path.name for path in (home.root / "reports").iterdir()] == ["c.html"]
    assert (collected.artifact_folders, collected.log_folders) == (11, 2)
    assert collected.freed_bytes >= 11 * FILE_BYTES
    assert collected.home_size == HomeSize.read(home)
    assert sorted(path.stem for path in (home.artifacts / integrity.LISTINGS).glob("*")) == []
    assert gc.collect(home, 1).artifact_folders == 0  # nothing is left to do


def test_the_next_run_is_cached_and_a_deleted_output_is_never_reused(home: RecordedHome) -> None:
    first, second = home.run("a", 1), home.run("b", 2)
    gc.collect(home, 1)
    assert home.run("c", 2) == second
    again = home.run("d", 1)
    assert set(again.values()).isdisjoint(first.values())


def test_runs_that_fail_do_not_take_the_cache_of_the_last_good_one(home: RecordedHome) -> None:
    good = home.run("a", 1)
    for name in ("b", "c"):
        home.run(name, 2, last="Trainer")
    gc.collect(home, 1)
    check_sound(home, good)
    for age, name in enumerate(("e", "d", *gc.COMMAND_LOGS), 2):  # refused, before MLMD; and of commands
        home.logs(name).mkdir()
        os.utime(home.logs(name), (time.time() - age * gc.UNFINISHED_S,) * 2)
    os.utime(home.logs("c"), (time.time() - 9 * gc.UNFINISHED_S,) * 2)
    gc.collect(home, 1)
    kept = {"c", "e", "validate", "gc", "compile"}  # the last result, the newest, and those that are not of one run
    assert {path.name for path in (home.root / "logs").iterdir()} == kept


def test_logs_that_are_being_written_stay(home: RecordedHome) -> None:
    """`submit --wait` writes a run's logs, then its result, without the home's lock."""
    home.run("a", 1)
    home.logs("of the cluster").mkdir()
    home.run("b", 2)  # written to later
    gc.collect(home, 1)
    assert {path.name for path in (home.root / "logs").iterdir()} == {"b", "of the cluster"}


def test_zero_keeps_all_runs_and_a_dry_run_changes_nothing(home: RecordedHome) -> None:
    for name in "abc":
        home.run(name, ord(name))
    (home.serving_model / ".push.lock").touch()
    before = sorted(home.root.rglob("*"))
    assert gc.collect(home, 1, dry_run=True).artifact_folders == 10
    assert sorted(home.root.rglob("*")) == before
    unfinished = home.artifacts / "Trainer" / "model" / "999"
    unfinished.mkdir()
    assert gc.collect(home, 0).artifact_folders == 1
    assert [path for path in sorted(home.root.rglob("*")) if path.name != ".size.json"] == before


def test_a_version_of_the_release_keeps_its_evaluation_even_while_its_folder_is_away(home: RecordedHome) -> None:
    first, _ = home.run("a", 1), home.run("b", 2)
    (home.serving_model / "1").rename(home.root / "1")
    (home.root / "serving").mkdir()
    (home.root / release.RELEASE_FILE).write_text('{"stable": 2, "earlier": [1]}')
    gc.collect(home, 1)
    assert first["Evaluator/evaluation"].is_dir()
    (home.root / release.RELEASE_FILE).write_text("damaged")
    with pytest.raises(InputError, match="damaged"):
        gc.collect(home, 1)


@pytest.mark.parametrize("lost", ["missing", "new"])
def test_without_the_records_no_artifact_is_removed(home: RecordedHome, lost: str) -> None:
    folders = home.run("a", 1).values()
    home.metadata.unlink()
    if lost == "new":
        assert home.store.get_executions() == []
    assert gc.collect(home, 1).artifact_folders == 0
    assert all((folder / "file").is_file() for folder in folders)


def test_nothing_outside_the_home_is_removed_through_a_link(home: RecordedHome, tmp_path: Path) -> None:
    home.run("a", 1)
    outside = tmp_path / "outside"
    (outside / "key" / "999").mkdir(parents=True)
    (outside / "999").mkdir()
    (outside / "big.log").write_bytes(b"x" * (gc.MAX_LOG_BYTES + 1))
    before = sorted(outside.rglob("*"))
    (home.artifacts / "Node").symlink_to(outside)
    (home.artifacts / "Trainer" / "link").symlink_to(outside)
    (home.artifacts / "Trainer" / "model" / "999").symlink_to(outside)
    (home.root / "logs" / "old").symlink_to(outside)
    (home.root / "logs" / "serving.log").symlink_to(outside / "big.log")
    (home.root / "data").symlink_to(outside)
    collected = gc.collect(home, 1)
    integrity.remove_unpublished(home.store, home.artifacts)  # the same at the start of a run
    assert sorted(outside.rglob("*")) == before
    assert (outside / "big.log").stat().st_size > gc.MAX_LOG_BYTES
    assert collected.home_size.bytes["data"] < 1000
    for folder in (home.artifacts, home.root / "logs"):  # as a whole on another disk
        shutil.move(folder, outside / folder.name)
        folder.symlink_to(outside / folder.name)
    home.run("b", 2)
    gc.collect(home, 1)
    assert (outside / "logs" / "a").is_dir()


def test_long_logs_of_commands_keep_their_end_while_a_server_writes_on(home: RecordedHome) -> None:
    home.run("a", 1)
    log = home.root / "logs" / "serving.log"
    line = b"0123456789\n"
    log.write_bytes(line * (gc.MAX_LOG_BYTES // len(line) + 1))
    with open(log, "ab", buffering=0) as server:
        server.write(b"before\n")
        gc.collect(home, 1)
        server.write(b"after\n")
    content = log.read_bytes()
    assert content.startswith(line)
    assert content.endswith(line + b"before\nafter\n")
    assert len(content) <= gc.KEPT_LOG_BYTES + len(b"after\n")


def killed_at(step: int, home: RecordedHome) -> bool:
    """Collect in a process that is killed before its removal number `step`; False if it ended before that."""
    child = os.fork()
    if child == 0:
        remaining = step

        def count(event: str, _: Any = None) -> None:
            nonlocal remaining
            if event in REMOVALS:
                remaining -= 1
                if remaining < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        put = MetadataStore.put_artifacts
        MetadataStore.put_artifacts = lambda *arguments: (count("os.rename"), put(*arguments))[1]
        sys.addaudithook(count)
        gc.collect(home, 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_kill_at_any_moment_leaves_a_home_that_works(home: RecordedHome, tmp_path: Path) -> None:
    home.run("a", 1)
    last = home.run("b", 2)
    integrity.remember(home.store.get_artifacts(), home.artifacts)
    original = tmp_path / "original"
    shutil.copytree(home.root, original)
    for step in range(MAX_STEPS):
        if not killed_at(step, home):
            break
        check_sound(home, last)
        assert integrity.forget_damaged(home.store, home.artifacts) == []  # the next run finds no damage
        gc.collect(home, 1)
        check_sound(home, last)
        assert len(list(integrity.output_folders(home.artifacts, publish.DELETED))) == len(last) + 1
        shutil.rmtree(home.root)
        shutil.copytree(original, home.root)
    assert 20 < step < MAX_STEPS
