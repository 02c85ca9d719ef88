"""The decisions of promote, canary, rollback and unpin, without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.errors import InputError, UsageError
from components.versions.release import protected_versions, read_release
from serving.release import decisions, history
from serving.release.apply import Change
from tests.support.pushed import folder, push


def served(home: Path) -> tuple[int | None, int | None]:
    now = read_release(home)
    assert now.pending is None
    return now.stable, now.canary


def test_promote_chooses_the_canary_else_the_newest(home: Path) -> None:
    decisions.promote(home, 2)
    decisions.canary(home, 3)
    assert served(home) == (2, 3)
    decisions.promote(home)
    assert served(home) == (3, None)
    decisions.promote(home)
    assert served(home) == (5, None)
    assert not decisions.promote(home).changed


@pytest.mark.parametrize("foreign", ["no manifest", "not blessed"])
def test_without_a_number_a_folder_that_no_run_pushed_is_named_and_not_chosen(
    home: Path, capsys: pytest.CaptureFixture[str], foreign: str
) -> None:
    push(home, 9, blessed=foreign == "no manifest")
    if foreign == "no manifest":
        _without_manifest(folder(home, 9))
    decisions.rollback(home)
    assert served(home) == (4, None)  # 5 was served
    assert "pushed by no run, so ignored: 9 in" in capsys.readouterr().err
    decisions.canary(home)
    assert served(home) == (4, 5)
    assert "pushed by no run, so ignored: 9 in" in capsys.readouterr().err
    decisions.promote(home)  # the canary
    assert capsys.readouterr().err == ""
    decisions.rollback(home)
    decisions.promote(home)
    assert served(home) == (5, None)
    assert "pushed by no run, so ignored: 9 in" in capsys.readouterr().err
    with pytest.raises(InputError, match="manifest"):
        decisions.promote(home, 9)
    assert served(home) == (5, None)


def test_without_a_number_a_newest_version_that_was_tampered_with_is_refused(home: Path) -> None:
    _tampered(folder(home, 5))
    with pytest.raises(InputError, match="changed since it was pushed"):
        decisions.promote(home)
    assert served(home) == (None, None)


def test_promoting_another_version_keeps_the_canary(home: Path) -> None:
    decisions.promote(home, 1)
    decisions.canary(home)
    decisions.promote(home, 2)
    assert served(home) == (2, 5)
    decisions.clear_canary(home)
    assert served(home) == (2, None)


def test_rollbacks_go_further_back_not_forward(home: Path) -> None:
    for version in (1, 2, 3):
        decisions.promote(home, version)
    decisions.canary(home, 4)
    decisions.rollback(home)
    assert served(home) == (2, None)
    decisions.promote(home, 4)  # a later rollback does not return to a version that was rolled back
    decisions.rollback(home)
    assert served(home) == (2, None)
    decisions.rollback(home)
    assert served(home) == (1, None)


def test_the_first_rollback_needs_no_promotion_before_it(home: Path) -> None:
    """Without labels, each pushed version counts as having been stable."""
    decisions.rollback(home)
    assert served(home) == (4, None)
    decisions.rollback(home)
    assert served(home) == (3, None)


def test_a_rollback_skips_deleted_versions_and_goes_anywhere_by_name(home: Path) -> None:
    for version in (1, 2, 3):
        decisions.promote(home, version)
    folder(home, 2).rename(home / "gone")
    decisions.rollback(home)
    assert served(home) == (1, None)
    decisions.rollback(home, 3)
    assert served(home) == (3, None)


def test_the_first_version_cannot_be_rolled_back(tmp_path: Path) -> None:
    push(tmp_path, 1)
    decisions.promote(tmp_path)
    with pytest.raises(UsageError, match="no earlier stable version"):
        decisions.rollback(tmp_path)


def test_unpin_removes_the_labels(home: Path) -> None:
    decisions.promote(home, 2)
    decisions.unpin(home)
    assert read_release(home).labels == {}


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda home: decisions.promote(home, 9), "version 9 was not pushed"),
        (lambda home: decisions.canary(home, 9), "version 9 was not pushed"),
        (lambda home: decisions.rollback(home, 9), "version 9 was not pushed"),
        (lambda home: decisions.canary(home, 2), "version 2 is the stable one"),
        (lambda home: decisions.promote(home, 3, reason="x" * 1001), "1,001 characters"),
    ],
)
def test_a_refused_command_changes_nothing(home: Path, act: Callable[[Path], Change], says: str) -> None:
    decisions.promote(home, 2)
    before = read_release(home), history.read(home)
    with pytest.raises((InputError, UsageError), match=says):
        act(home)
    assert (read_release(home), history.read(home)) == before


@pytest.mark.parametrize("act", [decisions.canary, decisions.clear_canary])
def test_without_a_stable_version_there_is_no_canary(home: Path, act: Callable[[Path], Change]) -> None:
    with pytest.raises(UsageError, match="no version is stable"):
        act(home)


def _tampered(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"another")


def _without_manifest(version: Path) -> None:
    (version / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_tampered, "changed since it was pushed: saved_model.pb"), (_without_manifest, "has no manifest")],
)
def test_an_unproven_version_gets_no_label(home: Path, damage: Callable[[Path], None], says: str) -> None:
    decisions.promote(home, 4)
    damage(folder(home, 3))
    for act in (decisions.promote, decisions.canary, decisions.rollback):
        with pytest.raises(InputError, match=says):
            act(home, 3)
    assert served(home) == (4, None)


def test_a_broken_canary_can_always_be_withdrawn(home: Path) -> None:
    decisions.promote(home, 1)
    decisions.canary(home, 2)
    _tampered(folder(home, 2))
    decisions.clear_canary(home)
    assert served(home) == (1, None)


def test_labelled_and_loaded_versions_and_the_rollback_target_are_protected(home: Path) -> None:
    assert protected_versions(home) == {4, 5}
    assert protected_versions(home / "missing") == set()
    for version in (1, 2, 3):
        decisions.promote(home, version)
    decisions.canary(home, 4)
    assert protected_versions(home) == {2, 3, 4}
    decisions.rollback(home, 1)
    assert protected_versions(home) == {1, 5}  # 5 was served before 1 was promoted
