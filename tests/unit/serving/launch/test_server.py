"""The checks before a server starts, without starting one."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import psutil
import pytest

from components.common.errors import InputError
from components.common.ports import free_port
from serving.launch import server
from serving.launch.backends import Setup
from serving.release import decisions
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
        server.prepare(setup, "embedded")
    decisions.rollback(setup.home, 1)
    decisions.promote(setup.home, 3)
    assert server.prepare(setup, "embedded").name == "embedded"
    assert "versions: 3" in setup.config_file.read_text()
    assert "versions: 2" not in setup.config_file.read_text()


def test_a_deleted_stable_version_is_not_started(setup: Setup) -> None:
    decisions.promote(setup.home, 2)
    folder(setup.home, 2).rename(setup.home / "elsewhere")
    with pytest.raises(InputError, match="version 2 was not pushed, or has been deleted"):
        server.prepare(setup, "embedded")


def test_a_port_in_use_is_reported(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", setup.rest_port)), pytest.raises(InputError, match=f"{setup.rest_port}"):
        server.prepare(setup, "embedded")


def test_a_home_has_one_server_even_in_the_foreground(setup: Setup) -> None:
    server.register_foreground(setup, "embedded")
    assert server.require(setup.home).pid == os.getpid()
    with pytest.raises(InputError, match=f"process {os.getpid()} already serves this home"):
        server.register_foreground(setup, "embedded")


@pytest.mark.parametrize("state", ["", "{}", '{"pid": 1}'])
def test_a_damaged_state_file_means_no_server(setup: Setup, state: str) -> None:
    setup.folder.mkdir()
    (setup.folder / server.STATE_FILE).write_text(state)
    with pytest.raises(InputError, match="no server is running"):
        server.require(setup.home)


def test_a_later_process_with_the_same_id_is_not_the_server(setup: Setup) -> None:
    server.register_foreground(setup, "embedded")
    path = setup.folder / server.STATE_FILE
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "created": psutil.Process().create_time() - 60}))
    assert server.find(setup.home) is None
