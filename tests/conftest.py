"""Shared fixtures: a synthetic data set, and the command line as a user runs it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.done import Done
from tests.support.module_host import ModuleHost
from tests.support.synthetic import write_data_set

ROOT = Path(__file__).resolve().parent.parent


def pipeline_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline", *map(str, arguments)]


# Nothing responds there: a request to this machine must not go through a proxy.
DEAD_PROXIES = {
    spelled: "http://127.0.0.1:9"
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    for spelled in (name, name.upper())
}


def environment() -> dict[str, str]:
    """The environment of the commands. Their server is the embedded one, even if there is an engine with its image."""
    omitted = ("MNIST_TFX_HOME", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # make sets the last three if it runs the tests
    inherited = {"SERVING_BACKEND": "embedded"} | {k: v for k, v in os.environ.items() if k not in omitted}
    return inherited | {"COLUMNS": "200"} | DEAD_PROXIES


Pipeline = Callable[..., Done]


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Runs `python -m pipeline ...` from a checkout (by default this one), in a fork of a host process."""
    host = ModuleHost(environment())
    folder = tmp_path_factory.mktemp("output")
    numbers = itertools.count()

    def run(*arguments: str | Path, cwd: Path = ROOT) -> Done:
        number = next(numbers)
        stdout, stderr = folder / f"{number}.out", folder / f"{number}.err"
        code = host.run("pipeline", [str(a) for a in arguments], cwd, environment(), stdout, stderr)
        return Done(code, stdout.read_text(), stderr.read_text())

    yield run
    host.close()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 + 300 synthetic digits as IDX files. Read-only: shared by all tests."""
    return write_data_set(tmp_path_factory.mktemp("data"))


def quick(data: Path, home: Path, *more: str) -> Sequence[str]:
    """Arguments of a small, fast `run`, without a container."""
    arguments = ["run", "--json", "--config", str(ROOT / "configs" / "quick.toml"), "--home", str(home)]
    return [*arguments, "--set", f"data.source={data}", "--set", "serving.backend=embedded", *more]
