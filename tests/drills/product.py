"""The product as an operator uses it: its commands, and their results in a home."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.harness import pipeline_command
from components.common import ROOT, contract
from components.common.errors import UserError
from components.versions import manifest, release
from tests.conftest import environment
from tests.support.done import Done

RUN_TIMEOUT_S: Final = 600
UNFINISHED_STATES: Final = (1, 2)  # NEW and RUNNING of MLMD's Execution.State
DEFAULT_THRESHOLDS: Final = ("gate.min_accuracy=0.9", "gate.min_class_recall=0.9", "gate.max_accuracy_drop=0.05")


def settings(*assignments: str) -> list[str]:
    """Return arguments of `pipeline run`: the thresholds for drills, and further settings."""
    return [word for assignment in (*DEFAULT_THRESHOLDS, *assignments) for word in ("--set", assignment)]


@dataclass(frozen=True)
class Product:
    """A home, with configs/quick.toml and the IDX files in the folder `data`."""

    home: Path
    data: Path

    @property
    def base(self) -> Path:
        """The folder of the versions."""
        return self.home / "serving_model" / contract.MODEL_NAME

    def run(self, *arguments: str, data: Path | None = None, checkout: Path = ROOT) -> Done:
        """`python -m pipeline run` with the source in `checkout`."""
        return _finished(self.run_command(*arguments, data=data), checkout)

    def start_run(self, *arguments: str) -> subprocess.Popen[str]:
        """`python -m pipeline run` in the background."""
        return subprocess.Popen(
            self.run_command(*arguments),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def validate(self) -> Done:
        """`python -m pipeline validate`"""
        return _finished([sys.executable, "-m", "pipeline", "validate", "--json", "--home", str(self.home)])

    def up(self, grpc_port: int, rest_port: int) -> Done:
        """Start the embedded server."""
        ports = ("--grpc-port", str(grpc_port), "--rest-port", str(rest_port))
        return self._serving("up", "--json", "--backend", "embedded", *ports)

    def down(self) -> Done:
        """Stop the server."""
        return self._serving("down")

    def versions(self) -> list[int]:
        return release.pushed_versions(self.home)

    def tampered_versions(self) -> list[str]:
        """Return how versions differ from what was blessed and pushed; [] if none differs."""
        problems = []
        for version in self.versions():
            try:
                manifest.verify(self.base / str(version))
            except UserError as e:
                problems.append(e.problem)
        return problems

    def recorded_versions(self) -> set[int]:
        """Return the versions whose push is recorded in MLMD."""
        with closing(sqlite3.connect(self.home / "metadata.sqlite")) as database:
            rows = database.execute("SELECT string_value FROM ArtifactProperty WHERE name = 'pushed_version'")
            return {int(text) for (text,) in rows if text}

    def unfinished_executions(self) -> int:
        """Return the executions that MLMD records as new or running."""
        with closing(sqlite3.connect(self.home / "metadata.sqlite")) as database:
            marks = ",".join("?" * len(UNFINISHED_STATES))
            query = f"SELECT count(*) FROM Execution WHERE last_known_state IN ({marks})"
            (count,) = database.execute(query, UNFINISHED_STATES).fetchone()
            return int(count)

    def leftover_processes(self) -> list[int]:
        """Return the IDs of processes that use this home's artifacts, such as InfraValidator's server."""
        artifacts = str(self.home / "artifacts")
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and any(artifacts in word for word in process.cmdline()):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def run_logs(self) -> set[Path]:
        """Return the log folders of the runs so far. A node's file appears in them when the node starts."""
        return {path for path in self.home.glob("logs/*") if path.is_dir() and path.name != "validate"}

    def run_command(self, *arguments: str, data: Path | None = None) -> list[str]:
        """The words of `python -m pipeline run` in this home."""
        chosen = ("--set", f"data.source={data or self.data}", "--set", "serving.backend=embedded")
        return pipeline_command(self.home, "--json", "--config", "configs/quick.toml", *chosen, *arguments)

    def _serving(self, command: str, *arguments: str) -> Done:
        return _finished([sys.executable, "-m", "serving", command, "--home", str(self.home), *arguments])


def _finished(command: list[str], folder: Path = ROOT) -> Done:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    return Done(done.returncode, done.stdout, done.stderr)
