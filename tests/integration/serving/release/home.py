"""A home with a running server, for the tests in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.common.ports import free_port
from serving.client import Client, connect
from serving.launch import server
from serving.launch.backends import Setup

IMAGE = np.zeros((1, 28, 28), np.uint8)


@dataclass(frozen=True)
class Home:
    """A home with a server; `stop` and `start` restart it on other ports."""

    path: Path
    backend: str
    model: Path

    def start(self) -> None:
        server.start(Setup(self.path, free_port(), free_port()), self.backend)

    def stop(self) -> None:
        server.stop(self.path)

    def client(self) -> Client:
        return connect(f"127.0.0.1:{server.require(self.path).grpc_port}")

    def served(self) -> tuple[int, int, int]:
        """Return the versions that respond to the label stable, to canary, and without a label."""
        with self.client() as client:
            stable, canary, unlabelled = (
                client.predict({"images": IMAGE}, model="mnist", label=label).version
                for label in ("stable", "canary", None)
            )
        return stable, canary, unlabelled

    def newest(self) -> int:
        """Return the version that responds without a label."""
        with self.client() as client:
            return client.predict({"images": IMAGE}, model="mnist").version
