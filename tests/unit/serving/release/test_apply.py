"""Changes without a running server: after a kill, by concurrent commands, and in a damaged home."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError
from components.versions.release import RELEASE_FILE, protected_versions, read_release
from serving.release import apply, decisions, history
from serving.release.apply import Change


def served(home: Path) -> tuple[int | None, int | None]:
    now = read_release(home)
    assert now.pending is None
    return now.stable, now.canary


class Killed(BaseException):
    """Simulates kill -9: the product does not handle this exception."""


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(
    ("act", "expected"),
    [(decisions.promote, (3, None)), (decisions.rollback, (1, None)), (decisions.canary, (2, 5))],
)
def test_after_a_kill_at_any_step_the_same_command_completes_the_change(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Path], Change],
    expected: tuple[int | None, int | None],
    step: int,
) -> None:
    """The change is made once, although it changes the version that is the command's default."""
    for version in (1, 2):
        decisions.promote(home, version)
    if act is decisions.promote:
        decisions.canary(home, 3)
    recorded, before = len(history.read(home)), served(home)
    remaining = step

    def die_in(name: str, module: Any) -> None:
        real = getattr(module, name)

        def call(*arguments: Any) -> Any:
            nonlocal remaining
            remaining -= 1
            if remaining == -1:
                raise Killed
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    die_in("write_durably", apply)
    die_in("append", history)
    try:
        act(home)
    except Killed:
        now = read_release(home)
        assert (now.stable, now.canary) in (before, expected)
    else:
        assert step >= 4  # earlier steps must have been reached
    monkeypatch.undo()
    now = read_release(home)
    shown = history.complete(history.read(home), now.entry)
    assert (len(shown) > recorded) == ((now.stable, now.canary) == expected)  # listed even if not written yet
    if step < 4:
        act(home)
    assert served(home) == expected
    assert len(history.read(home)) == recorded + 1


def test_another_command_replaces_a_killed_one(home: Path) -> None:
    decisions.promote(home, 1)
    pending = history.pending_change("promote", 3, 3, "")
    apply.write_release(home, replace(read_release(home), pending=pending))
    assert 3 in protected_versions(home)
    decisions.promote(home, 2)
    assert served(home) == (2, None)
    assert [(e["version"], e["outcome"]) for e in history.read(home)] == [(1, "done"), (3, "interrupted"), (2, "done")]


def test_commands_at_the_same_time_wait_for_each_other(home: Path) -> None:
    decisions.promote(home, 1)
    commands = [(decisions.promote, 2), (decisions.promote, 3), (decisions.canary, 4), (decisions.canary, 5)]
    with ThreadPoolExecutor(4) as pool:  # each call locks its own file descriptor, like a separate process
        assert all(change.changed for change in pool.map(lambda command: command[0](home, command[1]), commands))
    entries = history.read(home)
    assert sorted(entry["version"] for entry in entries) == [1, 2, 3, 4, 5]
    for one, next_one in pairwise(entries):
        assert next_one["before"] == one["after"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"stable": "4"}', '{"stable": true}', '{"canary": 3}', '{"earlier": [null, "x"]}']
)
def test_a_damaged_release_file_is_reported_and_nothing_is_deleted(home: Path, content: str) -> None:
    decisions.promote(home, 1)
    (home / RELEASE_FILE).write_text(content)
    with pytest.raises(InputError, match=r"release\.json: damaged"):
        decisions.promote(home, 2)
    with pytest.raises(InputError, match="damaged"):
        protected_versions(home)
    assert len(history.read(home)) == 1


def test_a_home_that_cannot_be_written_is_reported(home: Path) -> None:
    (home / "serving").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        decisions.promote(home)
