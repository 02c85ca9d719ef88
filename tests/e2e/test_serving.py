"""From the pipeline to a prediction, as a user does it: run, serve, query, validate, stop."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.common.ports import free_port
from components.versions import manifest
from tests.conftest import ROOT, Pipeline, environment, quick
from tests.support.done import Done


def serving(*arguments: str | Path) -> Done:
    command = [sys.executable, "-m", "serving", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def home(pipeline: Pipeline, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    done = pipeline(*quick(data, folder))
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ports() -> tuple[str, str]:
    return str(free_port()), str(free_port())


@pytest.fixture(scope="module")
def up(home: Path, ports: tuple[str, str]) -> Iterator[Done]:
    arguments = ("up", "--backend", "embedded", "--home", home, "--grpc-port", ports[0], "--rest-port", ports[1])
    yield serving(*arguments, "--json")
    serving("down", "--home", home)


def test_up_waits_until_the_pushed_version_is_available(up: Done, home: Path) -> None:
    assert up.code == 0, up.stderr
    assert up.json["started"] is True
    assert up.json["backend"] == "embedded"
    (state,) = up.json["versions"]
    assert state["state"] == "AVAILABLE"
    assert (home / "serving_model" / "mnist" / state["version"]).is_dir()
    assert serving("status", "--home", home, "--json").json["pid"] == up.json["pid"]


def test_a_second_up_finds_the_first(up: Done, home: Path) -> None:
    again = serving("up", "--home", home, "--json")
    assert again.code == 0
    assert (again.json["started"], again.json["pid"]) == (False, up.json["pid"])


def test_up_refuses_a_port_in_use_and_a_home_without_versions(up: Done, ports: tuple[str, str], tmp_path: Path) -> None:
    nothing = serving("up", "--home", tmp_path)
    assert nothing.code == 5
    assert "no version has been pushed" in nothing.stderr
    (tmp_path / "serving_model" / "mnist" / "1").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        busy = serving("up", "--unproven", "--home", tmp_path, "--grpc-port", port, "--rest-port", str(free_port()))
    assert busy.code == 5
    assert f"port {port} cannot be used" in busy.stderr
    assert "Traceback" not in busy.stderr


def test_validate_passes_for_the_served_version(up: Done, home: Path, pipeline: Pipeline) -> None:
    done = pipeline("validate", "--home", home, "--json")
    assert done.code == 0, done.stderr
    assert done.json["valid"] is True
    assert str(done.json["version"]) == up.json["versions"][0]["version"]
    assert [row["name"] for row in done.json["rows"]][-2:] == ["accuracy", "probabilities"]


def test_the_version_has_a_manifest_and_warm_up_requests(up: Done, home: Path) -> None:
    folder = home / "serving_model" / "mnist" / up.json["versions"][0]["version"]
    known = manifest.verify(folder)
    log = min(path.parent for path in home.glob("logs/*/run.json"))
    assert known.run_id == log.name
    assert known.settings["train"]["steps"] == 100
    assert set(known.data_sha256) == {"train_images", "train_labels", "test_images", "test_labels"}
    assert (folder / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit_accuracy(path: Path) -> None:
    document = json.loads(path.read_text())
    document["metrics"]["sparse_categorical_accuracy"] = 1.0
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "tamper", "row"),
    [("variables/variables.data-00000-of-00001", _flip, "files"), ("manifest.json", _edit_accuracy, "record")],
)
def test_validate_names_the_tampered_file(
    up: Done, home: Path, pipeline: Pipeline, name: str, tamper: Callable[[Path], None], row: str
) -> None:
    path = home / "serving_model" / "mnist" / up.json["versions"][0]["version"] / name
    before = path.read_bytes()
    tamper(path)
    try:
        done = pipeline("validate", "--home", home, "--json")
    finally:
        path.write_bytes(before)
    assert done.code == 6
    assert done.json["failed_row"] == row
    assert name.rpartition("/")[2] in done.stderr


@pytest.fixture(scope="module")
def backup(up: Done, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup taken while the server runs, with the command of docs/operations.md."""
    archive = tmp_path_factory.mktemp("backup") / "backup.tar.gz"
    documented = (ROOT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"^flock .*?tar .*?[^\\]$", documented, re.MULTILINE | re.DOTALL)
    command = command.replace("workspace", shlex.quote(str(home))).replace("backup.tar.gz", shlex.quote(str(archive)))
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    return archive


def test_gc_is_refused_beside_a_run_or_a_backup_but_not_beside_a_server(
    backup: Path, up: Done, home: Path, pipeline: Pipeline
) -> None:
    with open(home / ".run.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the backup does
        refused = pipeline("gc", "--home", home)
    assert refused.code == 5
    assert "using this home" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert pipeline("gc", "--home", home, "--json").json["log_folders"] == 0
    assert serving("status", "--home", home, "--json").json["pid"] == up.json["pid"]


def test_down_stops_the_server(up: Done, home: Path) -> None:
    stopped = serving("down", "--home", home, "--json")
    assert stopped.json == {"stopped": True, "pid": up.json["pid"]}
    assert serving("down", "--home", home, "--json").json["stopped"] is False
    assert serving("status", "--home", home).code == 5


def test_validate_without_a_server_starts_one_and_stops_it(home: Path, pipeline: Pipeline, up: Done) -> None:
    serving("down", "--home", home)
    done = pipeline("validate", "--home", home)
    assert done.code == 0, done.stderr
    assert "no server is running: starting one" in done.stdout + done.stderr
    assert "embedded backend serves requests without a label from version" in done.stdout
    assert serving("status", "--home", home).code == 5
    weights = home / "serving_model" / "mnist" / up.json["versions"][0]["version"] / "saved_model.pb"
    _flip(weights)
    tampered = pipeline("validate", "--home", home, "--json")
    _flip(weights)
    assert (tampered.code, tampered.json["failed_row"]) == (6, "server")
    assert "saved_model.pb" in tampered.stderr


def test_a_backup_is_restored_at_another_path(
    backup: Path, home: Path, data: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    status = pipeline("status", "--home", home, "--json").json
    serving("down", "--home", home)
    shutil.rmtree(home)
    restored = tmp_path / "elsewhere" / "new home"
    restored.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", backup, "-C", restored], check=True, timeout=60)
    assert pipeline("status", "--home", restored, "--json").json["run_id"] == status["run_id"]
    assert serving("status", "--home", restored).code == 5  # the server of the old home is not taken for this one's
    ports = ("--grpc-port", str(free_port()), "--rest-port", str(free_port()))
    try:
        up = serving("up", "--backend", "embedded", "--home", restored, *ports)
        assert up.code == 0, up.stderr
        valid = pipeline("validate", "--home", restored, "--json")
        assert valid.code == 0, valid.stderr
        assert str(valid.json["version"]) == status["pushed_version"]
    finally:
        serving("down", "--home", restored)
    again = pipeline(*quick(data, restored))
    assert again.code == 0, again.stderr
    assert again.states["Trainer"] == "ran"  # cache keys contain paths
    assert again.json["metrics"] == status["metrics"]
    assert not home.exists()
