"""500 clients with short deadlines.

    python -m tests.drills.server.generator grpc|rest PORT SECONDS REQUESTS_PER_S IMAGES

A process of its own, so that it does not delay the well-behaved client. Prints its result as JSON. At REQUESTS_PER_S 0
it measures the capacity: a closed loop of 16 clients without deadlines.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import numpy as np
import uvloop

from benchmarks.harness import HOST
from benchmarks.serving.clients import PREDICT, encoded_request
from components.common import contract

CLIENTS: Final = 500
CLOSED_CLIENTS: Final = 16
CHANNELS: Final = 20
DEADLINE_S: Final = 0.1
Send = Callable[[int, float], Awaitable[str]]
"""(client, timeout in seconds) -> name of the code."""


@asynccontextmanager
async def grpc_sender(port: int, images: int) -> AsyncIterator[Send]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) for _ in range(CHANNELS)]
    calls = [channel.unary_unary(PREDICT) for channel in channels]
    content = encoded_request(images)

    async def send(client: int, timeout_s: float) -> str:
        try:
            await calls[client % CHANNELS](content, timeout=timeout_s)
        except grpc.aio.AioRpcError as e:
            return str(e.code().name)
        return "OK"

    try:
        yield send
    finally:
        for channel in channels:
            await channel.close()


class RestConnection(asyncio.Protocol):
    """Sends prepared requests over a kept connection: much cheaper than an HTTP library."""

    def __init__(self) -> None:
        self._received, self._status = b"", asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if (
            end
            and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0])
            and not self._status.done()
        ):
            self._status.set_result(head[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self._status.done():
            self._status.set_exception(error or EOFError())

    async def ask(self, request: bytes) -> str:
        """Return the status code of the response."""
        self._received, self._status = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return str(await self._status)


@asynccontextmanager
async def rest_sender(port: int, images: int) -> AsyncIterator[Send]:
    """Each client has a connection, which it closes at its deadline, like every HTTP library."""
    body = json.dumps({"instances": np.zeros((images, 28, 28), int).tolist()}).encode()
    head = (
        f"POST /v1/models/{contract.MODEL_NAME}:predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request, loop = head.encode() + body, asyncio.get_running_loop()
    connections: dict[int, RestConnection] = {}

    async def send(client: int, timeout_s: float) -> str:
        connection = connections.pop(client, None)
        try:
            async with asyncio.timeout(timeout_s):
                if connection is None or connection.transport.is_closing():
                    _, connection = await loop.create_connection(RestConnection, HOST, port)
                status = await connection.ask(request)
        except (TimeoutError, OSError, EOFError) as e:
            if connection is not None:
                connection.transport.abort()
            return "timeout" if isinstance(e, TimeoutError) else type(e).__name__
        connections[client] = connection
        return "OK" if status == "200" else status

    yield send


async def closed_loop(send: Send, seconds: float) -> dict[str, Any]:
    done, started = Counter[str](), time.monotonic()

    async def client(number: int) -> None:
        while time.monotonic() < started + seconds:
            done[await send(number, 60)] += 1

    await asyncio.gather(*(client(n) for n in range(CLOSED_CLIENTS)))
    return {"codes": dict(done), "ok_per_s": round(done["OK"] / (time.monotonic() - started), 1)}


async def open_loop(send: Send, seconds: float, requests_per_s: float) -> dict[str, Any]:
    """Each client sends at its own times, whether or not the server keeps up; one request at a time."""
    done, started = Counter[str](), time.monotonic()
    interval_s = CLIENTS / requests_per_s

    async def client(number: int) -> None:
        due = started + random.random() * interval_s
        while due < started + seconds:
            await asyncio.sleep(due - time.monotonic())
            done[await send(number, DEADLINE_S)] += 1
            due = max(due + interval_s, time.monotonic())

    await asyncio.gather(*(client(n) for n in range(CLIENTS)))
    return {
        "codes": dict(done),
        "ok_per_s": round(done["OK"] / seconds, 1),
        "sent_per_s": round(sum(done.values()) / seconds, 1),
    }


async def main(protocol: str, port: int, seconds: float, requests_per_s: float, images: int) -> None:
    async with (grpc_sender if protocol == "grpc" else rest_sender)(port, images) as send:
        run = open_loop(send, seconds, requests_per_s) if requests_per_s else closed_loop(send, seconds)
        outcome = await run
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**outcome, "generator_cpu_s": round(used.ru_utime + used.ru_stime, 1)}))


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    uvloop.run(main(kind, int(numbers[0]), float(numbers[1]), float(numbers[2]), int(numbers[3])))
