from __future__ import annotations

from pathlib import Path

from components.data import accepted

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def before(folder: Path, identity: str) -> bytes | None:
    found = accepted.previous(folder, identity)
    return found.read_bytes() if found else None


def test_the_data_before_is_the_last_different_data(tmp_path: Path) -> None:
    folder = tmp_path / "statistics"
    found = []
    for run in (A, A, B, B, A, A, C):
        found.append(before(folder, run))
        accepted.record(folder, run, run[:1].encode())
    assert found == [None, None, b"a", b"a", b"b", b"b", b"a"]
    assert len(list(folder.iterdir())) == 2


def test_data_that_comes_back_is_another_record(tmp_path: Path) -> None:
    names = []
    for run in (A, B, A, B):
        found = accepted.previous(tmp_path, run)
        names.append(found.name if found else "")
        accepted.record(tmp_path, run, b"")
    assert len(set(names)) == 4  # so that no comparison comes from the cache


def test_other_files_in_the_folder_are_ignored(tmp_path: Path) -> None:
    for name in ("٣-0123456789abcdef.pb", "x.pb", ".new.7", "9-short.pb"):
        (tmp_path / name).write_bytes(b"?")
    assert accepted.previous(tmp_path, A) is None
    accepted.record(tmp_path, A, b"a")
    assert before(tmp_path, B) == b"a"
