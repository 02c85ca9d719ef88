"""The images: the product's, and TensorFlow Serving's or what stands in for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from components.common import ROOT, container_engine
from components.common.container_engine import IMAGE, call
from components.common.errors import InputError

PRODUCT: Final = "localhost/mnist-tfx:test-containers"
STAND_IN: Final = "mnist-tfx.stand-in"
DOCKERFILE: Final = Path(__file__).with_name("stand_in.Dockerfile")
BUILD_TIMEOUT_S: Final = 3600
MODES: Final = {"stand-in, SIGTERM ends it": "", "stand-in, ignores SIGTERM": "trap '' TERM"}


def working_engine() -> str:
    """Return the engine that the product would use. Raises InputError if there is none."""
    problems = {engine: container_engine.engine_problem(engine) for engine in container_engine.ENGINES}
    for engine, problem in problems.items():
        if problem is None:
            return engine
    raise InputError(f"no container engine: {'; '.join(filter(None, problems.values()))}", "Start docker or podman.")


def build_product(engine: str) -> None:
    """Build the image of the Dockerfile. CONTAINER_BUILD_OPTIONS are further options, such as a mirror's settings.

    Raises:
        InputError: the base image cannot be pulled, or the build fails.
    """
    base = (ROOT / "Dockerfile").read_text().partition("ARG PYTHON_IMAGE=")[2].split()[0]
    if not _has(engine, base):
        try:
            call(engine, "pull", base, timeout_s=BUILD_TIMEOUT_S)
        except InputError as e:
            raise InputError(f"{engine} has no base image {base} and cannot pull it", e.problem) from e
    options = shlex.split(os.environ.get("CONTAINER_BUILD_OPTIONS", ""))
    command = [engine, "build", "--network=host", *options, "--tag", PRODUCT, str(ROOT)]
    if code := subprocess.run(command, stdin=subprocess.DEVNULL, timeout=BUILD_TIMEOUT_S, check=False).returncode:
        raise InputError(f"{shlex.join(command)}: failed with exit code {code}")


def real_server(engine: str) -> bool:
    """Return whether the engine has TensorFlow Serving's own image, pulled if possible."""
    if _has(engine, IMAGE) and not is_stand_in(engine):
        return True
    remove_stand_in(engine)
    try:
        call(engine, "pull", IMAGE, timeout_s=BUILD_TIMEOUT_S)
    except InputError:
        return False
    return True


def stand_in(engine: str, on_term: str) -> None:
    """Give TensorFlow Serving's name to an image that carries the embedded server."""
    with tempfile.TemporaryDirectory() as context:
        arguments = ["--build-arg", f"PRODUCT={PRODUCT}", "--build-arg", f"ON_TERM={on_term}"]
        call(engine, "build", *arguments, "--file", str(DOCKERFILE), "--tag", IMAGE, context, timeout_s=BUILD_TIMEOUT_S)


def remove_stand_in(engine: str) -> None:
    if _has(engine, IMAGE) and is_stand_in(engine):
        call(engine, "rmi", "--force", IMAGE)


def is_stand_in(engine: str) -> bool:
    label = f'{{{{index .Config.Labels "{STAND_IN}"}}}}'
    return call(engine, "image", "inspect", "--format", label, IMAGE).strip() == "true"


def _has(engine: str, image: str) -> bool:
    try:
        call(engine, "image", "inspect", image)
    except InputError:
        return False
    return True
