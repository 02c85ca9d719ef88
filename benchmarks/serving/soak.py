"""Send half a million requests and watch the embedded server's memory: `build/bench_serving_soak.json`.

python -m benchmarks.serving.soak      (about 6 minutes; needs a pushed model in workspace/)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Final

import grpc
import psutil

from benchmarks.serving.load import PREDICT, REPOSITORY, encoded_request, process, server_flags, wait_for
from serving.launch.server import free_port

RESULT_FILE: Final = REPOSITORY / "build" / "bench_serving_soak.json"
WARM_UP: Final = 20_000  # requests before memory is read for the first time
CLIENTS: Final = 16


async def soak(port: int, server: psutil.Process, requests: int) -> dict[str, object]:
    encoded = encoded_request(batch=1)
    done = failed = 0
    memory: list[tuple[int, int]] = []  # requests done, resident bytes

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PREDICT)

        async def client() -> None:
            nonlocal done, failed
            while done < requests:
                done += 1
                number = done
                try:
                    await call(encoded)
                except grpc.aio.AioRpcError:
                    failed += 1
                if number == WARM_UP or number % 50_000 == 0:
                    memory.append((number, server.memory_info().rss))
                    print(f"{number:,} requests, {memory[-1][1] / 1024**2:.1f} MB", flush=True)

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - started
    first, last = memory[0][1], server.memory_info().rss
    return {
        "requests": done,
        "failed": failed,
        "seconds": round(seconds, 1),
        "memory_after_warm_up_bytes": first,
        "memory_at_end_bytes": last,
        "growth": round(last / first - 1, 4),
        "threads_at_end": server.num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / "workspace")
    parser.add_argument("--requests", type=int, default=500_000)
    options = parser.parse_args()
    base = options.home.resolve() / "serving_model" / "mnist"
    if not base.is_dir():
        raise SystemExit(f"{base}: no pushed version; make pipeline pushes one")
    port = free_port()
    with process("-m", "serving.model_server", *server_flags(port, base)) as p:
        wait_for(port)
        result = asyncio.run(soak(port, psutil.Process(p.pid), options.requests))
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
