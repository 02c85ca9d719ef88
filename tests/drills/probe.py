"""A client that sends requests continuously while a fault is injected, and checks every response."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks.harness import wait_until
from components.common import contract
from components.common.errors import UserError
from components.common.ports import free_port
from components.data import idx
from components.versions import manifest
from serving.client import connect
from tests.drills.product import Product
from tests.support.done import Done

PAUSE_S: Final = 0.05  # between two requests
TOLERANCE: Final = 1e-5
IMAGES_PER_REQUEST: Final = 8


@dataclass
class Probe:
    """The client, and the server of the home. Requests have no label.

    Attributes:
        served: versions in the order in which they began to answer.
        violations: responses from a version that was not blessed and complete when it first answered, or that differ
            from an earlier response of the same version.
        failures: messages of requests that failed.
        answered: number of requests that were answered.
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
    _sending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def now(self) -> int | None:
        """The version of the latest response."""
        return self.served[-1] if self.served else None

    def settle(self) -> None:
        """Wait until a few more requests have been answered or have failed."""
        before = self.answered + len(self.failures)
        wait_until(lambda: self.answered + len(self.failures) >= before + 5)

    def is_served(self, version: int) -> bool:
        """Return whether this version responds, now or a little later."""
        return wait_until(lambda: self.now == version)

    def restart(self) -> Done:
        """Stop the server and start it again, as an operator does. No requests are sent in the meantime."""
        with self._sending:
            self.product.down()
            return self.product.up(self.grpc_port, self.rest_port)

    def send_requests(self) -> None:
        """Send requests until `end` is called."""
        images = idx.read_images(idx.locate(self.product.data).test_images)[:IMAGES_PER_REQUEST]
        while not self._ended.wait(PAUSE_S):
            with self._sending, connect(f"127.0.0.1:{self.grpc_port}", attempts=1) as client:
                try:
                    response = client.predict({contract.IMAGES: images}, model=contract.MODEL_NAME)
                except UserError as e:
                    self.failures.append(str(e))
                    continue
            self._check(response.version, response.outputs[contract.PROBABILITIES])
            self.answered += 1

    def end(self) -> None:
        self._ended.set()

    def _check(self, version: int, probabilities: Any) -> None:
        if version not in self._known:
            self._known[version] = probabilities
            try:
                manifest.verify(self.product.base / str(version))
            except UserError as e:
                self.violations.append(f"version {version} answered: {e.problem}")
        difference = float(np.abs(probabilities - self._known[version]).max())
        if not difference <= TOLERANCE:  # also true of NaN
            self.violations.append(f"version {version} changed its answers by {difference:g}")
        if version != self.now:
            self.served.append(version)


@contextmanager
def probing(product: Product) -> Iterator[Probe]:
    """Serve the home with the embedded server, and send requests."""
    probe = Probe(product)
    up = product.up(probe.grpc_port, probe.rest_port)
    if up.code:
        raise RuntimeError(up.stderr)
    sender = threading.Thread(target=probe.send_requests, daemon=True)
    sender.start()
    try:
        probe.settle()
        yield probe
    finally:
        probe.end()
        sender.join()
        product.down()
