"""Homes that cannot be read or written, and umasks: one clear line, the documented exit code, nothing lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.common.ports import free_port
from tests.support import serving_commands
from tests.support.command import in_process
from tests.support.done import Done
from tests.support.pushed import folder, push
from tests.support.unprivileged import give_away, unprivileged

RESULT = '{"run_id": "1", "status": "pushed", "pushed_version": "2"}'


def up(*arguments: str | Path) -> Done:
    ports = ("--grpc-port", str(free_port()), "--rest-port", str(free_port()))
    return serving_commands.run("up", "--backend", "embedded", *ports, *arguments)


def serving(command: str) -> Callable[..., Done]:
    return lambda *arguments: serving_commands.run(command, *arguments)


def pipeline(command: str) -> Callable[..., Done]:
    return lambda *arguments: in_process(command, *arguments)


COMMANDS: dict[str, Callable[..., Done]] = {
    "run": pipeline("run"),
    "validate": pipeline("validate"),
    "status": pipeline("status"),
    "runs": pipeline("runs"),
    "lineage": pipeline("lineage"),
    "up": up,
    "serving status": serving("status"),
    "query": serving("query"),
    "promote": serving("promote"),
    "history": serving("history"),
    "down": serving("down"),
}
NEED_A_HOME: dict[str, Callable[..., Done]] = {
    **{name: COMMANDS[name] for name in COMMANDS if name not in ("run", "query", "down")},
    "gc": pipeline("gc"),
    "rollback": serving("rollback"),
    "canary": serving("canary"),
    "canary --clear": lambda *arguments: serving_commands.run("canary", "--clear", *arguments),
    "promote --unpin": lambda *arguments: serving_commands.run("promote", "--unpin", *arguments),
    "signatures": serving("signatures"),
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "home"
    for version in (1, 2):
        push(path, version)
    (folder(path, 2).parent / ".push.lock").touch()
    (path / "logs" / "1").mkdir(parents=True)
    (path / "logs" / "1" / "run.json").write_text(RESULT)
    yield path
    for root, folders, _ in os.walk(path):  # so that pytest can delete them
        for name in folders:
            Path(root, name).chmod(0o700)


def refused(done: Done, path: Path) -> None:
    assert done.code == 5, done
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.stdout == ""


@pytest.mark.parametrize("command", NEED_A_HOME)
def test_a_home_that_does_not_exist_is_refused_and_not_created(tmp_path: Path, command: str) -> None:
    done = NEED_A_HOME[command]("--home", tmp_path / "typo")
    refused(done, tmp_path / "typo")
    assert "no such folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_of_another_user_is_refused(home: Path, command: str) -> None:
    give_away(home)
    with unprivileged():
        refused(COMMANDS[command]("--home", home), home)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_that_may_only_be_read_is_shown_and_not_changed(home: Path, command: str) -> None:
    for root, folders, names in os.walk(home):
        for path in [Path(root), *(Path(root, name) for name in folders + names)]:
            path.chmod(path.stat().st_mode & ~0o222)
    with unprivileged():
        done = COMMANDS[command]("--home", home)
    if command in ("status", "runs", "lineage", "history", "down"):
        assert done.code == 0, done
    else:
        refused(done, home)


@pytest.mark.parametrize(
    ("unreadable", "commands"),
    [
        ("serving_model/mnist/2/saved_model.pb", ["promote"]),
        ("serving_model/mnist/2", ["promote"]),
        ("serving_model/mnist/.push.lock", ["promote"]),
        ("serving_model/mnist", ["up", "promote"]),
        ("serving_model", ["up", "promote"]),
        ("logs", ["run", "status", "runs", "validate"]),
        ("metadata.sqlite", ["run", "runs", "lineage"]),
    ],
)
def test_what_cannot_be_read_is_named(home: Path, unreadable: str, commands: list[str]) -> None:
    (home / "metadata.sqlite").touch()
    (home / unreadable).chmod(0)
    for command in commands:
        with unprivileged():
            refused(COMMANDS[command]("--home", home), home / unreadable)
    (home / unreadable).chmod(0o700)
    assert sorted(path.name for path in folder(home, 2).parent.iterdir()) == [".push.lock", "1", "2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_whose_path_is_not_utf_8_is_refused(tmp_path: Path, command: str) -> None:
    path = tmp_path / os.fsdecode(b"\xff")
    path.mkdir()
    (tmp_path / "link").symlink_to(path)
    done = COMMANDS[command]("--home", tmp_path / "link")
    refused(done, tmp_path / "link")
    assert "not valid UTF-8" in done.stderr


def test_a_data_source_whose_path_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"\xff")
    source.mkdir()
    refused(in_process("run", "--home", tmp_path / "home", "--set", f"data.source={source}"), tmp_path)


@pytest.mark.parametrize(("umask", "most"), [(0o000, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_nobody_else_may_change_what_a_command_writes(home: Path, umask: int, most: int) -> None:
    before = os.umask(umask)
    try:
        assert serving_commands.run("promote", "--home", home).code == 0
    finally:
        os.umask(before)
    written = [home / "serving", *(home / "serving").iterdir()]
    assert {"release.json", "history.jsonl", ".lock"} <= {path.name for path in written}
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) & ~most == 0, path
