"""The product as an attacker and an operator meet it: its command lines, its processes, and what must always hold."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from components.common import contract
from components.common.errors import UserError
from components.common.ports import free_port
from components.data import idx
from components.versions import manifest, release
from serving.client import connect

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
RUN_TIMEOUT_S: Final = 600
SETTLE_S: Final = 30.0
PAUSE_S: Final = 0.05  # between two requests of a Watch
SAME: Final = 1e-5
ASKED: Final = 8  # images per request
RUNNING_STATES: Final = (1, 2)  # NEW and RUNNING of MLMD's Execution.State


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return value


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MNIST_TFX_HOME"}


@dataclass(frozen=True)
class Product:
    """One home, run with small settings on `data`.

    Attributes:
        home: of the pipeline and the server.
        data: folder of IDX files.
    """

    home: Path
    data: Path

    @property
    def base(self) -> Path:
        """Where the versions lie."""
        return self.home / "serving_model" / contract.MODEL_NAME

    def run_command(self, *words: str, data: Path | None = None) -> list[str]:
        settings = ["--config", "configs/quick.toml", "--set", f"data.source={data or self.data}"]
        return [sys.executable, "-m", "pipeline", "run", "--json", "--home", str(self.home), *settings, *words]

    def run(self, *words: str, data: Path | None = None, checkout: Path = REPOSITORY) -> Done:
        """`python -m pipeline run`; `words` are further options, `checkout` is where the source lies."""
        return _finished(self.run_command(*words, data=data), checkout)

    def start_run(self, *words: str) -> subprocess.Popen[str]:
        """A run in the background."""
        return subprocess.Popen(
            self.run_command(*words),
            cwd=REPOSITORY,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run_logs(self) -> set[Path]:
        """Log folders of the runs so far; in them each node has a file from when it begins."""
        return {path for path in self.home.glob("logs/*") if path.is_dir() and path.name != "validate"}

    def validate(self, *words: str) -> Done:
        """`python -m pipeline validate`"""
        return _finished([sys.executable, "-m", "pipeline", "validate", "--json", "--home", str(self.home), *words])

    def serving(self, command: str, *words: str) -> Done:
        return _finished([sys.executable, "-m", "serving", command, "--home", str(self.home), *words])

    def up(self, grpc_port: int, rest_port: int) -> Done:
        """Start the embedded server."""
        ports = ("--grpc-port", str(grpc_port), "--rest-port", str(rest_port))
        return self.serving("up", "--json", "--backend", "embedded", *ports)

    def versions(self) -> list[int]:
        return release.pushed_versions(self.home)

    def untrue_versions(self) -> list[str]:
        """Why versions are not what was blessed and pushed; [] if every one is."""
        problems = []
        for version in self.versions():
            try:
                manifest.verify(self.base / str(version))
            except UserError as e:
                problems.append(e.problem)
        return problems

    def unfinished_executions(self) -> int:
        """Executions that MLMD takes to be under way."""
        with closing(sqlite3.connect(self.home / "metadata.sqlite")) as database:
            marks = ",".join("?" * len(RUNNING_STATES))
            query = f"SELECT count(*) FROM Execution WHERE last_known_state IN ({marks})"
            (count,) = database.execute(query, RUNNING_STATES).fetchone()
            return int(count)

    def recorded_versions(self) -> set[int]:
        """Versions that MLMD knows the push of."""
        with closing(sqlite3.connect(self.home / "metadata.sqlite")) as database:
            rows = database.execute("SELECT string_value FROM ArtifactProperty WHERE name = 'pushed_version'")
            return {int(text) for (text,) in rows if text}

    def strays(self) -> list[int]:
        """Processes that work on this home's artifacts, as the InfraValidator's server does."""
        place = str(self.home / "artifacts")
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and any(place in word for word in process.cmdline()):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def test_images(self) -> Any:
        """uint8 [ASKED, height, width]"""
        return idx.read_images(idx.locate(self.data).test_images)[:ASKED]


def _finished(command: list[str], folder: Path = REPOSITORY) -> Done:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    return Done(done.returncode, done.stdout, done.stderr)


def kill(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """SIGKILL to this process alone, as the kernel's out-of-memory killer does; returns its descendants of that moment.

    It is stopped first, so that none is missed.
    """
    os.kill(process.pid, signal.SIGSTOP)
    descendants: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return descendants


def still_alive(processes: list[psutil.Process], timeout_s: float = SETTLE_S) -> list[int]:
    """Those that have not ended by themselves in time."""
    wait_until(lambda: not _alive(processes), timeout_s)
    return [process.pid for process in _alive(processes)]


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    return alive


def wait_until(holds: Callable[[], Any], timeout_s: float = SETTLE_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Watch:
    """A server of the home, and a client that never stops asking it, without a label.

    Attributes:
        served: versions in the order in which they began to answer.
        violations: answers that should not have been: of a version that was not blessed and whole when it first
            answered, or that differ from what the version answered before.
        failures: requests without an answer.
        answered: how many were.
    """

    product: Product
    grpc_port: int = field(default_factory=free_port)
    rest_port: int = field(default_factory=free_port)
    served: list[int] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: int = 0
    _known: dict[int, Any] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def now(self) -> int | None:
        """The version that answered last."""
        return self.served[-1] if self.served else None

    def settle(self) -> None:
        """Let a few further requests be answered (or fail)."""
        before = self.answered + len(self.failures)
        wait_until(lambda: self.answered + len(self.failures) >= before + 5)

    def answers_with(self, version: int) -> bool:
        """Whether this version answers, at the latest after a while."""
        return wait_until(lambda: self.now == version)

    def restart(self) -> Done:
        """Stop the server and start it again, as an operator does; asking pauses meanwhile."""
        with self._asking:
            self.product.serving("down")
            return self.product.up(self.grpc_port, self.rest_port)

    def ask_for_ever(self) -> None:
        images = self.product.test_images()
        while not self._ended.wait(PAUSE_S):
            with self._asking, connect(f"127.0.0.1:{self.grpc_port}", attempts=1) as client:
                try:
                    answer = client.predict({contract.IMAGES: images}, model=contract.MODEL_NAME)
                except UserError as e:
                    self.failures.append(str(e))
                    continue
            self._take(answer.version, answer.outputs[contract.PROBABILITIES])
            self.answered += 1

    def _take(self, version: int, probabilities: Any) -> None:
        if version not in self._known:
            self._known[version] = probabilities
            try:
                manifest.verify(self.product.base / str(version))
            except UserError as e:
                self.violations.append(f"version {version} answered: {e.problem}")
        difference = float(np.abs(probabilities - self._known[version]).max())
        if not difference <= SAME:  # NaN is not
            self.violations.append(f"version {version} changed its answers by {difference:g}")
        if version != self.now:
            self.served.append(version)

    def end(self) -> None:
        self._ended.set()


@contextmanager
def watched(product: Product) -> Iterator[Watch]:
    """Serve the home with the embedded backend, and ask all the time."""
    watch = Watch(product)
    up = product.up(watch.grpc_port, watch.rest_port)
    if up.code:
        raise RuntimeError(up.stderr)
    asking = threading.Thread(target=watch.ask_for_ever, daemon=True)
    asking.start()
    try:
        watch.settle()
        yield watch
    finally:
        watch.end()
        asking.join()
        product.serving("down")
