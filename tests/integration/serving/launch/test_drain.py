"""Waiting for the requests in flight, as `down` does for TensorFlow Serving."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from serving.launch.drain import drain
from tests.integration.serving.conftest import Start
from tests.support.servers import model_config


def test_a_request_in_flight_is_answered_before_the_end_of_the_drain(start: Start, models: Path) -> None:
    server = start(model_config("mnist", models / "slow"))
    ended: list[Any] = []

    def ask() -> None:
        response = server.predict("mnist", {"milliseconds": np.int64(500)})  # sleeps twice
        ended.append((time.monotonic(), response.outputs["slept"].int64_val[0]))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    drain(server.port)
    drained = time.monotonic()
    asking.join()
    ((answered, value),) = ended
    assert value == 500
    assert answered < drained


def test_a_server_that_does_not_respond_is_not_waited_for() -> None:
    started = time.monotonic()
    drain(1)
    assert time.monotonic() - started < 5
