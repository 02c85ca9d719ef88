"""TCP ports on loopback, and the state of a model server on one."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final

from components.common import contract

GRPC_PORT: Final = 8500  # of a server, unless others are named
REST_PORT: Final = 8501


def free_port() -> int:
    """Return a free loopback port. Another process may take it before the caller does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def version_states(rest_port: int, timeout_s: float = 2.0) -> list[dict[str, Any]]:
    """Versions that the server reports over REST, newest first; [] while it does not respond. Never uses a proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=timeout_s)
    try:
        connection.request("GET", f"/v1/models/{contract.MODEL_NAME}")
        states: list[dict[str, Any]] = json.load(connection.getresponse())["model_version_status"]
        return states
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return []
    finally:
        connection.close()
