"""Overload the embedded server (A5): `python -m tests.drills.server.overload --home HOME [--before CHECKOUT]`.

500 clients with deadlines of 100 ms send three times what the server can do, for 30 s, over gRPC and then over REST.
Meanwhile a well-behaved client sends one image every 50 ms, with a deadline of a second, and repeats what was refused.
Writes build/drills_overload.json: goodput, what the well-behaved client saw, the time to recover, peak memory, and the
counter of runs that started after their request was cancelled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

from benchmarks import harness
from benchmarks.serving.clients import PREDICT, encoded_request
from components.common import ROOT, contract
from serving.launch.backends import DEPLOY_CONFIG
from tests.drills.server.target import Target

RESULT: Final = "drills_overload.json"
FACTOR: Final = 3
CAPACITY_S: Final = 5.0
DEADLINE_S: Final = 1.0  # of the well-behaved client
EVERY_S: Final = 0.05
BACKOFF_S: Final = 0.02


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--before", type=Path, help="another checkout to overload as well")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--images", type=int, default=64, help="per request")
    options = parser.parse_args()
    base = harness.pushed_model(options.home).parent
    record = harness.RESULTS / RESULT
    found: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    for protocol in ("grpc", "rest"):
        for when, root in (("before", options.before), ("after", ROOT)):
            if root is not None:
                outcome = overloaded(root, base, protocol, options.seconds, options.images)
                found.setdefault(f"{protocol}, {options.images} images", {})[when] = outcome
                print(f"{protocol}, {when}: {json.dumps(outcome)}", flush=True)
    harness.write_result(RESULT, found)


def overloaded(root: Path, base: Path, protocol: str, seconds: float, images: int) -> dict[str, Any]:
    """Overload a new server of the model in `base`; return what happened."""
    target = Target(
        root,
        base.parent,
        f"--batching_parameters_file={DEPLOY_CONFIG / 'batching.config'}",
        names=(contract.MODEL_NAME,),
    )
    port = str(target.port if protocol == "grpc" else target.rest_port)
    try:
        capacity = _generate(target, protocol, port, str(CAPACITY_S), "0", str(images))
        calm = _well_behaved(target.port, threading.Event(), 2.0)
        stop, during = threading.Event(), list[float]()
        client = threading.Thread(target=lambda: during.extend(_well_behaved(target.port, stop, seconds + 60)))
        client.start()
        load = _generate(target, protocol, port, str(seconds), str(FACTOR * capacity["ok_per_s"]), str(images))
        stop.set()
        ended = time.monotonic()
        client.join()
        recovered_s = _recovery(target.port, 3 * float(np.median(calm)), ended)
        counters = target.over_limit()
        after = _generate(target, protocol, port, str(CAPACITY_S), "0", str(images))
    finally:
        exit_code = target.stop()
    return {
        "capacity": capacity,
        "load": load,
        "capacity_after": after,
        "goodput": round(load["ok_per_s"] / capacity["ok_per_s"], 2),
        "goodput_by_cpu": round(capacity["server_cpu_ms_per_ok"] / load["server_cpu_ms_per_ok"], 2),
        "well_behaved_ms": {
            "calm_p50": _ms(calm, 50),
            "n": len(during),
            **{f"p{q}": _ms(during, q) for q in (50, 99)},
        },
        "recovered_s": recovered_s,
        "over_limit": counters,
        "started_after_cancellation": counters.get("started_after_cancellation", 0) if counters else None,
        "peak_mb": target.peak_mb,
        "exit_code": exit_code,
    }


def _generate(target: Target, *arguments: str) -> dict[str, Any]:
    """Generate load; return the outcome with the server's CPU time, which is comparable if the machine is busy."""
    before_s = target.cpu_s()
    done = subprocess.run(
        [sys.executable, "-m", "tests.drills.server.generator", *arguments],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "check": True, "timeout": 300, "env": {**os.environ}},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    per_ok_ms = (target.cpu_s() - before_s) * 1e3 / max(1, result["codes"].get("OK", 0))
    return {**result, "server_cpu_ms_per_ok": round(per_ok_ms, 2)}


def _well_behaved(port: int, stop: threading.Event, seconds: float) -> list[float]:
    """Latencies in seconds, with the time of repetitions; a request without a response in 5 s counts as 5 s."""
    latencies_s, content, end = [], encoded_request(1), time.monotonic() + seconds
    with grpc.insecure_channel(f"{harness.HOST}:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(PREDICT)
        while not stop.is_set() and time.monotonic() < end:
            started = time.monotonic()
            while time.monotonic() - started < 5:
                try:
                    call(content, timeout=DEADLINE_S)
                    break
                except grpc.RpcError:
                    time.sleep(BACKOFF_S)
            latencies_s.append(time.monotonic() - started)
            time.sleep(EVERY_S)
    return latencies_s


def _recovery(port: int, normal_s: float, since: float) -> float:
    """Seconds until five requests in a row are as fast as normal; at most 60."""
    while time.monotonic() - since < 60:
        began = time.monotonic()
        if max(_well_behaved(port, threading.Event(), 5 * EVERY_S)) < max(normal_s, 0.05):
            return round(began - since, 2)
    return 60.0


def _ms(latencies_s: list[float], percentile: int) -> float:
    return round(float(np.percentile(latencies_s, percentile)) * 1e3, 1)


if __name__ == "__main__":
    main()
