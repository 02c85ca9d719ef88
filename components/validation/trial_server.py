"""A model server of its own for one model, started and asked through the serving command line, and gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.common import ROOT, contract

STOP_TIMEOUT_S: Final = 15
LOG_LINES: Final = 15


class ServerError(Exception):
    """The server did not start, or a request failed; the text says which and ends with the server's last words."""


@contextlib.contextmanager
def served(model: Path, folder: Path, backend: str, timeout_s: float) -> Iterator[tuple[int, int, float]]:
    """Serve a SavedModel from its own process; yields (gRPC port, REST port, seconds until AVAILABLE).

    The server ends with this process, whatever ends it.

    Args:
        folder: for the server's home and log; removed by the caller.

    Raises:
        ServerError: it did not become AVAILABLE in time.
    """
    version = folder / "serving_model" / contract.MODEL_NAME / "1"
    shutil.copytree(model, version, copy_function=os.link)
    grpc_port, rest_port = _free_port(), _free_port()
    options = {
        "--with-parent": os.getpid(),
        "--home": folder,
        "--backend": backend,
        "--grpc-port": grpc_port,
        "--rest-port": rest_port,
    }
    words = [sys.executable, "-m", "serving", "up", "--foreground", "--unproven"]
    words += [str(word) for option in options.items() for word in option]
    server_log = folder / "server.log"
    started = time.monotonic()
    with open(server_log, "wb") as output:
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while not _available(rest_port):
            if process.poll() is not None or time.monotonic() - started > timeout_s:
                state = "ended" if process.poll() is not None else f"was not AVAILABLE within {timeout_s:g} s"
                raise ServerError(f"the server {state}:\n{tail(server_log)}")
            time.sleep(0.02)
        yield grpc_port, rest_port, time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def replay(images: Any, folder: Path, grpc_port: int, rest_port: int, singles: int) -> tuple[dict[str, Any], Any]:
    """Have the serving client ask about every image; returns its report and the answers by transport.

    Raises:
        ServerError: a request failed.
    """
    asked, answered = folder / "images.npy", folder / "answers.npz"
    np.save(asked, images)
    words = [sys.executable, "-m", "serving", "replay", str(asked), "--output", str(answered), "--singles",
             str(singles), "--grpc-port", str(grpc_port), "--rest-port", str(rest_port), "--json"]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{done.stderr.strip()}\nThe server's last words:\n{tail(folder / 'server.log')}")
    with np.load(answered, allow_pickle=False) as arrays:
        return json.loads(done.stdout.splitlines()[-1]), dict(arrays)


def tail(path: Path, lines: int = LOG_LINES) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _available(rest_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/v1/models/{contract.MODEL_NAME}", timeout=1) as body:
            states = json.load(body)["model_version_status"]
    except (OSError, ValueError, KeyError):
        return False
    return any(state["state"] == "AVAILABLE" for state in states)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
