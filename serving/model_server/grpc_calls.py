"""gRPC calls that stall: messages that do not arrive, and responses that the client does not take."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import grpc
from grpc._cython import cygrpc

from serving.model_server.errors import Code, ServingError
from serving.model_server.limits import Limits
from serving.model_server.refusals import Refusals

STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
CHECK_INTERVAL_S: Final = 1.0


class Calls:
    """All calls of a server. Its methods are for handlers of calls with a stream of requests, of which there is one.

    Only such a handler runs before the message has been received, and can end a call whose message does not arrive.
    """

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self._receive_s, self._refusals = limits.receive_s, refusals
        self._arriving: dict[asyncio.Task[Any], float] = {}  # -> since when
        self._ended: dict[asyncio.Task[Any], ServingError] = {}  # why a task of `_arriving` was cancelled
        self._sending: dict[Any, float] = {}  # context -> since when its response waits for the client
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_client)

    async def receive(self, context: Any) -> bytes:
        """Return the message of a call. Raises ServingError if it does not arrive in time, or if memory is short."""
        task = asyncio.current_task()
        assert task is not None
        self._arriving[task] = time.monotonic()
        try:
            content = await context.read()
        except asyncio.CancelledError:
            error = self._ended.pop(task, None)
            if error is None:
                raise
            task.uncancel()
            raise error from None
        finally:
            self._arriving.pop(task, None)
        if content is grpc.aio.EOF:
            raise ServingError(Code.INTERNAL, "The call has no message")
        return bytes(content)

    def send(self, context: Any) -> None:
        """The response of a call is about to be sent. Call `sent` when the client has taken it, or has gone."""
        self._sending[context] = time.monotonic()

    def sent(self, context: Any) -> None:
        self._sending.pop(context, None)

    def is_idle(self) -> bool:
        return not self._arriving and not self._sending

    def end_arriving(self) -> None:
        """End the calls whose message has not arrived."""
        for task in list(self._arriving):
            self._end(task, "arriving_bytes", Code.UNAVAILABLE, "The server has too many unfinished requests")

    async def watch(self) -> None:
        """End calls whose message does not arrive in time, and connections that take no responses, forever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            limit_s = time.monotonic() - self._receive_s
            for task in [task for task, since_s in self._arriving.items() if since_s < limit_s]:
                self._end(task, "receive_timeout", Code.DEADLINE_EXCEEDED, "The request did not arrive in time")
            for context in [context for context, since_s in self._sending.items() if since_s < limit_s]:
                self.sent(context)
                self._refusals.count("response_timeout")
                _close_connection(context.peer())  # gRPC's library cannot end a call whose response it is sending

    def _end(self, task: asyncio.Task[Any], reason: str, code: Code, message: str) -> None:
        if self._arriving.pop(task, None) is not None:
            self._refusals.count(reason)
            self._ended[task] = ServingError(code, message)
            task.cancel()


def _is_not_of_client(record: logging.LogRecord) -> bool:
    """Return False for gRPC's traceback of a client that has left while its response was sent."""
    return not (record.exc_info and record.exc_info[0] is cygrpc.ExecuteBatchError)


def _close_connection(peer: str) -> None:
    """Close the connection to a client, named as gRPC does: ipv4:ADDRESS:PORT or ipv6:[ADDRESS]:PORT."""
    family, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    wanted = (host.strip("[]"), int(port)) if family in ("ipv4", "ipv6") and port.isdecimal() else None
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as connection:  # OSError: not a socket
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                found = connection.getpeername()
                if (found[0].removeprefix("::ffff:"), found[1]) == wanted:
                    connection.shutdown(socket.SHUT_RDWR)
