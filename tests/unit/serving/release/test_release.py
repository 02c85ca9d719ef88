"""Decisions about labels, and what is left of them after a crash, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError, UsageError
from components.versions.release import RELEASE_FILE, pinned_versions, read_release
from serving.launch import model_config
from serving.model_server import versions
from serving.release import apply, decisions, history, shadow
from serving.release.apply import Change
from serving.release.history import HISTORY_FILE
from serving.release.shadow import Answers, Rules
from tests.conftest import ROOT, Done, environment
from tests.support.pushed import folder, push


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for version in (1, 2, 3, 4, 5):
        push(tmp_path, version)
    return tmp_path


def serving(*arguments: str | Path) -> Done:
    command = [sys.executable, "-m", "serving", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


def served(home: Path) -> tuple[int | None, int | None]:
    now = read_release(home)
    assert now.pending is None
    return now.stable, now.canary


def test_promote_takes_the_canary_else_the_newest(home: Path) -> None:
    decisions.promote(home, 2)
    decisions.canary(home, 3)
    assert served(home) == (2, 3)
    decisions.promote(home)
    assert served(home) == (3, None)
    decisions.promote(home)
    assert served(home) == (5, None)
    assert not decisions.promote(home).changed


def test_promoting_another_version_leaves_the_canary(home: Path) -> None:
    decisions.promote(home, 1)
    decisions.canary(home)
    decisions.promote(home, 2)
    assert served(home) == (2, 5)
    decisions.clear_canary(home)
    assert served(home) == (2, None)


def test_rollbacks_go_further_back_not_forth(home: Path) -> None:
    for version in (1, 2, 3):
        decisions.promote(home, version)
    decisions.canary(home, 4)
    decisions.rollback(home)
    assert served(home) == (2, None)
    decisions.promote(home, 4)  # what was rolled back is no place to go back to
    decisions.rollback(home)
    assert served(home) == (2, None)
    decisions.rollback(home)
    assert served(home) == (1, None)


def test_the_first_rollback_needs_no_promotion_before_it(home: Path) -> None:
    """Without labels each pushed version was served in its turn."""
    decisions.rollback(home)
    assert served(home) == (4, None)
    decisions.rollback(home)
    assert served(home) == (3, None)


def test_a_rollback_goes_over_versions_that_are_gone_and_anywhere_by_name(home: Path) -> None:
    for version in (1, 2, 3):
        decisions.promote(home, version)
    folder(home, 2).rename(home / "gone")
    decisions.rollback(home)
    assert served(home) == (1, None)
    decisions.rollback(home, 3)
    assert served(home) == (3, None)


def test_nothing_before_the_first_version(tmp_path: Path) -> None:
    push(tmp_path, 1)
    decisions.promote(tmp_path)
    with pytest.raises(UsageError, match="no earlier stable version"):
        decisions.rollback(tmp_path)


def test_unpin_goes_back_to_serving_the_newest(home: Path) -> None:
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


def _incomplete(version: Path) -> None:
    (version / "saved_model.pb").unlink()


def _without_manifest(version: Path) -> None:
    (version / "manifest.json").unlink()


def _with_half_a_manifest(version: Path) -> None:
    (version / "manifest.json").write_text((version / "manifest.json").read_text()[:20])


def _edited(**changes: Any) -> Callable[[Path], None]:
    def edit(version: Path) -> None:
        path = version / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_tampered, "not as it was pushed: saved_model.pb"),
        (_incomplete, "not as it was pushed: saved_model.pb"),
        (_without_manifest, "nothing vouches for it"),
        (_with_half_a_manifest, "not a manifest"),
        (_edited(blessed=False), "does not say that the model was blessed"),
        (_edited(blessed="yes"), "does not say"),
        (_edited(infra_blessed=False), "does not say"),
        (_edited(version=2), "its manifest is of version 2"),
    ],
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


def test_each_step_is_recorded(home: Path) -> None:
    decisions.promote(home, 1, reason="first")
    decisions.canary(home, 2)
    decisions.rollback(home, 3, reason="tired\nof\x1b[31m 1 \udcff")
    first, _, last = history.read(home)
    assert first["user"] == history.user()
    assert (first["action"], first["version"], first["outcome"], first["reason"]) == ("promote", 1, "done", "first")
    assert (first["before"], first["after"]) == ({"stable": None, "canary": None}, {"stable": 1, "canary": None})
    assert last["before"] == {"stable": 1, "canary": 2}
    assert last["reason"] == "tired\nof\x1b[31m 1 \udcff"
    shown = history.table([last])
    assert len(shown) == 2
    assert all(line.isprintable() and line.isascii() for line in shown)
    assert "1 -> 3" in shown[1]


def test_a_torn_last_line_is_kept_and_shown(home: Path) -> None:
    decisions.promote(home, 1)
    path = home / HISTORY_FILE
    path.write_text(path.read_text() + '{"id": "x", "action": "prom')
    decisions.promote(home, 2)
    done = serving("history", "--home", home, "--json")
    assert done.code == 0
    assert [entry.get("version") for entry in done.json["entries"]] == [1, None, 2]
    assert done.json["entries"][1] == {"damaged": '{"id": "x", "action": "prom'}
    assert "1 line(s) cannot be read" in done.stderr


class Killed(BaseException):
    """Stands for kill -9: nothing of ours handles it."""


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(
    ("act", "expected"),
    [(decisions.promote, (3, None)), (decisions.rollback, (1, None)), (decisions.canary, (2, 5))],
)
def test_after_a_kill_at_any_step_the_same_command_finishes(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Path], Change],
    expected: tuple[int | None, int | None],
    step: int,
) -> None:
    """Once, although its default means another version after the change than before."""
    for version in (1, 2):
        decisions.promote(home, version)
    if act is decisions.promote:
        decisions.canary(home, 3)
    recorded, before = len(history.read(home)), served(home)
    left = step

    def dying(name: str, module: Any) -> None:
        real = getattr(module, name)

        def call(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    dying("write_durably", apply)
    dying("append", history)
    try:
        act(home)
    except Killed:
        now = read_release(home)
        assert (now.stable, now.canary) in (before, expected)
    else:
        assert step >= 4  # or nothing was tried
    monkeypatch.undo()
    now = read_release(home)
    shown = history.complete(history.read(home), now.entry)
    assert (len(shown) > recorded) == ((now.stable, now.canary) == expected)  # seen even if not written yet
    if step < 4:
        act(home)
    assert served(home) == expected
    assert len(history.read(home)) == recorded + 1


def test_another_command_takes_the_place_of_a_killed_one(home: Path) -> None:
    decisions.promote(home, 1)
    note = history.note("promote", 3, 3, "")
    apply.write_release(home, replace(read_release(home), pending=note))
    assert 3 in pinned_versions(home)
    decisions.promote(home, 2)
    assert served(home) == (2, None)
    assert [(e["version"], e["outcome"]) for e in history.read(home)] == [(1, "done"), (3, "interrupted"), (2, "done")]


def test_two_operators_at_once_come_one_after_the_other(home: Path) -> None:
    decisions.promote(home, 1)
    commands = [
        [sys.executable, "-m", "serving", *words, "--home", str(home)]
        for words in (["promote", "2"], ["promote", "3"], ["canary", "4"], ["canary", "5"])
    ]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    entries = history.read(home)
    assert sorted(entry["version"] for entry in entries) == [1, 2, 3, 4, 5]
    for one, next_one in pairwise(entries):
        assert next_one["before"] == one["after"]


def test_pinned_are_labels_the_next_rollback_and_what_the_server_loads(home: Path) -> None:
    assert pinned_versions(home) == {4, 5}
    assert pinned_versions(home / "nowhere") == set()
    for version in (1, 2, 3):
        decisions.promote(home, version)
    decisions.canary(home, 4)
    assert pinned_versions(home) == {2, 3, 4}
    decisions.rollback(home, 1)
    assert pinned_versions(home) == {1, 5}  # 5 was served before 1 was promoted


def test_any_path_can_be_in_the_model_config() -> None:
    path = '/home/"quoted" \\ and\ttab/ü'
    (config,) = versions.parse_config(model_config.text(path, [3, 1], {"stable": 1}))
    assert config.base_path == path
    assert list(config.model_version_policy.specific.versions) == [1, 3]
    assert dict(config.version_labels) == {"stable": 1}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"stable": "4"}', '{"stable": true}', '{"canary": 3}', '{"earlier": [null, "x"]}']
)
def test_a_damaged_state_is_said_and_deletes_nothing(home: Path, content: str) -> None:
    decisions.promote(home, 1)
    (home / RELEASE_FILE).write_text(content)
    with pytest.raises(InputError, match=r"release\.json: damaged"):
        decisions.promote(home, 2)
    with pytest.raises(InputError, match="damaged"):
        pinned_versions(home)
    assert len(history.read(home)) == 1


def test_the_command_line(home: Path) -> None:
    done = serving("promote", "4", "--home", home, "--reason", "4 is good")
    assert done.code == 0
    assert "stable: 4 (was none)" in done.stdout
    assert "no server is running: in effect at the next start" in done.stdout
    rolled = serving("rollback", "--home", home, "--json").json
    assert (rolled["stable"], rolled["before"]["stable"], rolled["in_effect"]) == (5, 4, False)
    assert "4 is good" in serving("history", "--home", home).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["promote", "seven"], 2, "valid integer"),
        (["promote", "-1"], 2, "-1"),
        (["promote", "3", "--unpin"], 2, "both a version and --unpin"),
        (["canary", "--clear", "--shadow", "5"], 2, "--clear"),
        (["canary", "--shadow", "0"], 2, "--shadow"),
        (["canary", "--shadow", "1", "--max-latency-ratio", "nan"], 2, "--max-latency-ratio"),
        (["promote", "--home", "/dev/null/home"], 5, "/dev/null/home"),
        (["promote"], 5, "no version has been pushed"),
        (["rollback", "12345678901234567890"], 5, "was not pushed"),
    ],
)
def test_mistakes_end_in_words_and_the_documented_code(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    home = [] if "--home" in arguments else ["--home", tmp_path]
    done = serving(*arguments, *home)
    assert done.code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_home_that_cannot_be_written_is_said(home: Path) -> None:
    home.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        decisions.promote(home)
    home.chmod(0o700)


def answers(version: int, classes: list[int | None], latency_ms: float = 1.0) -> Answers:
    answered = sum(named is not None for named in classes)
    return Answers(version, classes, [latency_ms] * answered, "" if answered == len(classes) else "why")


@pytest.mark.parametrize(
    ("canary", "says"),
    [
        (answers(2, [0] * 1000), None),
        (answers(2, [0] * 985 + [1] * 15), "15 digits fewer right of 1000, 11.4 allowed"),
        (answers(2, [0] * 990 + [1] * 10), None),  # 5 allowed, and 1.645 * sqrt(10) for chance
        (answers(2, [0] * 900 + [1] * 100), "agreement 0.9000 < 0.9500"),
        (answers(2, [0] * 999 + [None]), "1 of 1000 requests failed: why"),
        (answers(2, [None] * 1000), "1000 of 1000 requests failed"),
        (answers(2, [0] * 1000, 20.0), "p99 latency 20.0 ms > 2 x 1.0 ms"),
        (answers(2, [0] * 1000, 5.5), None),  # 4.5 ms more is noise
    ],
)
def test_the_rules_of_a_comparison(canary: Answers, says: str | None) -> None:
    result = shadow.compare({"stable": answers(1, [0] * 1000), "canary": canary}, [0] * 1000, Rules(0.95, 0.005, 2.0))
    assert result["verdict"] == ("roll back" if says else "promote")
    assert (says in "; ".join(result["reasons"])) if says else result["reasons"] == []
    assert any(f"{canary.version:>14}" in line for line in shadow.table(result))


def test_a_few_digits_prove_nothing_against_a_canary() -> None:
    truth = [0] * 100
    pair = {"stable": answers(1, [0] * 99 + [1]), "canary": answers(2, [1, 1, *[0] * 97, 1])}
    assert shadow.compare(pair, truth, Rules(0.95, 0.005, 2.0))["verdict"] == "promote"
