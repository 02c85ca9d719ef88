"""Send half a million requests and measure the embedded server's memory.

    python -m benchmarks.serving.soak      (about 6 minutes; needs a pushed model in workspace/)

Writes build/bench_serving_soak.json.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

import grpc
import psutil

from benchmarks import harness
from benchmarks.serving.clients import closed_loop, embedded_server, encoded_request, grpc_call

WARM_UP: Final = 20_000  # requests before memory is read for the first time
READ_EVERY: Final = 50_000  # requests
CLIENTS: Final = 16


async def soak(port: int, server: psutil.Process, requests: int) -> dict[str, object]:
    encoded = encoded_request()
    sent = failed = 0
    memory_bytes: list[int] = []  # resident

    async with grpc_call(port) as call:

        async def send() -> None:
            nonlocal sent, failed
            sent += 1
            number = sent
            try:
                await call(encoded)
            except grpc.aio.AioRpcError:
                failed += 1
            if number == min(WARM_UP, requests) or number % READ_EVERY == 0:
                memory_bytes.append(server.memory_info().rss)
                print(f"{number:,} requests, {memory_bytes[-1] / 1024**2:.1f} MB", flush=True)

        started = time.perf_counter()
        await closed_loop(send, CLIENTS, lambda: sent < requests)
        seconds = time.perf_counter() - started
    first, last = memory_bytes[0], server.memory_info().rss
    return {
        "requests": sent,
        "failed": failed,
        "seconds": round(seconds, 1),
        "memory_after_warm_up_bytes": first,
        "memory_at_end_bytes": last,
        "growth": round(last / first - 1, 4),
        "threads_at_end": server.num_threads(),
    }


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--requests", type=int, default=500_000)
    options = parser.parse_args()
    with embedded_server(harness.pushed_model(options.home).parent) as (process, port):
        result = asyncio.run(soak(port, psutil.Process(process.pid), options.requests))
    print(json.dumps(result, indent=1))
    harness.write_result("bench_serving_soak.json", result)


if __name__ == "__main__":
    main()
