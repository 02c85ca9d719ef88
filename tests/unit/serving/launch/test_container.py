"""What happens when the engine fails; tests/containers runs a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.common import container_engine
from components.common.errors import InputError
from serving.launch.container import Container


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_each_folder_has_its_own_container(tmp_path: Path) -> None:
    names = {Container.of("podman", tmp_path / name).name for name in "abc"}
    assert len(names) == 3
    assert Container.of("podman", tmp_path / "a").name in names


def test_an_error_shows_the_engines_last_lines(engine: Path) -> None:
    engine.write_text('#!/bin/sh\nfor i in 1 2 3 4 5 6 7; do echo "line $i" >&2; done; exit 125\n')
    with pytest.raises(InputError, match="run failed with exit code 125:\nline 3\nline 4\nline 5\nline 6\nline 7"):
        container_engine.call(str(engine), "run", "image")


def test_an_engine_that_does_not_respond_is_given_up(engine: Path) -> None:
    engine.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(InputError, match="ps: no response within 0 s"):
        container_engine.call(str(engine), "ps", timeout_s=0.2)


def test_an_engine_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be started"):
        Container(str(tmp_path / "none"), "x").state()


def test_a_missing_container_is_not_an_error_but_a_failing_engine_is(engine: Path) -> None:
    found = Container(str(engine), "x")
    engine.write_text('#!/bin/sh\n[ "$1" = ps ]\n')
    assert found.state() is None
    engine.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(InputError, match="ps failed"):
        found.state()
