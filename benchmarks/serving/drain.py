"""Send SIGTERM under load: each request sent before it must be answered, and the server must exit with code 0.

    python -m benchmarks.serving.drain      (about a minute; needs a pushed model in workspace/)

Writes build/bench_serving_drain.json.
"""

from __future__ import annotations

import asyncio
import json
import time
from subprocess import Popen
from typing import Final

import grpc

from benchmarks import harness
from benchmarks.serving.clients import closed_loop, embedded_server, encoded_request, grpc_call

CLIENTS: Final = 64
LOAD_S: Final = 1.0


async def drain_once(server: Popen[bytes], port: int) -> dict[str, float]:
    """Load a fresh server in a closed loop, send SIGTERM after LOAD_S, and count the answered and lost requests."""
    encoded = encoded_request()
    answered = lost = 0
    terminated_s = float("inf")

    async with grpc_call(port) as call:

        async def send() -> None:
            nonlocal answered, lost
            sent_s = time.perf_counter()
            try:
                await call(encoded)
                answered += 1
            except grpc.aio.AioRpcError:
                lost += sent_s < terminated_s

        load = asyncio.create_task(closed_loop(send, CLIENTS, lambda: time.perf_counter() < terminated_s))
        await asyncio.sleep(LOAD_S)
        terminated_s = time.perf_counter()
        server.terminate()
        await load
        exit_code = await asyncio.to_thread(server.wait, harness.STOP_TIMEOUT_S)
        exit_s = time.perf_counter() - terminated_s
    return {"answered": answered, "lost": lost, "exit_code": exit_code, "exit_s": round(exit_s, 2)}


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    base = harness.pushed_model(options.home).parent
    rounds = []
    for _ in range(options.rounds):
        with embedded_server(base) as (server, port):
            rounds.append(asyncio.run(drain_once(server, port)))
        print(rounds[-1], flush=True)
    result = {
        "rounds": options.rounds,
        "clients": CLIENTS,
        "answered": sum(one["answered"] for one in rounds),
        "lost": sum(one["lost"] for one in rounds),
        "exit_codes": sorted({one["exit_code"] for one in rounds}),
        "slowest_exit_s": max(one["exit_s"] for one in rounds),
    }
    print(json.dumps(result, indent=1))
    harness.write_result("bench_serving_drain.json", result)


if __name__ == "__main__":
    main()
