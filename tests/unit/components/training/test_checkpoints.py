from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from components.training.checkpoints import KEPT_FILES, Checkpoint, Checkpoints, run_key

KEY = run_key({"steps": 5}, data="a")
ARRAYS = {"model/weights/0": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7)}
STORED = Checkpoint(7, ARRAYS, [{"step": 7, "loss": 0.5}])


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    saved = Checkpoints(tmp_path / "new" / "folder", KEY)
    saved.save(STORED)
    return saved


def test_a_saved_checkpoint_is_loaded_and_is_the_only_file(checkpoints: Checkpoints) -> None:
    loaded = checkpoints.load(ARRAYS)
    assert loaded is not None and (loaded.step, loaded.history) == (STORED.step, STORED.history)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
    assert [path.name for path in checkpoints.path.parent.iterdir()] == [checkpoints.path.name]
    checkpoints.remove()
    assert checkpoints.load(ARRAYS) is None


def test_the_key_depends_on_what_decides_the_weights() -> None:
    assert run_key({"steps": 5, "checkpoint_folder": "x"}, data="a") == KEY
    assert run_key({"steps": 6}, data="a") != KEY != run_key({"steps": 5}, data="b")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncated, "truncated or damaged"),
        (flipped, "truncated or damaged"),
        (lambda path: path.write_bytes(b""), "header cannot be read"),
        (lambda path: path.write_bytes(os.urandom(5000)), "header cannot be read"),
        (lambda path: path.write_text("[1]\n"), "header cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
    ],
    ids=["truncated", "one bit", "empty", "noise", "other JSON", "a folder"],
)
def test_a_damaged_file_is_ignored_with_a_reason(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, damage: object, says: str
) -> None:
    damage(checkpoints.path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(ARRAYS) is None
    (record,) = caplog.records
    assert says in record.getMessage() and str(checkpoints.path) in record.getMessage()


def test_a_renamed_checkpoint_of_another_run_is_ignored(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    other = Checkpoints(checkpoints.path.parent, run_key({"steps": 6}))
    checkpoints.path.rename(other.path)
    assert other.load(ARRAYS) is None
    assert "other settings, data or source" in caplog.text


@pytest.mark.parametrize(
    "like",
    [
        {**ARRAYS, "model/weights/0": np.zeros((2, 4), np.float32)},
        {**ARRAYS, "model/weights/0": np.zeros((2, 3), np.float64)},
        {**ARRAYS, "optimizer/velocity/0": np.zeros(3, np.float32)},
        {"step": ARRAYS["step"]},
    ],
    ids=["shape", "dtype", "missing", "surplus"],
)
def test_a_checkpoint_of_another_architecture_is_ignored(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, like: dict[str, np.ndarray]
) -> None:
    assert checkpoints.load(like) is None
    assert "another architecture or optimizer" in caplog.text


def test_a_full_disk_keeps_the_checkpoint_before(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    path = checkpoints.path
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to("/dev/full")
    checkpoints.save(Checkpoint(8, ARRAYS, []))
    assert "no checkpoint at step 8" in caplog.text and "No space left" in caplog.text
    loaded = checkpoints.load(ARRAYS)
    assert loaded is not None and loaded.step == 7
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_checkpoints_of_unfinished_runs_do_not_accumulate(tmp_path: Path) -> None:
    for number in range(KEPT_FILES + 3):
        last = Checkpoints(tmp_path, run_key({"steps": number}))
        last.save(STORED)
        os.utime(last.path, (number, number))
    assert len(list(tmp_path.iterdir())) <= KEPT_FILES + 1
    assert last.load(ARRAYS) is not None


def test_checkpoints_of_other_programs_in_the_folder_are_kept(tmp_path: Path) -> None:
    foreign = [tmp_path / f"epoch-{number}.checkpoint" for number in range(KEPT_FILES + 3)]
    for number, path in enumerate(foreign):
        path.write_bytes(b"theirs")
        os.utime(path, (number, number))
    Checkpoints(tmp_path, KEY).save(STORED)
    assert all(path.exists() for path in foreign)


def test_a_checkpoint_is_kept_although_the_clock_was_set_back(tmp_path: Path) -> None:
    for number in range(KEPT_FILES):
        other = Checkpoints(tmp_path, run_key({"steps": number}))
        other.save(STORED)
        later_s = time.time() + 3600
        os.utime(other.path, (later_s, later_s))
    mine = Checkpoints(tmp_path, KEY)
    mine.save(STORED)
    assert mine.path.exists() and len(list(tmp_path.iterdir())) == KEPT_FILES
