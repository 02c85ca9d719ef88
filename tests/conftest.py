"""Shared fixtures: a synthetic data set, and the command line as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthetic import write_data_set

ROOT = Path(__file__).resolve().parent.parent
RUN_TIMEOUT_S = 300


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        (line,) = self.stdout.splitlines()  # with --json there is nothing else on stdout
        value: dict[str, Any] = json.loads(line)
        return value

    @property
    def states(self) -> dict[str, str]:
        return {node["id"]: node["state"] for node in self.json["nodes"]}


def pipeline_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MNIST_TFX_HOME"} | {"COLUMNS": "200"}


Pipeline = Callable[..., Done]


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    """Runs `python -m pipeline ...` from a checkout (this one unless `cwd` says otherwise)."""

    def run(*arguments: str | Path, cwd: Path = ROOT) -> Done:
        command = pipeline_command(*arguments)
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 + 300 synthetic digits as IDX files. Read only: shared by all tests."""
    return write_data_set(tmp_path_factory.mktemp("data"))


def quick(data: Path, home: Path, *more: str) -> Sequence[str]:
    """Arguments of a small, fast `run`."""
    config = str(ROOT / "configs" / "quick.toml")
    return ["run", "--json", "--config", config, "--home", str(home), "--set", f"data.source={data}", *more]
