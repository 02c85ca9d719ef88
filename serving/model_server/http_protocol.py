"""uvicorn's HTTP protocol with limits on headers, on the number of connections and on the time that they may stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.model_server.limits import Limits
from serving.model_server.refusals import Refusals

CHECK_INTERVAL_S: Final = 1.0
ON_GONE: Final = "mnist_tfx.on_gone"
"""Key of the scope for a function that is called when the client closes the connection, or its half of it (True)."""
HALF_CLOSED: Final = "mnist_tfx.half_closed"
"""Key of the scope: the client has closed its half of the connection."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Its headers are refused with 431 when they are too many or too long.

    A client that has closed its half of the connection after a request still gets the response.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._open, self._limits = connections, connections.limits
        self._cycles: list[RequestResponseCycle] = []  # without a response yet: several if the client pipelines
        self._header_bytes = 0
        self._in_headers = self._too_large = False
        self.since_s = time.monotonic()  # when the current headers began to arrive, or the last request ended
        self.paused_s = float("inf")  # since when the client takes no response

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._disconnect()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open until the responses are written, if no request is incomplete."""
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        if not self._cycles or self._cycles[-1].more_body or self._in_headers:
            self._disconnect()
            return False
        self._cycles[-1].keep_alive = False
        for cycle in self._cycles:
            cast(dict[str, Any], cycle.scope)[HALF_CLOSED] = True
            _notify(cycle, half_closed=True)
        return True

    def _disconnect(self) -> None:
        """The transport is closing: nothing may be written from now on."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
            _notify(cycle, half_closed=False)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:  # still: for headers that arrive in pieces
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.header_bytes and not self.transport.is_closing():
                self._too_large = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._header_bytes, self.since_s = True, 0, time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self._limits.headers:
            self._too_large = True
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.header_bytes:
            self._too_large = True
            raise ValueError("headers too large")
        super().on_headers_complete()
        self._cycles = [*(cycle for cycle in self._cycles if not cycle.response_complete), self.cycle]

    def on_response_complete(self) -> None:
        self.since_s = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self.paused_s = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused_s = float("inf")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._disconnect()
        if not self._too_large:
            super().send_400_response(msg)
            return
        self._open.refusals.count("headers")
        self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def is_waiting(self) -> bool:
        """Return whether no request is being processed: the connection is idle, or headers are still arriving."""
        return self.cycle is None or self.cycle.response_complete


def _notify(cycle: RequestResponseCycle, half_closed: bool) -> None:
    on_gone: Callable[[bool], None] | None = cast(dict[str, Any], cycle.scope).get(ON_GONE)
    if on_gone is not None:
        on_gone(half_closed)


class Connections:
    """All open connections of a server."""

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self.limits, self.refusals = limits, refusals
        self._open: dict[LimitedProtocol, None] = {}  # oldest first

    def add(self, connection: LimitedProtocol) -> None:
        """Add a new connection. If there are too many, the one that has been waiting for longest makes room."""
        self._open[connection] = None
        if len(self._open) > self.limits.connections:
            self.refusals.count("connections")
            waiting = [known for known in self._open if known.is_waiting()]
            min(waiting, key=lambda known: known.since_s).transport.abort()

    def discard(self, connection: LimitedProtocol) -> None:
        self._open.pop(connection, None)

    async def watch(self) -> None:
        """Close connections that stall, forever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            limit_s = time.monotonic() - self.limits.receive_s
            for connection in list(self._open):
                if connection.paused_s < limit_s:
                    self.refusals.count("response_timeout")
                    connection.transport.abort()
                elif connection.is_waiting() and connection.since_s < limit_s:
                    self.refusals.count("receive_timeout")
                    connection.transport.abort()
