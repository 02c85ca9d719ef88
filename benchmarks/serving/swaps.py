"""Swap the served version again and again under a steady load: every request must be answered, by a loaded version.

    python -m benchmarks.serving.swaps      (2 minutes; needs a pushed model in workspace/)

The embedded server polls a folder in which the pushed version appears under ever higher numbers, and older ones go.
Writes build/bench_serving_swaps.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from benchmarks.serving.load import PREDICT, REPOSITORY, encoded_request, process, server_flags, wait_for
from components.versions.publish import publish
from serving.launch.server import free_port
from serving.protocol import serving_pb2 as pb

RESULT_FILE: Final = REPOSITORY / "build" / "bench_serving_swaps.json"
STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"
KEPT: Final = 2  # versions on disk


async def run(port: int, model: Path, base: Path, swaps: int, seconds: float, rate: float) -> dict[str, object]:
    encoded = encoded_request(batch=1)
    states_of = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="mnist")).SerializeToString()
    answered: dict[int, int] = {}
    failures: list[str] = []
    appeared: dict[int, float] = {}  # when a version was published: none may answer before
    latencies: list[float] = []
    too_early = 0

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PREDICT)
        status = channel.unary_unary(STATUS)

        async def ask() -> None:
            nonlocal too_early
            began = time.perf_counter()
            try:
                answer = pb.PredictResponse.FromString(await call(encoded, timeout=5))
            except grpc.aio.AioRpcError as e:
                failures.append(f"{e.code().name}: {e.details()}")
                return
            version = answer.model_spec.version.value
            latencies.append(time.perf_counter() - began)
            answered[version] = answered.get(version, 0) + 1
            too_early += began < appeared.get(version, 0.0) and version != min(appeared)

        async def load() -> None:
            started, sent, asked = time.perf_counter(), 0, set()
            while (now := time.perf_counter() - started) < seconds:
                while sent < now * rate:
                    task = asyncio.create_task(ask())
                    asked.add(task)
                    task.add_done_callback(asked.discard)
                    sent += 1
                await asyncio.sleep(0.002)
            await asyncio.gather(*asked)

        async def swap() -> int:
            done = 0
            for _ in range(swaps):
                appeared_at = time.perf_counter()
                version = await asyncio.to_thread(publish, model, base, 1)
                appeared[int(version.name)] = appeared_at
                deadline = time.perf_counter() + seconds / swaps
                for old in sorted((int(c.name) for c in base.iterdir() if c.name.isdecimal()), reverse=True)[KEPT:]:
                    shutil.rmtree(base / str(old))
                while time.perf_counter() < deadline:
                    states = pb.GetModelStatusResponse.FromString(await status(states_of))
                    newest = max(states.model_version_status, key=lambda state: state.version)
                    if newest.version == int(version.name) and newest.state == pb.ModelVersionStatus.AVAILABLE:
                        done += 1
                        break
                    await asyncio.sleep(0.05)
                await asyncio.sleep(max(0.0, deadline - time.perf_counter()))
            return done

        appeared[int(min(c.name for c in base.iterdir() if c.name.isdecimal()))] = 0.0
        _, completed = await asyncio.gather(load(), swap())
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {
        "swaps": completed,
        "requests": sum(answered.values()) + len(failures),
        "failed": len(failures),
        "failures": failures[:5],
        "answered_by_a_version_before_it_was_published": too_early,
        "versions_that_answered": len(answered),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / "workspace")
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    options = parser.parse_args()
    pushed = [c for c in (options.home / "serving_model" / "mnist").glob("[0-9]*") if c.name.isdecimal()]
    if not pushed:
        raise SystemExit(f"{options.home}: no pushed version; make pipeline pushes one")
    model = max(pushed, key=lambda folder: int(folder.name))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "mnist")
        publish(model, base, 1)
        port = free_port()
        flags = server_flags(port, base)
        with process("-m", "serving.model_server", *flags):
            wait_for(port)
            result = asyncio.run(run(port, model, base, options.swaps, options.seconds, options.rate))
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    if result["failed"] or result["answered_by_a_version_before_it_was_published"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
