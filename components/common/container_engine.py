"""Docker or podman on this machine, and TensorFlow Serving's image."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from components.common.errors import InputError

IMAGE: Final = "docker.io/tensorflow/serving:2.20.0"  # with its registry: podman may refuse a short name
ENGINES: Final = ("docker", "podman")
INFO_TIMEOUT_S: Final = 10.0
TIMEOUT_S: Final = 60.0  # of one engine command; a busy machine may take several seconds
LAST_LINES: Final = 5


def call(engine: str, *arguments: str, timeout_s: float | None = TIMEOUT_S, with_stderr: bool = False) -> str:
    """Run an engine's command and return its output. Raises InputError with the engine's own last lines."""
    try:
        done = subprocess.run(
            [engine, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_stderr else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # no Ctrl-C for the engine
        )
    except subprocess.TimeoutExpired as e:
        raise InputError(
            f"{engine} {arguments[0]}: no response within {timeout_s:.0f} s", f"See whether it works: {engine} info"
        ) from e
    except OSError as e:
        raise InputError(f"{engine}: cannot be started ({e.strerror})", f"Install {engine}.") from e
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
        raise InputError(f"{engine} {arguments[0]} failed with exit code {done.returncode}:\n{last}")
    return done.stdout


def engine_problem(engine: str, timeout_s: float = INFO_TIMEOUT_S) -> str | None:
    """Return why an engine cannot be used; None if it can."""
    if shutil.which(engine) is None:
        return f"no {engine}"
    try:
        call(engine, "info", timeout_s=timeout_s)
    except InputError as e:
        return f"{engine} does not respond" if "no response" in e.problem else f"{engine} is not running"
    return None


def image_id(engine: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return the ID of TensorFlow Serving's image, which names its content; None if the engine does not have it."""
    try:
        return call(engine, "image", "inspect", "--format", "{{.Id}}", IMAGE, timeout_s=timeout_s).strip()
    except InputError:
        return None


def pull_command(engine: str) -> str:
    return f"{engine} pull {IMAGE}"
