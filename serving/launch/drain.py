"""Waits for the requests in flight before a server is stopped. TensorFlow Serving itself exits at once on SIGTERM."""

from __future__ import annotations

import sys
import time
from typing import Final

from components.common.errors import UserError
from serving.client.control import Control
from serving.client.errors import NotFound, Unavailable

DRAIN_TIMEOUT_S: Final = 30.0  # as long as a REST request may take
SETTLE_S: Final = 0.3  # a response is sent after its model is released
POLL_S: Final = 0.05


def drain(grpc_port: int) -> None:
    """Have a server unload all models: it accepts no new requests, and unloads a model after its last request.

    Returns after DRAIN_TIMEOUT_S at most, and at once if the server's port is closed.
    """
    try:
        with Control(grpc_port) as control:
            control.reload("model_config_list {}")
            deadline = time.monotonic() + DRAIN_TIMEOUT_S
            while any(version.state != "END" for version in control.versions().values()):
                if time.monotonic() > deadline:
                    print(f"requests still running after {DRAIN_TIMEOUT_S:.0f} s are lost", file=sys.stderr)
                    return
                time.sleep(POLL_S)
    except (NotFound, Unavailable):
        pass
    except UserError as e:
        print(f"requests in flight may be lost: {e.problem}", file=sys.stderr)
    time.sleep(SETTLE_S)
