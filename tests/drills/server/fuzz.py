"""Sends mutated requests over gRPC and HTTP to an embedded server in this process.

    python -m tests.drills.server.fuzz --requests 200000      (about a quarter of an hour)

A request that takes a new way through the server's code is kept and mutated further. (atheris would do the same, but it
takes over the process and its main thread, where the server runs.) The kept requests are in build/fuzz/kept, and the
next campaign starts with them. The drill fails if the process ends, if anything logs a traceback, if a request gets no
response or the text of a Python exception, if a valid request gets a wrong response, or if memory grows by more than
50 MB. The requests that did so are in build/fuzz/found. Writes build/fuzz.json.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

import grpc
import numpy as np
import psutil
import uvloop

from benchmarks import harness
from components.common.ports import free_port
from serving.model_server import flags as server_flags
from serving.model_server.server import Server
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.drills.server.mutations import mutated
from tests.drills.server.seeds import MODELS, Case, seeds
from tests.drills.server.seeds import http as http_case

FOLDER: Final = harness.RESULTS / "fuzz"
WATCHED: Final = ("/serving/model_server/", "/serving/protocol/tensors.py")  # whose code counts
MAX_GROWTH_MB: Final = 50
MAX_KEPT_BYTES: Final = 2**15
CHECK_EVERY: Final = 500  # requests between two valid ones
LARGE_BODY: Final = json.dumps({"instances": [[1.0]] * 2**16}).encode()  # starts the process that decodes large ones
MAX_FOUND: Final = 50
WARM_UP_ROUNDS: Final = 20
TIMEOUT_S: Final = 60.0  # the machine may be busy
MAX_CPU_S: Final = 5.0  # of one request, of this process
PATIENCE_S: Final = 0.05  # before the client closes its half of a connection without a response
VALID: Final = Case(
    "/tensorflow.serving.PredictionService/Predict",
    pb.PredictRequest(model_spec={"name": "half"}, inputs={"x": to_proto(np.float32([[1.0]]))}).SerializeToString(),
)
VALID_BODY: Final = b'{"instances": [[1.0]]}'
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
EXCEPTION: Final = re.compile(rb"\b[A-Z]\w*(Error|Exception|Interrupt)\b|Traceback")  # a Python exception's text
MODEL_CONFIG: Final = 'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
FRESH_MODELS: Final = (
    "import sys, pathlib; from tests.support import saved_models as m; m.write_all(pathlib.Path(sys.argv[1]))"
)


class Coverage:
    """The steps from line to line in the server's code that have been taken, in any thread."""

    def __init__(self) -> None:
        self.steps: set[tuple[str, int, int]] = set()

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not any(part in name for part in WATCHED):
            return None
        before = 0

        def step(frame: FrameType, event: str, _: Any) -> None:  # returning itself would make it a reference cycle
            nonlocal before
            self.steps.add((name, before, frame.f_lineno))
            before = frame.f_lineno

        return step


