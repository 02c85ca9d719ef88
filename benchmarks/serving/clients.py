"""The load generator: gRPC clients in a closed loop or at a steady rate, and the embedded server that they load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any, Final, NamedTuple

import grpc
import numpy as np

from benchmarks import harness
from components.common import contract
from components.common.ports import free_port
from serving.launch.backends import DEPLOY_CONFIG
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
REQUEST_TIMEOUT_S: Final = 5.0
SEND_EVERY_S: Final = 0.002  # interval at which all due requests are sent


@contextmanager
def embedded_server(base: Path, *flags: str) -> Iterator[tuple[Popen[bytes], int]]:
    """Serve a folder of versions, with batching as in `make serve`; yields the process and its gRPC port."""
    port = free_port()
    batching = ["--enable_batching=true", f"--batching_parameters_file={DEPLOY_CONFIG / 'batching.config'}"]
    model = [f"--model_name={contract.MODEL_NAME}", f"--model_base_path={base}"]
    with harness.running("-m", "serving.model_server", f"--port={port}", *model, *batching, *flags) as process:
        harness.wait_for_port(port)
        yield process, port


@asynccontextmanager
async def grpc_call(port: int, method: str = PREDICT) -> AsyncIterator[Any]:
    """An awaitable call from encoded request to encoded response."""
    async with grpc.aio.insecure_channel(f"{harness.HOST}:{port}") as channel:
        yield channel.unary_unary(method)


def encoded_request(batch: int = 1, label: str = "") -> bytes:
    """A PredictRequest with `batch` blank images, for the version with a label ("": the server's choice)."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name=contract.MODEL_NAME, version_label=label or None))
    request.inputs[contract.IMAGES].CopyFrom(to_proto(np.zeros((batch, 28, 28), np.uint8), content=True))
    return bytes(request.SerializeToString())


async def closed_loop(send: Callable[[], Awaitable[None]], clients: int, more: Callable[[], bool]) -> None:
    """Clients that each send the next request when the previous one is answered, as long as `more()` is true."""

    async def client() -> None:
        while more():
            await send()

    await asyncio.gather(*(client() for _ in range(clients)))


class Sample(NamedTuple):
    """A request that was answered; `sent_s` is a time.perf_counter()."""

    label: str
    sent_s: float
    latency_s: float
    version: int


class SteadyLoad:
    """Requests at a steady rate, regardless of how fast they are answered; the labels alternate.

    Attributes:
        samples: requests that were answered.
        failures: error messages of the other requests.
    """

    def __init__(self, port: int, requests_per_s: float, labels: Sequence[str] = ("",)) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self._port, self._rate = port, requests_per_s
        self._encoded = {label: encoded_request(label=label) for label in labels}

    async def run(self, during: Awaitable[Any]) -> Any:
        """Send requests until `during` has ended; returns its result."""
        task = asyncio.ensure_future(during)
        labels, count, pending = list(self._encoded), 0, set()
        async with grpc_call(self._port) as call:
            started = time.perf_counter()
            while not task.done():
                while count < (time.perf_counter() - started) * self._rate:
                    request = asyncio.create_task(self._send(call, labels[count % len(labels)]))
                    pending.add(request)
                    request.add_done_callback(pending.discard)
                    count += 1
                await asyncio.sleep(SEND_EVERY_S)
            await asyncio.gather(*pending)
        return task.result()

    async def _send(self, call: Any, label: str) -> None:
        sent_s = time.perf_counter()
        try:
            response = pb.PredictResponse.FromString(await call(self._encoded[label], timeout=REQUEST_TIMEOUT_S))
        except grpc.aio.AioRpcError as e:
            self.failures.append(f"{label or 'no label'}: {e.code().name}: {e.details()}")
            return
        version = response.model_spec.version.value
        self.samples.append(Sample(label, sent_s, time.perf_counter() - sent_s, version))


def percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in ms."""
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1e3
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}
