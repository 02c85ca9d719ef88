"""A well-behaved client, as a process of its own: `python -m tests.drills.server.probe PORT REST_PORT INTERVAL_S`.

Sends status, health and a small Predict over gRPC, and status over REST, in turn, until its input ends; then prints the
latencies by kind and the errors, as JSON. The gRPC connection is opened first, each REST request opens its own.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc
import numpy as np

from benchmarks.harness import HOST
from components.common import ROOT
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"
HEALTH: Final = "/grpc.health.v1.Health/Check"
TIMEOUT_S: Final = 5.0


@contextmanager
def probing(port: int, rest_port: int, interval_s: float = 0.02) -> Iterator[dict[str, Any]]:
    """Run the client during the block; at its end the yielded dict contains the summary."""
    found: dict[str, Any] = {}
    command = [sys.executable, "-m", "tests.drills.server.probe", str(port), str(rest_port), str(interval_s)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is connected
        try:
            yield found
        finally:
            output, _ = process.communicate(timeout=30 * TIMEOUT_S)
            found.update(json.loads(output))


def half_request(rows: int = 1) -> bytes:
    """A PredictRequest for the model `half`."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="half"))
    request.inputs["x"].CopyFrom(to_proto(np.zeros(rows, np.float32)))
    return bytes(request.SerializeToString())


def summary(latencies_s: Mapping[str, list[float]], errors: list[str]) -> dict[str, Any]:
    """{kind: {n, p50_ms, p99_ms, max_ms}}, and the errors."""
    figures: dict[str, Any] = {}
    for kind, values in latencies_s.items():
        p50, p99, worst = np.percentile(values, [50, 99, 100]) * 1e3
        figures[kind] = {"n": len(values)} | {
            name: round(float(ms), 1) for name, ms in (("p50_ms", p50), ("p99_ms", p99), ("max_ms", worst))
        }
    return {**figures, "errors": len(errors), "first_errors": sorted(set(errors))[:3]}


def main(port: int, rest_port: int, interval_s: float) -> None:
    latencies_s: dict[str, list[float]] = {}
    errors: list[str] = []
    status = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="half")).SerializeToString()

    def rest() -> None:
        connection = http.client.HTTPConnection(HOST, rest_port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/v1/models/half")
            connection.getresponse().read()
        finally:
            connection.close()

    with grpc.insecure_channel(f"{HOST}:{port}") as channel:

        def rpc(method: str, content: bytes) -> Callable[[], Any]:
            call = channel.unary_unary(method)
            return lambda: call(content, timeout=TIMEOUT_S)

        calls = {
            "status": rpc(STATUS, status),
            "health": rpc(HEALTH, b""),
            "predict": rpc(PREDICT, half_request()),
            "rest_status": rest,
        }
        for call in calls.values():
            call()
        print("connected", flush=True)
        while not select.select([sys.stdin], [], [], interval_s)[0]:
            for kind, call in calls.items():
                started = time.perf_counter()
                try:
                    call()
                except grpc.RpcError as e:
                    errors.append(f"{kind}: {e.code().name}")  # type: ignore[attr-defined]
                except (OSError, http.client.HTTPException) as e:
                    errors.append(f"{kind}: {type(e).__name__}")
                else:
                    latencies_s.setdefault(kind, []).append(time.perf_counter() - started)
    print(json.dumps(summary(latencies_s, errors)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
