"""Starts, finds and stops the server of a home."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import psutil

from components.common import files
from components.common.commands import command
from components.common.errors import InputError
from components.common.files import write_durably
from components.common.ports import version_states
from components.common.signals import postponed
from components.versions.release import read_release
from serving.launch import backends, processes
from serving.launch.backends import Choice, Preferred, Setup
from serving.launch.container import Container
from serving.launch.prepare import prepare
from serving.model_server.log_file import rotate

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.1
STATE_FILE: Final = "server.json"
LAST_LINES: Final = 5


@dataclass(frozen=True)
class Running:
    """A server that was started in a home.

    Attributes:
        pid, created: process ID and start time, 0 for a container.
        started: the boot and the seconds from it to the start, which detect a later process with the same ID even if
            the clock was set; empty for a container, and for a server that version 0.1 started.
        backend, why: the backend, and why it was chosen.
        engine, container: what runs the container, and its name; empty for a process.
        stopping: whether `stop` has begun; if it was killed, the server may have no model.
        unproven: whether it also serves versions that do not match their manifests.
    """

    pid: int
    created: float
    backend: str
    why: str
    grpc_port: int
    rest_port: int
    log_file: str
    engine: str = ""
    container: str = ""
    stopping: bool = False
    started: str = ""
    unproven: bool = False

    def __str__(self) -> str:
        return str(self.box) if self.container else f"process {self.pid}"

    @property
    def box(self) -> Container:
        return Container(self.engine, self.container)

    def process(self) -> psutil.Process | None:
        """Return the process if it is still running."""
        return processes.find(self.pid, self.created, self.started)

    def is_alive(self) -> bool:
        if not self.container:
            return self.process() is not None
        try:
            return self.box.is_running()
        except InputError:  # no engine to ask
            return bool(version_states(self.rest_port))


def find(home: Path) -> Running | None:
    """Return the server of a home if one is running."""
    running = _last_started(home)
    return running if running and running.is_alive() else None


def require(home: Path) -> Running:
    """Return the server of a home. Raises InputError if none is running."""
    running = find(home)
    if running is None:
        raise InputError(f"{home}: no server is running", f"Start one: {command('serving', 'up')}")
    return running


def start(setup: Setup, preferred: Preferred) -> tuple[Running, bool]:
    """Start the server of a home unless it is running; return it and whether it is new.

    Waits until all versions with a label are AVAILABLE, or any version if there are no labels.

    Raises:
        InputError: nothing was pushed, a port is in use, another server is running than the one asked for, or the
            server did not start (the message ends with its last log lines).
    """
    with locked(setup.folder):
        running = find(setup.home)
        if running and not running.stopping:
            _check_same(running, setup, preferred)
            return running, False
        stop(setup.home)
        choice = prepare(setup, preferred)
        setup.log_file.parent.mkdir(parents=True, exist_ok=True)
        rotate(setup.log_file)
        with open(setup.log_file, "ab") as log:
            log_start = log.tell()
            try:
                if choice.name == "container":
                    running = register(choice, setup)
                    backends.run_container(choice, setup)
                else:
                    with postponed():  # a process that is not registered would never be stopped
                        running = _spawn(choice, setup, log)
                _wait(running, setup, {*read_release(setup.home).labels.values()}, log_start)
            except BaseException:
                stop(setup.home)
                raise
        return running, True


def _spawn(choice: Choice, setup: Setup, log: BinaryIO) -> Running:
    """Start a server that is a process, and register it. Raises InputError."""
    process = subprocess.Popen(
        backends.command(choice, setup, setup.log_file),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=backends.environment(choice),
        start_new_session=True,  # outlives this command and its terminal
    )
    try:
        return register(choice, setup, process.pid)
    except InputError:
        process.kill()
        raise


def register(choice: Choice, setup: Setup, pid: int = 0, log_file: str = "") -> Running:
    """Record a server as the home's, a container even before it is started. Raises InputError."""
    ports = setup.grpc_port, setup.rest_port
    if choice.name == "container":
        box = backends.container_of(choice.program, setup)
        command_started = processes.started(psutil.Process())  # tells apart two starts of a container with this name
        running = Running(
            *(0, 0.0, choice.name, choice.why, *ports, box.log_command, box.engine, box.name), started=command_started
        )
    else:
        process = psutil.Process(pid)
        created, started = process.create_time(), processes.started(process)
        running = Running(
            pid, created, choice.name, choice.why, *ports, log_file or str(setup.log_file), started=started
        )
    running = replace(running, unproven=setup.unproven)
    write_durably(setup.folder / STATE_FILE, json.dumps(asdict(running)))
    return running


