from __future__ import annotations

from pathlib import Path

import pytest

from components.common.errors import InputError
from serving.launch import backends


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only one on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, exit_code: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (folder / name).chmod(0o755)


def test_auto_prefers_a_container_then_the_binary_then_the_embedded_server(programs: Path) -> None:
    choice = backends.choose()
    assert (choice.name, choice.why) == ("embedded", "no docker; no podman; no tensorflow_model_server on PATH")
    install(programs, "tensorflow_model_server")
    install(programs, "docker", exit_code=1)
    choice = backends.choose()
    assert (choice.name, choice.why.split("; ")[0]) == ("binary", "docker is not running")
    install(programs, "podman")
    assert (backends.choose().name, backends.choose().program) == ("container", "podman")
    assert backends.choose("embedded").why == "requested"


def test_a_backend_that_is_missing_or_unknown_is_refused(programs: Path) -> None:
    with pytest.raises(InputError, match="the container backend is not available: no docker; no podman"):
        backends.choose("container")
    with pytest.raises(InputError, match="unknown backend 'x'"):
        backends.choose("x")


def test_the_container_publishes_on_loopback_and_mounts_read_only(tmp_path: Path) -> None:
    command = backends.container_command("podman", backends.Setup(tmp_path, 1, 2))
    assert [word for word in command if word.startswith("127.0.0.1:")] == ["127.0.0.1:1:8500", "127.0.0.1:2:8501"]
    volumes = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert len(volumes) == 3 and all(volume.endswith(":ro") for volume in volumes)
