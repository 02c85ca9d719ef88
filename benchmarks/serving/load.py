"""Throughput and latency of the embedded server, beside a no-op gRPC server (the ceiling) and a FastAPI service.

    python -m benchmarks.serving.load      (about 4 minutes; needs a pushed model in workspace/)

Closed loop: each of N clients sends its next request when the previous one is answered. Servers and load generator
share this machine's cores, so ratios are more meaningful than absolute numbers. Writes build/bench_serving.json.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np

from benchmarks import harness
from benchmarks.serving.clients import closed_loop, embedded_server, encoded_request, grpc_call, percentiles_ms
from components.common import contract, resources
from components.common.ports import free_port

CLIENTS: Final = (1, 8, 64)
BATCHES: Final = (1, 64)
WARM_UP_S: Final = 1.0


async def timed(send: Callable[[], Awaitable[Any]], clients: int, seconds: float) -> dict[str, float]:
    """Requests per second and latencies in a closed loop, after a warm-up."""
    latencies_s: list[float] = []
    start_s = time.perf_counter() + WARM_UP_S
    end_s = start_s + seconds

    async def send_timed() -> None:
        began_s = time.perf_counter()
        await send()
        if began_s >= start_s:
            latencies_s.append(time.perf_counter() - began_s)

    await closed_loop(send_timed, clients, lambda: time.perf_counter() < end_s)
    return {"requests_per_s": round(len(latencies_s) / seconds, 1), **percentiles_ms(latencies_s)}


async def grpc_load(port: int, batch: int, clients: int, seconds: float) -> dict[str, float]:
    encoded = encoded_request(batch)
    async with grpc_call(port) as call:
        return await timed(lambda: call(encoded), clients, seconds)


async def http_load(url: str, batch: int, clients: int, seconds: float) -> dict[str, float]:
    body = json.dumps({"instances": np.zeros((batch, 28, 28), int).tolist()}).encode()
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:

        async def send() -> None:
            async with session.post(url, data=body) as response:
                response.raise_for_status()
                await response.read()

        return await timed(send, clients, seconds)


def measure(model: Path, seconds: float) -> dict[tuple[int, int], dict[str, dict[str, float]]]:
    """{(batch, clients): {server: figures}}. All servers are measured in turn for each load, under equal conditions."""
    noop_port, rest_port, fastapi_port = (free_port() for _ in range(3))
    with (
        harness.running("-m", "benchmarks.serving.servers", "noop", str(noop_port)),
        embedded_server(model.parent, f"--rest_api_port={rest_port}") as (_, grpc_port),
        harness.running("-m", "benchmarks.serving.servers", "fastapi", str(fastapi_port), str(model)),
    ):
        for port in (noop_port, rest_port, fastapi_port):
            harness.wait_for_port(port)
        rest_url = f"http://{harness.HOST}:{rest_port}/v1/models/{contract.MODEL_NAME}:predict"
        cells = {}
        for batch in BATCHES:
            for clients in CLIENTS:
                size = (batch, clients, seconds)
                cells[batch, clients] = {
                    "no-op gRPC": asyncio.run(grpc_load(noop_port, *size)),
                    "embedded gRPC": asyncio.run(grpc_load(grpc_port, *size)),
                    "embedded REST": asyncio.run(http_load(rest_url, *size)),
                    "FastAPI": asyncio.run(http_load(f"http://{harness.HOST}:{fastapi_port}/predict", *size)),
                }
                print(f"batch {batch}, {clients} clients: {cells[batch, clients]}", flush=True)
        return cells


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    options = parser.parse_args()
    cells = measure(harness.pushed_model(options.home), options.seconds)
    rows = [
        {"server": server, "batch": batch, "clients": clients, **figures}
        for (batch, clients), cell in cells.items()
        for server, figures in cell.items()
    ]
    ratios = {}
    for (batch, clients), cell in cells.items():
        embedded = cell["embedded gRPC"]["requests_per_s"]
        ratios[f"batch {batch}, {clients} clients"] = {
            f"of {name}": round(embedded / cell[server]["requests_per_s"], 2)
            for name, server in (("no-op", "no-op gRPC"), ("FastAPI", "FastAPI"))
        }
    print(json.dumps(ratios, indent=1))
    document = {"rows": rows, "embedded_grpc": ratios, "seconds": options.seconds, "cores": resources.cores()}
    harness.write_result("bench_serving.json", document)


if __name__ == "__main__":
    main()