def shut_down(home: Path) -> Running | None:
    """Stop the server of a home and return it; None if none was running. Waits for a start that is in progress."""
    if _last_started(home) is None:
        return None
    with locked(home / "serving"):
        return stop(home)


def stop_own(home: Path, own: Running, *, drained: bool) -> None:
    """Stop a server that this process registered, unless another command has stopped it or started another one."""
    with locked(home / "serving"):
        found = _last_started(home)
        if found is not None and replace(found, stopping=False) == own:
            stop(home, drained=drained)


def stop(home: Path, *, drained: bool = False) -> Running | None:
    """Stop the server of a home and return it; None if none was running. Removes what is left of an earlier one.

    The caller holds the lock.

    The server first completes the requests that it has accepted, and is killed if it does not end after SIGTERM.

    Args:
        drained: no request is in flight.
    """
    running = _last_started(home)
    if running is None:
        return None
    alive = running.is_alive()
    if alive:
        write_durably(home / "serving" / STATE_FILE, json.dumps(asdict(replace(running, stopping=True))))
        try:
            if running.backend != "embedded" and not drained:
                from serving.launch.drain import drain

                drain(running.grpc_port)
        finally:
            with postponed():
                _end(running)
    with postponed():
        if running.container:
            running.box.remove(Setup(home).log_file)
        (home / "serving" / STATE_FILE).unlink(missing_ok=True)
    return running if alive else None


def _last_started(home: Path) -> Running | None:
    """Return the server that was started last, running or not; None if it was stopped. Raises InputError."""
    path = home / "serving" / STATE_FILE
    try:
        return Running(**json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, RecursionError):
        return None
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})", "Name another home: --home DIR") from e


def _check_same(running: Running, setup: Setup, preferred: Preferred) -> None:
    """Raise InputError if the server that is running is not the one asked for."""
    for name, wanted, found in (
        ("--backend", preferred, running.backend),
        ("--grpc-port", setup.grpc_port, running.grpc_port),
        ("--rest-port", setup.rest_port, running.rest_port),
    ):
        if wanted not in (found, "auto"):
            raise InputError(
                f"{name} {wanted}: the server of this home is running with {found}",
                f"Stop it first: {command('serving', 'down')}",
            )


def _end(running: Running) -> None:
    """Send SIGTERM, and SIGKILL later."""
    if running.container:
        with suppress(InputError):  # `remove` kills it
            running.box.stop()
    elif process := running.process():
        with suppress(psutil.NoSuchProcess):
            try:
                process.terminate()
            except psutil.AccessDenied:
                owner = process.username()
                raise InputError(f"process {running.pid} belongs to {owner}", "Stop it as that user.") from None
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)


def _wait(running: Running, setup: Setup, labelled: set[int], log_start: int) -> None:
    """Wait until all versions with a label are AVAILABLE, or any version without labels. Raises InputError.

    Args:
        log_start: where this server's lines begin in the log file.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    ended = "did not become ready"
    while time.monotonic() < deadline:
        states = {int(state["version"]): state for state in version_states(setup.rest_port)}
        available = {number for number, state in states.items() if state["state"] == "AVAILABLE"}
        if available and labelled <= available:
            return
        for number in states.keys() & labelled:
            if states[number]["status"]["error_code"] != "OK":
                message = states[number]["status"]["error_message"]
                raise InputError(
                    f"version {number} does not load: {message}", f"Roll back: {command('serving', 'rollback')}"
                )
        if not running.is_alive():
            ended = "ended"
            break
        time.sleep(5 * POLL_S if running.container else POLL_S)  # asking an engine costs a part of a second
    if running.container:
        lines = running.box.logs(LAST_LINES)
    else:
        with open(setup.log_file, "rb") as log:
            log.seek(log_start)
            lines = b"".join(log.readlines()[-LAST_LINES:]).decode(errors="replace")
    raise InputError(f"the server {ended}; its last log lines:\n{lines.rstrip()}", f"Log: {setup.log_file}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a home, which is required to start a server or change which version is served.

    Raises:
        InputError: the folder is not writable.
    """
    with files.locked(folder / ".lock", lambda: print("waiting for another command on this home", file=sys.stderr)):
        yield
