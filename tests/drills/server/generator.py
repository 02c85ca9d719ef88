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

import aiohttp
import grpc
import numpy as np

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


@asynccontextmanager
async def rest_sender(port: int, images: int) -> AsyncIterator[Send]:
    body = json.dumps({"instances": np.zeros((images, 28, 28), int).tolist()}).encode()
    url = f"http://{HOST}:{port}/v1/models/{contract.MODEL_NAME}:predict"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(_: int, timeout_s: float) -> str:
            try:
                async with session.post(url, data=body, timeout=aiohttp.ClientTimeout(timeout_s)) as response:
                    await response.read()
                    return "OK" if response.status == 200 else str(response.status)
            except TimeoutError:
                return "timeout"
            except aiohttp.ClientError as e:
                return type(e).__name__

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
    asyncio.run(main(kind, int(numbers[0]), float(numbers[1]), float(numbers[2]), int(numbers[3])))
