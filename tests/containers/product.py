"""The product's commands, as a user runs them, and the slow model that makes requests take a while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from tensorflow.python.data.experimental.ops.testing import sleep

from components.common import ROOT
from components.common.container_engine import call
from components.common.ports import free_port
from components.versions.release import pushed_versions
from serving.launch.container import LABEL, Container
from tests.support.done import Done
from tests.support.pushed import push

TIMEOUT_S: Final = 600


class SlowModel(tf.Module):
    """Takes as long as the first number of the request says, twice, and returns the numbers."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "milliseconds")])
    def serve(self, milliseconds: tf.Tensor) -> dict[str, tf.Tensor]:
        data_set = tf.data.Dataset.range(1).apply(sleep(1000 * milliseconds[0]))
        slept = data_set.reduce(tf.constant(0, tf.int64), lambda _, value: value)
        return {"slept": slept + milliseconds}


@dataclass(frozen=True)
class Home:
    """A home with its ports, and the engine that the product uses."""

    path: Path
    data: Path
    engine: str
    grpc_port: int
    rest_port: int

    @classmethod
    def make(cls, path: Path, data: Path, engine: str) -> Home:
        path.mkdir(parents=True)
        return cls(path.resolve(), data, engine, free_port(), free_port())

    @property
    def container(self) -> Container:
        return Container.of(self.engine, self.path)

    def containers(self) -> int:
        """Return how many containers of this home and its validations exist, running or not."""
        owners = self.path, self.path / "artifacts" / "InfraValidator" / "blessing"
        found = (call(self.engine, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={owner}") for owner in owners)
        return sum(len(ids.split()) for ids in found)

    def up_command(self, *more: str | Path) -> list[str]:
        ports = ["--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port)]
        return [sys.executable, "-m", "serving", "up", "--home", str(self.path), *ports, *map(str, more)]

    def run_command(self, *settings: str) -> list[str]:
        chosen = [f"data.source={self.data}", "serving.backend=container", *settings]
        options = [word for setting in chosen for word in ("--set", setting)]
        command = [sys.executable, "-m", "pipeline", "run", "--config", str(ROOT / "configs" / "quick.toml"), "--json"]
        return [*command, "--home", str(self.path), *options]

    def up(self, *more: str | Path) -> Done:
        return run(self.up_command(*more))

    def serving(self, command: str, *more: str | Path) -> Done:
        return run([sys.executable, "-m", "serving", command, *map(str, more), "--home", str(self.path)])

    def pipeline(self, *settings: str) -> Done:
        return run(self.run_command(*settings))

    def versions(self) -> list[int]:
        return pushed_versions(self.path)

    def push_slow_model(self) -> None:
        model = SlowModel()
        source = self.path / "exported"
        tf.saved_model.save(model, str(source), signatures={"serving_default": model.serve})
        push(self.path, 1, source)

    def ask_slow_model(self, milliseconds: int) -> str:
        """Return the prediction of the slow model, over REST."""
        body = json.dumps({"instances": [milliseconds]}).encode()
        url = f"http://127.0.0.1:{self.rest_port}/v1/models/mnist:predict"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as response:
            return str(json.load(response)["predictions"])


def environment() -> Mapping[str, str]:
    hidden = ("MNIST_TFX_HOME", "SERVING_BACKEND")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"COLUMNS": "200"}


def run(command: list[str]) -> Done:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def launch(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in its own session, so that it can be killed as a whole."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True, **(quiet | options))
