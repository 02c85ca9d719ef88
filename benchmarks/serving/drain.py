"""SIGTERM under load, again and again: every request sent before it must be answered, and the server must exit 0.

    python -m benchmarks.serving.drain      (about a minute; needs a pushed model in workspace/)

Writes build/bench_serving_drain.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Final

import grpc

from benchmarks.serving.load import PREDICT, REPOSITORY, encoded_request, process, server_flags, wait_for
from serving.launch.server import free_port

RESULT_FILE: Final = REPOSITORY / "build" / "bench_serving_drain.json"
CLIENTS: Final = 64
LOAD_S: Final = 1.0


async def drain_once(base: Path) -> dict[str, float]:
    """Load a fresh server with closed-loop clients, send SIGTERM after LOAD_S, count what became of the requests."""
    port, encoded = free_port(), encoded_request(batch=1)
    answered = lost = 0
    terminated_s = float("inf")
    flags = server_flags(port, base)
    with process("-m", "serving.model_server", *flags) as server:
        await asyncio.to_thread(wait_for, port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(PREDICT)

            async def client() -> None:
                nonlocal answered, lost
                while time.perf_counter() < terminated_s:
                    sent_s = time.perf_counter()
                    try:
                        await call(encoded)
                        answered += 1
                    except grpc.aio.AioRpcError:
                        lost += sent_s < terminated_s

            clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
            await asyncio.sleep(LOAD_S)
            terminated_s = time.perf_counter()
            server.terminate()
            await asyncio.gather(*clients)
            exit_code = await asyncio.to_thread(server.wait, 20)
            exit_s = time.perf_counter() - terminated_s
    return {"answered": answered, "lost": lost, "exit_code": exit_code, "exit_s": round(exit_s, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / "workspace")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    base = options.home.resolve() / "serving_model" / "mnist"
    if not base.is_dir():
        raise SystemExit(f"{base}: no pushed version; make pipeline pushes one")
    rounds = []
    for _ in range(options.rounds):
        rounds.append(asyncio.run(drain_once(base)))
        print(rounds[-1], flush=True)
    result = {
        "rounds": options.rounds,
        "clients": CLIENTS,
        "answered": sum(one["answered"] for one in rounds),
        "lost": sum(one["lost"] for one in rounds),
        "exit_codes": sorted({one["exit_code"] for one in rounds}),
        "slowest_exit_s": max(one["exit_s"] for one in rounds),
    }
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
