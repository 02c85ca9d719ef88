"""Fill every limit of the embedded server at once: `python -m tests.drills.server.memory`.

Over both protocols: large requests that wait, responses that nobody takes, messages that never end, JSON that needs 30
times its size to decode, and as many connections as are allowed, each with almost all the headers that it may have.
Writes build/drills_memory.json: for each set of limits the bound by the formula of docs/serving.md, and the peak of the
resident memory of the server and its processes. The drill fails if the peak is above the bound.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import harness
from benchmarks.harness import HOST
from components.common import ROOT
from components.common.resources import cores
from serving.model_server.flags import parse
from serving.model_server.limits import Limits
from serving.model_server.memory import MARGIN_BYTES
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.drills.server.probe import PREDICT, half_request
from tests.drills.server.target import Target
from tests.support.http2 import Stalling

SECONDS: Final = 15.0
SMALL: Final = (
    *("--max_request_bytes=16777216", "--max_tensor_bytes=16777216", "--max_decoder_bytes=268435456"),
    *("--max_pending_bytes=67108864", "--max_connections=200", "--receive_timeout_in_ms=5000"),
)
LIMITS: Final[dict[str, tuple[str, ...]]] = {"small limits": SMALL, "default limits": ()}
MB: Final = 2**20


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--only", help="part of the name of a set of limits")
    options = parser.parse_args()
    outcomes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        from tests.support import saved_models

        saved_models.write_all(Path(temporary))
        for name, flags in LIMITS.items():
            if not options.only or options.only in name:
                outcomes[name] = filled(Path(temporary), flags)
                print(f"{name}: {outcomes[name]}", flush=True)
    harness.write_result("drills_memory.json", outcomes)
    if any(outcome["peak_mb"] > outcome["bound_mb"] for outcome in outcomes.values()):
        raise SystemExit("the peak is above the bound")


def filled(models: Path, arguments: tuple[str, ...]) -> dict[str, Any]:
    """Fill a new server; return its memory at rest, the bound, the peak, and what remains at the end, in MB."""
    flags = parse(arguments)[0]
    limits = Limits.from_flags(flags)
    target = Target(ROOT, models, *arguments, names=("types", "half"))
    try:
        decoded = b'{"instances": [' + b"1.5," * 30_000 + b"1]}"
        threads = [threading.Thread(target=target.post, args=("half:predict", decoded)) for _ in range(4)]
        _together(threads)  # starts the processes that decode
        rest_mb = target.memory_mb()
        _together([threading.Thread(target=_until_end, args=(attack,)) for attack in _attacks(target, limits)])
        well_behaved = target.call(PREDICT, half_request())
        peak_mb = target.peak_mb
        time.sleep(2)
        after_mb = target.memory_mb()
        over_limit = target.over_limit()
    finally:
        exit_code = target.stop()
    decoders = cores() * (flags.max_decoder_bytes + flags.max_request_bytes)
    bound_mb = rest_mb + (limits.max_resident_bytes() + decoders + MARGIN_BYTES) / MB
    return {
        **{"rest_mb": round(rest_mb), "bound_mb": round(bound_mb), "peak_mb": peak_mb, "after_mb": round(after_mb)},
        **{"over_limit": over_limit, "predict_after": well_behaved, "exit_code": exit_code},
        "tracebacks": target.log.read_text(errors="replace").count("Traceback"),
    }


def _attacks(target: Target, limits: Limits) -> list[Callable[[], Any]]:
    size_bytes = min(limits.request_bytes, limits.tensor_bytes) * 9 // 10
    large, medium = _identity(size_bytes), _identity(200_000)
    nested = b'{"instances": [' + b"[]," * (limits.request_bytes // 8) + b"[]]}"
    numbers = b'{"signature_name": "float32", "instances": [[' + b"1.2345678," * (size_bytes // 40) + b"1]]}"

    def stalling(streams: int, content: bytes, finished: bool) -> Callable[[], Any]:
        return lambda: Stalling(target.port, PREDICT, streams, content, finished).run(SECONDS)

    return [
        *[lambda: target.call(PREDICT, large)] * 12,
        *[lambda: target.post("types:predict", numbers)] * 6,
        *[lambda: target.post("half:predict", nested)] * 4,
        *[lambda: _not_taken(target, numbers)] * 10,
        *[stalling(20, large, finished=False)] * 3,
        *[stalling(100, medium, finished=True)] * 3,
        lambda: _connections(target.rest_port, limits),
    ]


def _identity(size_bytes: int) -> bytes:
    """A request whose response is as large."""
    request = pb.PredictRequest(model_spec={"name": "types", "signature_name": "float32"})
    request.inputs["x"].CopyFrom(to_proto(np.zeros((1, size_bytes // 4), np.float32), content=True))
    return bytes(request.SerializeToString())


def _not_taken(target: Target, body: bytes) -> None:
    with socket.create_connection((HOST, target.rest_port), 5) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SECONDS)
        head = b"POST /v1/models/types:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        time.sleep(SECONDS)


def _connections(port: int, limits: Limits) -> None:
    """Open as many connections as the server allows, with headers that do not end."""
    headers = b"GET / HTTP/1.1\r\n" + b"".join(b"%d: %s\r\n" % (n, b"x" * 600) for n in range(limits.headers - 1))
    with ExitStack() as stack:
        for _ in range(limits.connections):
            connection = stack.enter_context(socket.create_connection((HOST, port), 5))
            connection.sendall(headers[: limits.header_bytes - 100])
        time.sleep(SECONDS)


def _until_end(attack: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            attack()
        time.sleep(0.05)


def _together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
