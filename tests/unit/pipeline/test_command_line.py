"""The command line: what it imports, what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.home import RESULT_FILE, Home
from pipeline import summary
from pipeline.run import Result, latest_result, save
from tests.conftest import ROOT, environment, pipeline_command
from tests.support import serving_commands
from tests.support.command import in_process
from tests.support.done import Done
from tests.support.pushed import push

HEAVY = ("tensorflow", "tfx", "apache_beam", "ml_metadata", "tensorflow_transform", "keras", "pandas")
SHOW_MODULES = """
import runpy, sys
sys.argv = ["pipeline", *sys.argv[1:]]
try:
    runpy.run_module("pipeline", run_name="__main__")
finally:
    print("MODULES", *{name.partition(".")[0] for name in sys.modules})
"""


def modules_loaded_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-c", SHOW_MODULES, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MODULES")]
    return set(line.split()[1:])


def process(*arguments: str | Path) -> Done:
    command = pipeline_command(*arguments)
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["run", "--set", "train.step=1"],
        ["status", "--home", "/nonexistent"],
        ["run", "--plan", "--home", "/nonexistent"],
        ["compare", "a", "b", "--home", "/nonexistent"],
        ["lineage", "a", "--home", "/nonexistent"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_a_run(arguments: list[str]) -> None:
    loaded = modules_loaded_by(*arguments)
    assert "typer" in loaded  # otherwise the test looked at the wrong process
    assert loaded.isdisjoint(HEAVY)


def test_help_shows_exit_codes_and_the_syntax_of_settings() -> None:
    done = in_process("--help")
    assert done.code == 0
    assert "Exit codes" in done.stdout
    assert "SECTION.KEY=VALUE" in in_process("run", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "--set", "train.steps=x"], 2, "whole number"),
        (["run", "--nonsense"], 2, "No such option"),
        (["run", "--config", "nowhere.toml"], 5, "nowhere.toml"),
        (["run", "--home", "/dev/null/home"], 5, "/dev/null/home"),
        (["run", "--home", ""], 2, "is empty"),
        (["run", "--set", "data.source="], 2, "data.source is empty"),
        (["run", "--set", "train.seed=-1"], 2, "train.seed"),
        (["run", "--set", "train.seed=99999999999999999999"], 2, "train.seed"),
        (["run", "--set", "beam.runner=Nonsense"], 2, "not a Beam runner"),
        (["run", "--set", "train.weight_decay=nan"], 2, "train.weight_decay"),
        (["status", "--home", "/dev"], 5, "no finished run"),
        (["gc", "--home", "/nonexistent"], 5, "no such folder"),
        (["gc", "--keep-runs", "-1"], 2, "--keep-runs"),
        (["run", "--set", "home.keep_runs=-1"], 2, "home.keep_runs"),
    ],
)
def test_mistakes_have_a_message_and_the_documented_exit_code(arguments: list[str], code: int, says: str) -> None:
    done = in_process(*arguments)
    assert done.code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_rejected_run_is_reported_as_json() -> None:
    done = in_process("run", "--json", "--set", "train.steps=0")
    assert done.code == 2
    assert done.json["status"] == "failed"
    assert "train.steps" in done.json["error"]


def test_bad_data_is_refused_before_anything_runs(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    broken.mkdir()
    for file in data.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    images = broken / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    done = process("run", "--home", tmp_path / "home", "--set", f"data.source={broken}")
    assert done.code == 5
    assert "train-images-idx3-ubyte: truncated" in done.stderr
    assert not (tmp_path / "home" / "metadata.sqlite").exists()


def test_a_file_that_is_not_a_database_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite").write_bytes(b"no database" * 400)
    done = process("run", "--home", tmp_path, "--set", f"data.source={data}")
    assert done.code == 5
    assert "metadata.sqlite: not a usable SQLite database" in done.stderr


def test_a_locked_database_is_not_to_be_moved_away(data: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "metadata.sqlite")
    database.execute("BEGIN EXCLUSIVE")
    done = in_process("run", "--home", tmp_path, "--set", f"data.source={data}")
    database.close()
    assert (done.code, done.stdout) == (5, "")
    assert done.stderr == "error: another process has locked metadata.sqlite\nWait for it to end, then run again.\n"


@pytest.mark.parametrize("stdout", ["closed", "no reader", "full"])
def test_an_unusable_stdout_causes_no_traceback(stdout: str, tmp_path: Path) -> None:
    (tmp_path / "logs" / "1").mkdir(parents=True)
    (tmp_path / "logs" / "1" / "run.json").write_text('{"run_id": "1", "status": "pushed"}')
    tail = {"closed": ">&-", "no reader": "| true", "full": "> /dev/full"}[stdout]
    command = f'"{sys.executable}" -m pipeline status --home "{tmp_path}" {tail}'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert ("cannot be written" in done.stderr) == (stdout == "full")


def test_status_shows_the_latest_run_without_running(tmp_path: Path) -> None:
    for run_id, status in (("20260101-000000-000", "failed"), ("20260102-000000-000", "pushed")):
        folder = tmp_path / "logs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(
            json.dumps(
                {"run_id": run_id, "status": status, "pushed_version": "7", "seconds": 2.0, "metrics": {"a": 0.5}}
            )
        )
    (tmp_path / "logs" / "f6a1" / "run.json").parent.mkdir()  # an id of Kubeflow Pipelines, which sorts last by name
    (tmp_path / "logs" / "f6a1" / "run.json").write_text('{"run_id": "f6a1", "status": "failed"}')
    os.utime(tmp_path / "logs" / "f6a1" / "run.json", (1, 1))
    (tmp_path / "logs" / "20260103-000000-000").mkdir()  # still running, or killed
    (tmp_path / "logs" / "20260104-000000-000").mkdir()
    (tmp_path / "logs" / "20260104-000000-000" / "run.json").write_text("{")  # damaged
    assert in_process("status", "--json", "--home", tmp_path).json["run_id"] == "20260102-000000-000"
    assert "pushed: version 7" in in_process("status", "--home", tmp_path).stdout


def test_status_shows_the_latest_run_after_the_clock_was_set_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(3):
        home.logs(str(number)).mkdir(parents=True)
        save(Result(str(number)), home.logs(str(number)))
        if number == 0:
            os.utime(home.logs("0") / RESULT_FILE, (4e9, 4e9))  # in the year 2096
    assert latest_result(home).run_id == "2"


def test_a_new_version_that_is_not_served_yet_is_named(tmp_path: Path) -> None:
    for version, accuracy in ((4, 0.98), (5, 0.99)):
        created = f"2026-01-0{version}T12:30:00+00:00"
        push(tmp_path, version, created_utc=created, metrics={"sparse_categorical_accuracy": accuracy})
    (tmp_path / "logs" / "run").mkdir(parents=True)
    (tmp_path / "logs" / "run" / "run.json").write_text('{"run_id": "run", "status": "pushed", "pushed_version": "5"}')
    assert "not served" not in in_process("status", "--home", tmp_path).stdout
    assert serving_commands.run("promote", "4", "--home", tmp_path).code == 0
    pinned = in_process("status", "--home", tmp_path).stdout
    assert "version 5 is not served yet: version 4 is stable" in pinned
    assert "stable  4  pushed 2026-01-04 12:30 UTC, test accuracy 0.9800" in pinned
    assert "new     5  pushed 2026-01-05 12:30 UTC, test accuracy 0.9900" in pinned
    assert f"promote 5 --home {tmp_path}" in pinned
    serving_commands.run("canary", "5", "--home", tmp_path)
    assert "version 5 is the canary" in in_process("status", "--home", tmp_path).stdout
    serving_commands.run("promote", "5", "--home", tmp_path)
    assert "version 4" not in in_process("status", "--home", tmp_path).stdout
    assert summary.not_served(tmp_path, "6") == []  # pushed to a cluster


def test_a_run_that_pushed_nothing_says_so_and_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    summary.show(Result("run", status="not_blessed"), tmp_path)
    shown = capsys.readouterr().out
    assert "nothing was pushed; what was served before stays" in shown
    assert "not_blessed" not in shown
