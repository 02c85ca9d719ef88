"""What is checked before a server starts, and what a start leaves behind; without a model server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from components.common.errors import InputError
from components.common.ports import free_port
from serving.launch import backends, foreground, server
from serving.launch.backends import Setup
from serving.launch.prepare import prepare
from serving.release import decisions
from tests.support import serving_commands
from tests.support.pushed import folder, push


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    for version in (1, 2, 3):
        push(tmp_path, version)
    return Setup(tmp_path, free_port(), free_port())


def test_a_stable_version_that_was_tampered_with_is_not_started(setup: Setup) -> None:
    decisions.promote(setup.home, 2)
    (folder(setup.home, 2) / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(InputError, match="changed since it was pushed"):
        prepare(setup, "embedded")
    decisions.rollback(setup.home, 1)
    decisions.promote(setup.home, 3)
    assert prepare(setup, "embedded").name == "embedded"
    assert "versions: 3" in setup.config_file.read_text()
    assert "versions: 2" not in setup.config_file.read_text()


def test_a_deleted_stable_version_is_not_started(setup: Setup) -> None:
    decisions.promote(setup.home, 2)
    folder(setup.home, 2).rename(setup.home / "elsewhere")
    with pytest.raises(InputError, match="version 2 was not pushed, or has been deleted"):
        prepare(setup, "embedded")


def test_a_port_in_use_is_reported(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", setup.rest_port)), pytest.raises(InputError, match=f"{setup.rest_port}"):
        prepare(setup, "embedded")


def test_a_home_has_one_server_even_in_the_foreground(setup: Setup) -> None:
    foreground.register(setup, "embedded")
    assert server.require(setup.home).pid == os.getpid()
    with pytest.raises(InputError, match=f"process {os.getpid()} already serves this home"):
        foreground.register(setup, "embedded")


@pytest.mark.parametrize("option", ["--backend", "--grpc-port", "--rest-port"])
def test_another_server_than_the_running_one_is_refused(setup: Setup, option: str) -> None:
    foreground.register(setup, "embedded")
    value = "binary" if option == "--backend" else str(free_port())
    done = serving_commands.run("up", "--home", setup.home, option, value)
    assert done.code == 5
    assert f"{option} {value}: the server of this home is running with" in done.stderr
    same = serving_commands.run("up", "--home", setup.home, "--backend", "embedded", "--grpc-port", setup.grpc_port)
    assert same.code == 0
    assert "already serving" in same.stdout


@pytest.mark.parametrize("running", [False, True])
def test_an_unknown_backend_is_a_usage_error(setup: Setup, running: bool) -> None:
    if running:
        foreground.register(setup, "embedded")
    done = serving_commands.run("up", "--home", setup.home, "--backend", "contianer")
    assert done.code == 2
    assert all(name in done.stderr for name in ("contianer", "auto", "container", "binary", "embedded"))


def test_a_failed_start_shows_only_its_own_log_lines(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.log_file.parent.mkdir()
    setup.log_file.write_text("an old line\n")
    monkeypatch.setattr(backends, "command", lambda *_: ["/bin/sh", "-c", "echo a new line; exit 1"])
    with pytest.raises(InputError, match="its last log lines:\na new line") as caught:
        server.start(setup, "embedded")
    assert "an old line" not in str(caught.value)
    assert setup.log_file.read_text().startswith("an old line")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError])
def test_a_start_that_fails_before_the_server_is_registered_leaves_no_process(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    started, register = [], server.register

    def fail(choice: backends.Choice, setup: Setup, pid: int) -> server.Running:
        started.append(psutil.Process(pid))
        if failure is InputError:
            raise InputError("the disk is full")
        os.kill(os.getpid(), signal.SIGINT)
        return register(choice, setup, pid)

    monkeypatch.setattr(server, "register", fail)
    monkeypatch.setattr(backends, "command", lambda *_: ["sleep", "60"])
    with pytest.raises(failure):
        server.start(setup, "embedded")
    started[0].wait(5)


def test_a_server_whose_stop_was_killed_is_stopped_before_the_next_start(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_stopped = subprocess.Popen(["sleep", "60"])
    choice = prepare(setup, "embedded")
    state = asdict(server.register(choice, setup, half_stopped.pid)) | {"stopping": True}
    (setup.folder / server.STATE_FILE).write_text(json.dumps(state))
    monkeypatch.setattr(backends, "command", lambda *_: ["false"])
    with pytest.raises(InputError, match="the server ended"):
        server.start(setup, "embedded")
    assert half_stopped.poll() is not None


@pytest.mark.parametrize("state", ["", "{}", '{"pid": 1}'])
def test_a_damaged_state_file_means_no_server(setup: Setup, state: str) -> None:
    setup.folder.mkdir()
    (setup.folder / server.STATE_FILE).write_text(state)
    with pytest.raises(InputError, match="no server is running"):
        server.require(setup.home)


def test_a_foreground_command_stops_only_its_own_server(setup: Setup) -> None:
    """Another command has stopped its server, and started one, before it comes to it."""
    choice, own = foreground.register(setup, "embedded")
    with subprocess.Popen(["sleep", "60"]) as later:
        server.register(choice, setup, later.pid)
        server.stop_own(setup.home, own, drained=False)
        assert server.require(setup.home).pid == later.pid
        server.shut_down(setup.home)
        assert server.find(setup.home) is None


def test_the_server_is_found_after_the_clock_was_set_back(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    foreground.register(setup, "embedded")
    booted = psutil.boot_time() - 3600  # the kernel adds the time since then to get the clock's time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted)
    assert psutil.boot_time() == booted
    assert server.find(setup.home) is not None


@pytest.mark.parametrize("recorded_by", ["this version", "version 0.1"])
def test_a_later_process_with_the_same_id_is_not_the_server(setup: Setup, recorded_by: str) -> None:
    foreground.register(setup, "embedded")
    path = setup.folder / server.STATE_FILE
    state = json.loads(path.read_text())
    if recorded_by == "version 0.1":
        del state["started"]
        path.write_text(json.dumps(state))
        assert server.find(setup.home) is not None
    path.write_text(json.dumps({**state, "created": psutil.Process().create_time() - 60, "started": ""}))
    assert server.find(setup.home) is None
    path.write_text(json.dumps({**state, "started": "another boot, " + state.get("started", "1")}))
    assert server.find(setup.home) is None
