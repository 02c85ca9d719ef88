"""Shared by the benchmarks: arguments, the home to measure, MNIST, result files and processes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from components.common import ROOT
from components.data.idx import IdxFiles
from components.data.mnist import fetch_mnist
from components.versions.release import pushed_versions, version_folder

WORKSPACE: Final = ROOT / "workspace"
RESULTS: Final = ROOT / "build"
HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
SETTLE_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.005


def argument_parser(doc: str | None, *, home: bool = False) -> argparse.ArgumentParser:
    """A parser with the first line of a module's docstring as its description, optionally with --home."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    if home:
        parser.add_argument("--home", type=Path, default=WORKSPACE, help="home with a pushed version")
    return parser


def pushed_model(home: Path) -> Path:
    """Absolute path of the newest pushed version of a home. Raises SystemExit if nothing was pushed."""
    home = home.resolve()
    versions = pushed_versions(home)
    if not versions:
        raise SystemExit(f"{home}: no pushed version; run `make pipeline` first")
    return version_folder(home, versions[-1])


def mnist_files(home: Path = WORKSPACE) -> IdxFiles:
    """The four MNIST files of a home, downloaded if they are missing."""
    return fetch_mnist(home.resolve() / "data" / "mnist", print)


def copy_mnist(files: IdxFiles, home: Path) -> None:
    """Copy the files into a new home, so that its first run downloads nothing."""
    folder = home / "data" / "mnist"
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)


def pipeline_command(home: Path, *arguments: str) -> list[str]:
    """`python -m pipeline run` in a home."""
    return [sys.executable, "-m", "pipeline", "run", "--home", str(home), *arguments]


def write_result(name: str, document: Mapping[str, Any]) -> None:
    """Write build/<name>."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written: {path.relative_to(ROOT)}", flush=True)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python <arguments>` in the background; send SIGTERM at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def wait_for_port(port: int) -> None:
    """Return when something listens on a loopback port. Raises SystemExit after START_TIMEOUT_S."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    if not wait_until(is_open, START_TIMEOUT_S):
        raise SystemExit(f"nothing is listening on port {port} after {START_TIMEOUT_S:g} s")


def wait_until(condition: Callable[[], Any], timeout_s: float = SETTLE_TIMEOUT_S) -> bool:
    """Poll until the condition is true; False after a time-out."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def kill(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Send SIGKILL to this process alone, as the kernel's out-of-memory killer does.

    Returns:
        Its descendants. The process is stopped first, so that it cannot start more of them meanwhile.
    """
    os.kill(process.pid, signal.SIGSTOP)
    descendants: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return descendants


def survivors(processes: list[psutil.Process], timeout_s: float = SETTLE_TIMEOUT_S) -> list[int]:
    """Ids of the processes that are still alive after the time-out."""
    wait_until(lambda: not any(map(_is_alive, processes)), timeout_s)
    return [process.pid for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
