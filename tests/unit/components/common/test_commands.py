"""Commands in messages: they work when pasted, from any folder and in any shell of the user's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.common import commands
from components.common.commands import command
from pipeline.__main__ import app as pipeline_app
from serving.__main__ import app as serving_app
from tests.conftest import ROOT, environment
from tests.support import serving_commands
from tests.support.command import in_process


@pytest.fixture(autouse=True)
def _default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_TFX_HOME", raising=False)
    monkeypatch.setattr(commands, "_home", commands.DEFAULT_HOME)


@pytest.mark.parametrize("home", [None, "a home's $HOME #1"])
@pytest.mark.parametrize("words", [("serving", "up"), ("serving", "history"), ("pipeline", "run", "--set", "a.b=c d")])
@pytest.mark.parametrize("below", [".", "docs", "/"])
def test_a_pasted_command_arrives_as_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None, words: tuple[str, ...], below: str
) -> None:
    monkeypatch.chdir(ROOT / below)
    expected = list(words[1:])
    if home:
        commands.use_home(tmp_path / home)
        expected += ["--home", str(tmp_path / home)]
    shown = command(*words)
    if below == "." and words[1] in ("up", "run"):
        assert shown.startswith("make ")
        done = subprocess.run(shown.replace("make ", "make -n ", 1), shell=True, env=environment(), **OUTPUT)
        shown = done.stdout.splitlines()[-1].lstrip("@")
        expected = expected[words[1] == "run" :]  # `make` adds --config after it
    arrived = shlex.split(subprocess.run(f"printf '%q ' {shown}", shell=True, executable="/bin/bash", **OUTPUT).stdout)
    assert arrived[-len(expected) :] == expected
    assert shutil.which(arrived[0])


OUTPUT = {"capture_output": True, "text": True}


def test_the_home_is_added_unless_the_pasted_command_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands.use_home(tmp_path)
    assert "--home" in command("serving", "history")
    monkeypatch.setenv("MNIST_TFX_HOME", str(tmp_path))
    assert "--home" not in command("serving", "history")
    commands.use_home(ROOT / "workspace")
    assert "--home" in command("serving", "history")


def test_in_a_deleted_folder_a_command_is_still_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    commands.use_home(tmp_path)
    assert f"--home {tmp_path}" in command("serving", "up")


def test_with_the_environment_on_the_path_the_script_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command("serving", "history") == "mnist-serving history"


@pytest.mark.parametrize("program", ["serving", "pipeline"])
def test_another_python_is_told_what_to_run(program: str) -> None:
    words = [sys.executable, "-S", "-m", program, "status", "--home", "/a b"]  # -S: without site-packages
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert "does not have the packages of this project" in line
    assert line.endswith("setup") or line.endswith("status --home '/a b'")


def test_the_scripts_are_installed() -> None:
    for program in ("serving", "pipeline"):
        script = Path(sys.executable).with_name(f"mnist-{program}")
        done = subprocess.run([script, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert f"Usage: {shlex.join(commands.launcher(program))} " in done.stdout


COMMANDS = [
    *(("serving", info.callback.__name__) for info in serving_app.registered_commands if info.callback),
    *(("pipeline", info.callback.__name__.rstrip("_")) for info in pipeline_app.registered_commands if info.callback),
]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_the_help_of_each_command_has_an_example_that_can_be_pasted(program: str, name: str) -> None:
    run = {"serving": serving_commands.run, "pipeline": in_process}[program]
    start = shlex.join(commands.launcher(program))
    examples = re.findall(rf"^ +(?:Examples?: )?{re.escape(start)} (.*)$", run(name, "--help").stdout, re.MULTILINE)
    assert examples
    for example in examples:  # unknown options are refused before --help is shown
        assert run(*shlex.split(example), "--help").code == 0


def test_make_help_fits_80_columns_and_lists_every_target_once() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, env=environment(), **OUTPUT).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for_users, for_developers = shown.split("To work on the project:\n")
    listed = [re.findall(r"^make ([a-z-]+) ", part, re.MULTILINE) for part in (for_users, for_developers)]
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    assert sorted(listed[0] + listed[1]) == sorted(phony)
    assert {"pipeline", "serve", "query"} <= {*listed[0]} and {"test", "lint", "bench"} <= {*listed[1]}


def test_a_setting_given_to_make_as_a_variable_is_noticed() -> None:
    refused = ["make", "-n", "pipeline", "train.steps=5"]
    done = subprocess.run(refused, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert 'make pipeline ARGS="--set train.steps=5"' in done.stderr
    allowed = ["make", "-n", "pipeline", "ARGS=--set train.steps=5", "CONFIG=configs/quick.toml"]
    done = subprocess.run(allowed, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1].endswith("--set train.steps=5")) == (0, True)
