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

STOP_TIMEOUT_S: Final = 15
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
        ServerError: the model was not AVAILABLE in time, or the block raised it; the end of the server's log is added.
        InputError: the environment has no such server: no engine, no image, no port.
    """
    version = folder / "serving_model" / contract.MODEL_NAME / "1"
    shutil.copytree(model, version, copy_function=os.link)
    grpc_port, rest_port = free_port(), free_port()
    options = {
        "--with-parent": os.getpid(),
        "--home": folder,
        "--backend": backend,
        "--grpc-port": grpc_port,
        "--rest-port": rest_port,
    }
    command = [sys.executable, "-m", "serving", "up", "--foreground", "--unproven"]
    command += [str(word) for option in options.items() for word in option]
    command += ["--owner", str(owner)] if owner else []
    log = folder / "server.log"
    started = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while not any(state["state"] == "AVAILABLE" for state in version_states(rest_port)):
            if process.poll() == InputError.exit_code:
                problem, _, remedy = log.read_text(errors="replace").rpartition("error: ")[2].strip().partition("\n")
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
    label: str | None = None,
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]]]:
    """Send images to a server on this machine, with `python -m serving replay`.

    Args:
        images: uint8 [n, height, width], all sent over gRPC: the first `singles` one by one, the rest in batches.
        scratch: an existing folder for the command's files.
        singles: how many are also sent over REST, one by one.
        label: version label of the requests; None sends them without one.

    Returns:
        The command's JSON report; and probabilities by transport: "grpc" [n, classes], "rest" [singles, classes].

    Raises:
        ServerError: a request failed.
    """
    sent, received = scratch / "images.npy", scratch / "predictions.npz"
    np.save(sent, images)
    options = ["--singles", str(singles), "--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
    options += ["--label", label] if label else []
    command = [sys.executable, "-m", "serving", "replay", str(sent), "--output", str(received), "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        problem, _, remedy = done.stderr.strip().partition("\n")
        raise ServerError(problem or f"python -m serving replay ended with exit code {done.returncode}", remedy)
    with np.load(received, allow_pickle=False) as arrays:
        return json.loads(done.stdout.splitlines()[-1]), dict(arrays)
