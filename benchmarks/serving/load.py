"""Throughput and latency of the embedded server, beside a no-op gRPC server (the ceiling) and a FastAPI service.

    python -m benchmarks.serving.load      (about 4 minutes; needs a pushed model in workspace/)

Closed loop: each of N clients sends its next request when the last was answered. All on this machine's cores, load
generator included, so ratios say more than figures. Writes build/bench_serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import grpc
import numpy as np

from serving.launch.backends import DEPLOY
from serving.launch.server import free_port
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULT_FILE: Final = REPOSITORY / "build" / "bench_serving.json"
PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
CLIENTS: Final = (1, 8, 64)
BATCHES: Final = (1, 64)
WARM_UP_S: Final = 1.0
Send = Callable[[], Awaitable[None]]


def server_flags(port: int, base: Path) -> list[str]:
    """The embedded server's on a model's versions, batching as `make serve` has it."""
    batching = ["--enable_batching=true", f"--batching_parameters_file={DEPLOY / 'batching.config'}"]
    return [f"--port={port}", "--model_name=mnist", f"--model_base_path={base}", *batching]


def summary(latencies_s: list[float], seconds: float) -> dict[str, float]:
    """Requests per second, and the median and 99th percentile in ms."""
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1e3
    return {
        "requests_per_s": round(len(latencies_s) / seconds, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


async def closed_loop(send: Send, clients: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    start = time.perf_counter() + WARM_UP_S
    end = start + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await send()
            if began >= start:
                latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(clients)))
    return summary(latencies, seconds)


def encoded_request(batch: int) -> bytes:
    """A PredictRequest with `batch` blank images."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="mnist"))
    request.inputs["images"].CopyFrom(to_proto(np.zeros((batch, 28, 28), np.uint8), content=True))
    return bytes(request.SerializeToString())


async def grpc_load(port: int, batch: int, clients: int, seconds: float) -> dict[str, float]:
    encoded = encoded_request(batch)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PREDICT)

        async def send() -> None:
            await call(encoded)

        return await closed_loop(send, clients, seconds)


async def http_load(url: str, batch: int, clients: int, seconds: float) -> dict[str, float]:
    body = json.dumps({"instances": np.zeros((batch, 28, 28), int).tolist()}).encode()
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:

        async def send() -> None:
            async with session.post(url, data=body) as answer:
                answer.raise_for_status()
                await answer.read()

        return await closed_loop(send, clients, seconds)


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, *words], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)


def wait_for(port: int, timeout_s: float = 60.0) -> None:
    import socket

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / "workspace")
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    options = parser.parse_args()
    base = options.home.resolve() / "serving_model" / "mnist"
    versions = [child for child in base.iterdir() if child.name.isdecimal()] if base.is_dir() else []
    if not versions:
        raise SystemExit(f"{base}: no version; make pipeline pushes one")
    model = max(versions, key=lambda folder: int(folder.name))

    noop_port, grpc_port, rest_port, fastapi_port = (free_port() for _ in range(4))
    flags = [*server_flags(grpc_port, base), f"--rest_api_port={rest_port}"]
    rows: list[dict[str, object]] = []
    with (
        process("-m", "benchmarks.serving.servers", "noop", str(noop_port)),
        process("-m", "serving.model_server", *flags),
        process("-m", "benchmarks.serving.servers", "fastapi", str(fastapi_port), str(model)),
    ):
        for port in (noop_port, grpc_port, rest_port, fastapi_port):
            wait_for(port)
        rest_url = f"http://127.0.0.1:{rest_port}/v1/models/mnist:predict"
        for batch in BATCHES:
            for clients in CLIENTS:
                s = options.seconds
                # One after the other in each cell, so that all meet the same machine.
                cell = {
                    "no-op gRPC": asyncio.run(grpc_load(noop_port, batch, clients, s)),
                    "embedded gRPC": asyncio.run(grpc_load(grpc_port, batch, clients, s)),
                    "embedded REST": asyncio.run(http_load(rest_url, batch, clients, s)),
                    "FastAPI": asyncio.run(http_load(f"http://127.0.0.1:{fastapi_port}/predict", batch, clients, s)),
                }
                for server, figures in cell.items():
                    rows.append({"server": server, "batch": batch, "clients": clients, **figures})
                    print(rows[-1], flush=True)
    by_key = {(row["server"], row["batch"], row["clients"]): row["requests_per_s"] for row in rows}
    ratios = {
        f"batch {batch}, {clients} clients": {
            "of no-op": round(by_key["embedded gRPC", batch, clients] / by_key["no-op gRPC", batch, clients], 2),  # type: ignore[operator]
            "of FastAPI": round(by_key["embedded gRPC", batch, clients] / by_key["FastAPI", batch, clients], 2),  # type: ignore[operator]
        }
        for batch in BATCHES
        for clients in CLIENTS
    }
    RESULT_FILE.parent.mkdir(exist_ok=True)
    document = {"rows": rows, "embedded_grpc": ratios, "seconds": options.seconds, "cores": os.cpu_count()}
    RESULT_FILE.write_text(json.dumps(document, indent=1))
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