class Tracebacks(logging.Handler):
    """Collects what is logged with a traceback, and exceptions that nobody catches."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        sys.unraisablehook = lambda found: self.texts.append(f"unraisable: {found.exc_value!r}")
        threading.excepthook = lambda found: self.texts.append(f"thread: {found.exc_value!r}")

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0]:
            self.texts.append(f"{record.name}: {record.getMessage()[:200]}: {record.exc_info[1]!r}"[:500])
        elif "Traceback" in record.getMessage():
            self.texts.append(f"{record.name}: {record.getMessage()[-500:]}")


class Campaign:
    """Sends the requests one after another, from a thread of its own."""

    def __init__(self, port: int, rest_port: int, requests: int, seed: int, coverage: Coverage) -> None:
        self._address, self._rest = f"127.0.0.1:{port}", ("127.0.0.1", rest_port)
        self._requests, self._random, self._coverage = requests, Random(seed), coverage
        self._tracebacks = Tracebacks()
        self.kept = seeds()
        self.found: list[dict[str, str]] = []
        self.results: Counter[str] = Counter()
        self.report: dict[str, Any] = {}

    def run(self) -> None:
        sys.settrace(None)
        try:
            self._run()
        except BaseException as e:
            self.found.append({"problem": f"the drill itself failed: {type(e).__name__}: {e}"})
            raise
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the server drains and ends

    def _run(self) -> None:
        self._channel = grpc.insecure_channel(self._address, [("grpc.max_receive_message_length", -1)])
        grpc.channel_ready_future(self._channel).result(timeout=60)
        for name in ("", "uvicorn", "asyncio"):
            logging.getLogger(name).addHandler(self._tracebacks)
        for path in sorted((FOLDER / "kept").iterdir()):
            self.kept.append(Case.from_bytes(path.read_bytes()))
        for _ in range(WARM_UP_ROUNDS):
            for case in self.kept:
                self._send(case)
        with socket.create_connection(self._rest, timeout=TIMEOUT_S) as connection:
            _exchange(connection, http_case("POST", "/v1/models/half:predict", LARGE_BODY).content)
        self.results.clear()
        before_mb, started = _memory_mb(), time.monotonic()
        for number in range(1, self._requests + 1):
            self._one(mutated(self._random.choice(self.kept), self.kept, self._random))
            if len(self.found) >= MAX_FOUND:
                raise RuntimeError(f"stopped after {number:,} requests: too much was found")
            if number % CHECK_EVERY == 0:
                self._check_valid()
            if number % 5000 == 0:
                rate = number / (time.monotonic() - started)
                print(
                    f"{number:,} requests, {rate:.0f}/s, {len(self._coverage.steps):,} steps, {len(self.kept)} kept, "
                    f"{len(self.found)} found, {_memory_mb() - before_mb:+.0f} MB",
                    flush=True,
                )
        after_mb = _memory_mb()
        if after_mb - before_mb > MAX_GROWTH_MB:
            self.found.append({"problem": f"memory grew from {before_mb:.0f} to {after_mb:.0f} MB"})
        self.report = {
            "requests": self._requests,
            "seconds": round(time.monotonic() - started),
            "results": dict(sorted(self.results.items())),
            "steps": len(self._coverage.steps),
            "kept": len(self.kept),
            "before_mb": round(before_mb),
            "after_mb": round(after_mb),
        }

    def _one(self, case: Case) -> None:
        data = case.to_bytes()
        (FOLDER / "last").write_bytes(data)  # what ended the process, if it ends
        steps, tracebacks = len(self._coverage.steps), len(self._tracebacks.texts)
        problem = self._send(case)
        if len(self._tracebacks.texts) > tracebacks:
            problem = self._tracebacks.texts[-1]
        name = hashlib.sha256(data).hexdigest()[:16]
        if problem:
            self.found.append({"problem": problem, "input": name})
            (FOLDER / "found" / name).write_bytes(data)
            print(f"FOUND {name}: {problem[:300]}", flush=True)
        if len(self._coverage.steps) > steps and len(data) <= MAX_KEPT_BYTES:
            self.kept.append(case)
            (FOLDER / "kept" / name).write_bytes(data)

    def _send(self, case: Case) -> str:
        """Return what is wrong with the response; an empty string if nothing is."""
        started = time.process_time()
        problem = self._grpc(case) if case.method else self._http(case.content)
        seconds = time.process_time() - started
        return problem or (f"{seconds:.1f} s of processor time" if seconds > MAX_CPU_S else "")

    def _grpc(self, case: Case) -> str:
        try:
            self._channel.unary_unary(case.method)(case.content, timeout=TIMEOUT_S)
        except grpc.RpcError as e:
            code, text = e.code(), e.details() or ""  # type: ignore[attr-defined]
        else:
            self.results["gRPC OK"] += 1
            return ""
        self.results[f"gRPC {code.name}"] += 1
        if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE) or EXCEPTION.search(text.encode()):
            return f"{case.method}: {code.name}: {text[:300]}"
        return ""

    def _http(self, content: bytes) -> str:
        try:
            with socket.create_connection(self._rest, timeout=PATIENCE_S) as connection:
                response = _exchange(connection, content)
        except (BrokenPipeError, ConnectionResetError):  # the server refused the rest of the request
            self.results["HTTP reset"] += 1
            return ""
        except OSError as e:
            return f"HTTP: {type(e).__name__}: {e}"
        status = response[9:12].decode("latin-1") if response else "no response"
        self.results[f"HTTP {status}"] += 1
        if status in ("500", "503", "504") or (response and not response.startswith(b"HTTP/1.1 ")):
            return f"HTTP: {response[:500]!r}"
        if EXCEPTION.search(response):
            return f"HTTP: {response[:500]!r}"
        return ""

    def _check_valid(self) -> None:
        """Half of 1 plus 2 is 2.5, over both protocols."""
        over_grpc = self._channel.unary_unary(VALID.method)(VALID.content, timeout=TIMEOUT_S)
        values = list(pb.PredictResponse.FromString(over_grpc).outputs["y"].float_val)
        connection = http.client.HTTPConnection(*self._rest, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("POST", "/v1/models/half:predict", VALID_BODY)
            over_rest = connection.getresponse().read()
        if values != [2.5] or json.loads(over_rest) != {"predictions": [[2.5]]}:
            self.found.append({"problem": f"a valid request got {values} and {over_rest[:200]!r}"})


def _exchange(connection: socket.socket, content: bytes) -> bytes:
    """Return the start of the final response; b"" if the server closes the connection without one."""
    connection.sendall(content)
    response = b""
    with suppress(TimeoutError):  # the request is incomplete, or slow
        response = connection.recv(2**16).removeprefix(CONTINUE)
    if not response:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(TIMEOUT_S)
        response = connection.recv(2**16)
        if response == CONTINUE:
            response = connection.recv(2**16)
    return response.removeprefix(CONTINUE)


def _memory_mb() -> float:
    """Resident memory of this process and its children, after what is garbage is freed."""
    gc.collect()
    time.sleep(0.5)
    process = psutil.Process()
    return float(sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))) / 2**20


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=200_000, help="default: 200,000")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    options = parser.parse_args()
    faulthandler.enable()
    for name in ("kept", "found"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-c", FRESH_MODELS, str(folder)], check=True, capture_output=True)
        config, monitoring = folder / "models.config", folder / "monitoring.config"
        models = "".join(MODEL_CONFIG.format(name=name, path=folder / name) for name in MODELS)
        config.write_text(f"model_config_list {{ {models} }}\n")
        monitoring.write_text("prometheus_config { enable: true }\n")
        port, rest_port = free_port(), free_port()
        arguments = (
            *(f"--port={port}", f"--rest_api_port={rest_port}", f"--model_config_file={config}"),
            *(f"--monitoring_config_file={monitoring}", "--enable_batching", "--enable_grpc_healthcheck_service"),
            "--allow_reload=false",
        )
        coverage = Coverage()
        threading.settrace(coverage.trace)
        server = Server(server_flags.parse(arguments)[0])
        campaign = Campaign(port, rest_port, options.requests, options.seed, coverage)
        thread = threading.Thread(target=campaign.run, name="fuzz")
        thread.start()
        sys.settrace(coverage.trace)
        uvloop.run(server.run())
        sys.settrace(None)
        thread.join()
    harness.write_result("fuzz.json", {**campaign.report, "found": campaign.found})
    for found in campaign.found[:20]:
        print(found)
    if campaign.found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
