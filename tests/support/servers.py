"""Runs a server of the backend named by SERVING_BACKEND."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from components.common import container_engine
from components.common.ports import free_port
from tests.conftest import ROOT
from tests.support.clients import HOST, Client

BACKEND: Final = os.environ.get("SERVING_BACKEND", "embedded")
IMAGE: Final = os.environ.get("SERVING_IMAGE", container_engine.IMAGE)
READY_S: Final = 60.0

embedded_only = pytest.mark.skipif(BACKEND != "embedded", reason="TensorFlow Serving itself does not do this")


def missing_backend() -> str:
    """Return why the backend is not available; an empty string if it is."""
    if BACKEND == "embedded":
        return ""
    if BACKEND == "binary":
        return "" if shutil.which("tensorflow_model_server") else "no tensorflow_model_server on PATH"
    if BACKEND == "container":
        return "" if _engine() else "neither docker nor podman works here"
    raise pytest.UsageError(f"SERVING_BACKEND={BACKEND}: expected embedded, binary or container")


def _engine() -> str | None:
    engines = container_engine.ENGINES
    return next((engine for engine in engines if container_engine.engine_problem(engine) is None), None)


def command(*flags: str, folder: Path, fast: bool = True) -> list[str]:
    """Return the command line of the backend.

    Args:
        folder: the folder to mount into a container.
        fast: whether the embedded server polls and drains faster than its flags and constants specify.
    """
    if BACKEND == "embedded":
        return [sys.executable, "-m", "tests.support.fast_model_server" if fast else "serving.model_server", *flags]
    if BACKEND == "binary":
        return ["tensorflow_model_server", *flags]
    engine = _engine() or "docker"
    mount = ["--network=host", f"--volume={folder}:{folder}", "--entrypoint=tensorflow_model_server"]
    return [engine, "run", "--rm", "--init", *mount, IMAGE, *flags]


def failed_start(folder: Path, *flags: str) -> tuple[int, str]:
    """Return the exit code and output of a server that must fail to start."""
    done = subprocess.run(
        command(f"--port={free_port()}", *flags, folder=folder.parent),
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 60},
        check=False,
    )
    return done.returncode, done.stdout


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Poll until the condition returns a true value, and return that value."""
    end = time.monotonic() + timeout_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not so after {timeout_s} s: {condition}")
        time.sleep(0.02)


def model_config(name: str, base_path: Path, *, policy: str = "", labels: Mapping[str, int] | None = None) -> str:
    """Return one `config {...}` of a ModelConfigList in text format."""
    lines = [f'name: "{name}"', f'base_path: "{base_path}"', 'model_platform: "tensorflow"']
    if policy:
        lines.append(f"model_version_policy {{ {policy} }}")
    lines += [f'version_labels {{ key: "{k}" value: {v} }}' for k, v in (labels or {}).items()]
    return "config { " + " ".join(lines) + " }"


def config_list(*models: str) -> str:
    return "model_config_list { " + " ".join(models) + " }\n"


class Server(Client):
    """A server process that serves the models in `folder`/models.config."""

    def __init__(self, folder: Path, flags: tuple[str, ...] = (), *, fast: bool = True) -> None:
        super().__init__(free_port(), free_port())
        self.folder, self.flags, self.fast = folder, flags, fast
        self.log = folder / f"server-{self.port}.log"
        self.config_file = folder / "models.config"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, *models: str) -> Server:
        """Replace the model config file atomically."""
        temporary = self.config_file.with_suffix(".new")
        temporary.write_text(config_list(*models))
        temporary.replace(self.config_file)
        return self

    def launch(self) -> Server:
        """Start the process; does not wait."""
        flags = [f"--port={self.port}", f"--rest_api_port={self.rest_port}"]
        if not any(flag.startswith("--model_base_path") for flag in self.flags):
            flags.append(f"--model_config_file={self.config_file}")
        arguments = command(*flags, *self.flags, folder=self.folder.parent, fast=self.fast)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        return self

    def start(self) -> Server:
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        process = self.process
        wait_for(lambda: self.is_open() or process.poll() is not None, READY_S)
        assert process.poll() is None, f"exit code {process.poll()}:\n{self.output}"
        wait_for(lambda: self.is_open(self.rest_port), READY_S)

    def is_open(self, port: int | None = None) -> bool:
        with socket.socket() as s:
            return s.connect_ex((HOST, port or self.port)) == 0

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout_s: float = READY_S) -> int:
        """Return the exit code after the process has ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        self.channel.close()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
