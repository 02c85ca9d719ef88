"""A temporary server for one model, started and called through the serving command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from components.common import ROOT, contract
from components.common.errors import InputError
from components.common.ports import free_port, version_states

STOP_TIMEOUT_S: Final = 60  # stopping a container takes several calls of its engine
LOG_LINES: Final = 15


class ServerError(InputError):
    """A server ended or did not become available, or a request to it failed."""


class TrialServer(NamedTuple):
    """A running server. load_s: seconds from its start until the model was AVAILABLE."""

    grpc_port: int
    rest_port: int
    load_s: float


@contextlib.contextmanager
def running_server(
    model: Path, folder: Path, backend: str, timeout_s: float, owner: Path | None = None
) -> Iterator[TrialServer]:
    """Serve a SavedModel from a separate process, which ends with this one even if this one is killed.

    Args:
        folder: for the server's home and log; removed by the caller.
        owner: names the server's container, so that a container left behind is removed by the next one of this owner;
            None for `folder`.

    Raises:
        ServerError, InputError: as `server_of`.
    """
    version = folder / "serving_model" / contract.MODEL_NAME / "1"
    shutil.copytree(model, version, copy_function=os.link)
    options = ["--unproven", "--backend", backend, *(["--owner", str(owner)] if owner else [])]
    with server_of(folder, folder / "server.log", timeout_s, *options) as server:
        yield server


@contextlib.contextmanager
def server_of(home: Path, log: Path, timeout_s: float, *options: str) -> Iterator[TrialServer]:
    """Serve a home on free ports, as `running_server` does.

    Args:
        log: the file for the server's output.
        options: of the serving command `up`.

    Raises:
        ServerError: no version was AVAILABLE in time, or the block raised it; the end of the server's log is added.
        InputError: the environment has no such server: no engine, no image, no port.
    """
    grpc_port, rest_port = free_port(), free_port()
    words = ["--with-parent", os.getpid(), "--home", home, "--grpc-port", grpc_port, "--rest-port", rest_port]
    command = [sys.executable, "-m", "serving", "up", "--foreground", *map(str, words), *options]
    started = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while not _ready(rest_port):
            if process.poll() == InputError.exit_code:
                problem, _, remedy = _last_error(log.read_text(errors="replace"))
                raise InputError(f"no server could be started: {problem}", remedy)
            if process.returncode is not None:
                raise ServerError("the server ended")
            if time.monotonic() - started > timeout_s:
                raise ServerError(f"the server was not AVAILABLE within {timeout_s:g} s")
            time.sleep(0.02)
        yield TrialServer(grpc_port, rest_port, time.monotonic() - started)
    except ServerError as e:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        remedy = "\n".join([*e.remedy.splitlines(), "The end of the server's log:", *lines])
        raise ServerError(e.problem, remedy) from e
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def replay(
    images: npt.NDArray[np.uint8],
    scratch: Path,
    grpc_port: int,
    rest_port: int,
    singles: int,
    *target: str,
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]]]:
    """Send images to a server on this machine, with the serving command `replay`.

    Args:
        images: uint8 [n, height, width], all sent over gRPC: the first `singles` one by one, the rest in batches.
        scratch: an existing folder for the command's files.
        singles: how many are also sent over REST, one by one.
        target: options that choose the version, such as "--version", "7"; by default the server chooses.

    Returns:
        The command's JSON report; and probabilities by transport: "grpc" [n, classes], "rest" [singles, classes].

    Raises:
        ServerError: a request failed.
    """
    sent, received = scratch / "images.npy", scratch / "predictions.npz"
    np.save(sent, images)
    options = ["--singles", str(singles), "--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
    report = serving("replay", str(sent), "--output", str(received), *options, *target)
    with np.load(received, allow_pickle=False) as arrays:
        return report, dict(arrays)


def serving(command: str, *words: str) -> dict[str, Any]:
    """The JSON output of a serving command, run as a process. Raises ServerError with its error message."""
    words = (sys.executable, "-m", "serving", command, *words, "--json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        problem, _, remedy = _last_error(done.stderr)
        raise ServerError(problem or f"the serving command {command} ended with exit code {done.returncode}", remedy)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def _last_error(output: str) -> tuple[str, str, str]:
    """The first line of the error that a command of ours printed last, a separator, and the other lines."""
    return f"\n{output.strip()}".rpartition("\nerror: ")[2].strip().partition("\n")


def _ready(rest_port: int) -> bool:
    """Whether a version can be served and no other is being loaded."""
    states = {state["state"] for state in version_states(rest_port)}
    return "AVAILABLE" in states and states.isdisjoint({"START", "LOADING"})
