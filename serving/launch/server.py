"""Starts, finds and stops the server of a home."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from components.common import contract, files
from components.common.errors import InputError
from components.common.files import write_durably
from components.common.ports import version_states
from components.versions import manifest
from components.versions.release import pushed_versions, read_release, version_folder
from serving.launch import backends, model_config
from serving.launch.backends import Choice, Setup
from serving.launch.proof import check_pushed

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.1
STATE_FILE: Final = "server.json"
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(frozen=True)
class Running:
    """A server that was started in a home.

    Attributes:
        pid, created: process ID and start time; the start time detects a later process with the same ID.
        backend, why: the backend, and why it was chosen.
    """

    pid: int
    created: float
    backend: str
    why: str
    grpc_port: int
    rest_port: int
    log_file: str

    def process(self) -> psutil.Process | None:
        """Return the process if it is still running."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
            return process if alive else None
        return None


def find(home: Path) -> Running | None:
    """Return the server of a home if one is running."""
    path = home / "serving" / STATE_FILE
    try:
        running = Running(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return running if running.process() else None


def require(home: Path) -> Running:
    """Return the server of a home. Raises InputError if none is running."""
    running = find(home)
    if running is None:
        raise InputError(f"{home}: no server is running", "Start one: make serve")
    return running


def start(setup: Setup, preferred: str) -> tuple[Running, bool]:
    """Start the server of a home unless it is running; return it and whether it is new.

    Waits until all versions with a label are AVAILABLE, or any version if there are no labels.

    Raises:
        InputError: nothing was pushed, a port is in use, or the server did not start (the message ends with its last
            log lines).
    """
    with locked(setup.folder):
        if running := find(setup.home):
            return running, False
        choice = prepare(setup, preferred)
        setup.log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(setup.log_file, "ab") as log:
            process = subprocess.Popen(
                backends.command(choice, setup),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=backends.environment(choice),
                start_new_session=True,  # outlives this command and its terminal
            )
        created = psutil.Process(process.pid).create_time()
        ports = setup.grpc_port, setup.rest_port
        running = Running(process.pid, created, choice.name, choice.why, *ports, str(setup.log_file))
        write_durably(setup.folder / STATE_FILE, json.dumps(asdict(running)))
        try:
            _wait(process, setup, {*read_release(setup.home).labels.values()})
        except BaseException:
            stop(setup.home)
            raise
        return running, True


def register_foreground(setup: Setup, preferred: str) -> Choice:
    """Prepare for this process to become the server, and register it as the home's. Raises InputError."""
    with locked(setup.folder):
        if running := find(setup.home):
            raise InputError(f"process {running.pid} already serves this home", "Stop it first: make stop")
        choice = prepare(setup, preferred)
        created = psutil.Process().create_time()
        ports = setup.grpc_port, setup.rest_port
        running = Running(os.getpid(), created, choice.name, choice.why, *ports, "its terminal")
        write_durably(setup.folder / STATE_FILE, json.dumps(asdict(running)))
        return choice


def prepare(setup: Setup, preferred: str) -> Choice:
    """Choose the backend, check its requirements, write its config file. Raises InputError."""
    if not pushed_versions(setup.home):
        base = setup.models / contract.MODEL_NAME
        raise InputError(f"{base}: no version has been pushed", "Run the pipeline first: make pipeline")
    release = read_release(setup.home)
    needed = {*release.labels.values()} or {pushed_versions(setup.home)[-1]}
    for version in needed:
        check_pushed(setup.home, version)  # a server would wait forever for a missing version
        if not setup.unproven:
            manifest.verify(version_folder(setup.home, version))
    for port in (setup.grpc_port, setup.rest_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as e:
                raise InputError(
                    f"port {port} cannot be used ({e.strerror})",
                    "Stop the process that uses it (make stop, if it is this product in another home), or choose other "
                    "ports: --grpc-port N --rest-port N",
                ) from e
    choice = backends.choose(preferred)
    setup.folder.mkdir(parents=True, exist_ok=True)
    base_path = backends.base_path(choice.name, setup)
    write_durably(setup.config_file, model_config.of_release(setup.home, base_path, release))
    return choice


def exit_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent process ends, for whatever reason (Linux only).

    Args:
        parent: the parent's process ID, to detect that it ended before this call.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)


def stop(home: Path) -> Running | None:
    """Stop the server of a home and return it; None if none was running.

    After SIGTERM the server completes the requests that it has accepted; SIGKILL follows after STOP_TIMEOUT_S.
    """
    running = find(home)
    process = running.process() if running else None
    if running is None or process is None:
        return None
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
    (home / "serving" / STATE_FILE).unlink(missing_ok=True)
    return running


def _wait(process: subprocess.Popen[bytes], setup: Setup, labelled: set[int]) -> None:
    """Wait until all versions with a label are AVAILABLE, or any version without labels. Raises InputError."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        states = {int(state["version"]): state for state in version_states(setup.rest_port)}
        available = {number for number, state in states.items() if state["state"] == "AVAILABLE"}
        if available and labelled <= available:
            return
        for number in states.keys() & labelled:
            if states[number]["status"]["error_code"] != "OK":
                message = states[number]["status"]["error_message"]
                raise InputError(f"version {number} does not load: {message}", "Roll back: python -m serving rollback")
        if process.poll() is not None:
            break
        time.sleep(POLL_S)
    ended = f"ended with exit code {process.returncode}" if process.returncode is not None else "did not become ready"
    with open(setup.log_file, errors="replace") as log:
        last = "".join(log.readlines()[-5:])
    raise InputError(f"the server {ended}; its last log lines:\n{last.rstrip()}", f"Log: {setup.log_file}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a home, which is required to start a server or change which version is served.

    Raises:
        InputError: the folder is not writable.
    """
    with files.locked(folder / ".lock", lambda: print("waiting for another command on this home", file=sys.stderr)):
        yield
