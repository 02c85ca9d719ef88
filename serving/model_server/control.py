"""HandleReloadConfigRequest: who may change what is served, on a thread of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
from collections.abc import Iterable
from typing import Final

from serving.model_server.errors import Code, ServingError
from serving.model_server.service import Service
from serving.protocol import serving_pb2 as pb

MAX_WAITING: Final = 8  # reloads; they are applied one after the other


class Control:
    """Applies reloads one at a time.

    Args:
        allowed: whether the RPC is on.
        proven_only: whether base paths must be among those that the server was configured with.
        timeout_s: maximum time for the new models to become available.
    """

    def __init__(self, service: Service, *, allowed: bool, proven_only: bool, timeout_s: float) -> None:
        self._service, self._allowed, self._proven_only, self._timeout_s = service, allowed, proven_only, timeout_s
        self._configured: set[str] = set()
        self._lock = threading.Lock()  # held by the thread that applies a reload
        self._waiting = 0

    def configured(self, configs: Iterable[pb.ModelConfig]) -> None:
        """Record the models of the flags or of the config file: their base paths are allowed."""
        self._configured |= {os.path.realpath(config.base_path) for config in configs}

    async def reload(self, request: pb.ReloadConfigRequest, timeout_s: float | None) -> pb.ReloadConfigResponse:
        """Replace the list of models. Raises ServingError."""
        if not self._allowed:
            raise ServingError(
                Code.PERMISSION_DENIED, "HandleReloadConfigRequest is off: start with --allow_reload=true"
            )
        if self._proven_only:
            for config in request.config.model_config_list.config:
                if "\0" in config.base_path or os.path.realpath(config.base_path) not in self._configured:
                    raise ServingError(
                        Code.PERMISSION_DENIED,
                        f"Base path of model {config.name} is not one of the configured ones (--proven_only)",
                    )
        if self._waiting >= MAX_WAITING:
            raise ServingError(Code.UNAVAILABLE, f"{MAX_WAITING} reloads are waiting")
        timeout_s = min(self._timeout_s, timeout_s) if timeout_s is not None else self._timeout_s
        loop = asyncio.get_running_loop()
        future: asyncio.Future[pb.ReloadConfigResponse] = loop.create_future()

        def apply() -> None:
            response, error = None, None
            try:
                if not self._lock.acquire(timeout=timeout_s):
                    raise ServingError(Code.DEADLINE_EXCEEDED, "Another reload is still being applied")
                try:
                    response = self._service.reload(request, timeout_s)
                finally:
                    self._lock.release()
            except ServingError as e:
                error = e
            except Exception as e:
                error = ServingError(Code.INTERNAL, f"{type(e).__name__}: {e}")
            loop.call_soon_threadsafe(deliver, response, error)

        def deliver(response: pb.ReloadConfigResponse | None, error: ServingError | None) -> None:
            self._waiting -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            elif response is not None:
                future.set_result(response)

        self._waiting += 1
        threading.Thread(target=apply, name="reload", daemon=True).start()
        return await future


def is_loopback(address: str) -> bool:
    """Return whether an address to bind to is reachable from this machine only."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
