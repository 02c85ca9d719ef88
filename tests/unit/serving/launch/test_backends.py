from __future__ import annotations

import csv
from pathlib import Path

import pytest

from components.common.container_engine import IMAGE
from components.common.errors import InputError
from serving.launch import backends


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only one on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, *, runs: bool = True, image: bool = True) -> None:
    """Install a program; as an engine it may be running or not, and have TensorFlow Serving's image or not."""
    script = f'case "$1" in info) exit {int(not runs)};; image) echo sha256:1234; exit {int(not image)};; esac'
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_auto_prefers_a_container_then_the_binary_then_the_embedded_server(programs: Path) -> None:
    choice = backends.choose()
    assert (choice.name, choice.why) == ("embedded", "no docker; no podman; no tensorflow_model_server on PATH")
    install(programs, "tensorflow_model_server")
    install(programs, "docker", runs=False)
    choice = backends.choose()
    assert (choice.name, choice.why.split("; ")[0]) == ("binary", "docker is not running")
    install(programs, "podman")
    choice = backends.choose()
    assert (choice.name, choice.program, choice.image) == ("container", "podman", "sha256:1234")
    assert backends.choose("embedded").why == "requested"


def test_auto_uses_no_container_without_the_image_and_says_how_to_get_it(programs: Path) -> None:
    install(programs, "docker", image=False)
    choice = backends.choose("auto", pull=True)
    assert choice.name == "embedded"
    assert f"docker pull {IMAGE}" in choice.why
    install(programs, "podman")
    assert backends.choose().program == "podman"


def test_a_missing_image_is_pulled_only_if_a_container_was_asked_for(
    programs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (programs / "docker").write_text(
        f"""#!/bin/sh
        case "$1" in
        image) [ -e {programs}/pulled ] && echo sha256:99;;
        pull) echo "layer 1 of 1: $2"; : > {programs}/pulled;;
        esac
        """
    )
    (programs / "docker").chmod(0o755)
    with pytest.raises(InputError, match=f"docker pull {IMAGE}"):
        backends.choose("container")
    assert backends.choose("container", pull=True).image == "sha256:99"
    assert f"layer 1 of 1: {IMAGE}" in capfd.readouterr().err


def test_a_failed_pull_is_reported(programs: Path) -> None:
    (programs / "podman").write_text('#!/bin/sh\ncase "$1" in image) exit 1;; pull) exit 125;; esac\n')
    (programs / "podman").chmod(0o755)
    with pytest.raises(InputError, match="failed with exit code 125") as caught:
        backends.choose("container", pull=True)
    assert "podman load" in caught.value.remedy


def test_a_backend_that_is_missing_is_refused(programs: Path) -> None:
    with pytest.raises(InputError, match="the container backend is not available: no docker; no podman"):
        backends.choose("container", pull=True)


def test_the_container_publishes_on_loopback_and_mounts_read_only(tmp_path: Path) -> None:
    options = backends.container_options(backends.Setup(tmp_path / 'a,b:c "d"', 1, 2))
    assert [word for word in options if word.startswith("127.0.0.1:")] == ["127.0.0.1:1:8500", "127.0.0.1:2:8501"]
    mounts = [options[i + 1] for i, word in enumerate(options) if word == "--mount"]
    assert len(mounts) == 3
    assert [next(csv.reader([mount]))[3] for mount in mounts] == ["readonly"] * 3
    assert next(csv.reader([mounts[0]]))[1] == f'source={tmp_path}/a,b:c "d"/serving_model'
