"""The embedded server under attack: its process, its memory, and single requests to it."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import psutil

from benchmarks import harness
from benchmarks.harness import HOST
from components.common.ports import free_port
from serving.protocol import serving_pb2 as pb

CLASSIFY: Final = "/tensorflow.serving.PredictionService/Classify"
RELOAD: Final = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
UNLIMITED: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
MEMORY_BYTES: Final = 6 * 2**30  # what the server may allocate, so that an attack that succeeds spares the machine
NICENESS: Final = 10  # of attackers
WATCH_S: Final = 0.05  # interval at which memory is measured
MODELS: Final = ("half", "types", "text", "examples", "slow")


class Target:
    """A running server.

    Args:
        root: the checkout to run.
        models: folder of models; the server serves `names`.
        files: the server's limit of open files.
    """

    def __init__(
        self, root: Path, models: Path, *flags: str, files: int | None = None, names: Sequence[str] = MODELS
    ) -> None:
        self.models, self.port, self.rest_port = models, free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        config = folder / "models.config"
        config.write_text("model_config_list { " + " ".join(_config(name, models / name) for name in names) + " }")
        (folder / "monitoring.config").write_text("prometheus_config { enable: true }\n")
        self.log = folder / "server.log"

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving.model_server", f"--port={self.port}"),
                    *(f"--rest_api_port={self.rest_port}", f"--model_config_file={config}"),
                    f"--monitoring_config_file={folder / 'monitoring.config'}",
                    *("--enable_grpc_healthcheck_service=true", "--enable_batching=true", *flags),
                ],
                **{"cwd": root, "stdout": log, "stderr": subprocess.STDOUT, "preexec_fn": limit},
            )
        harness.wait_for_port(self.port)
        harness.wait_for_port(self.rest_port)
        self._peak_mb, self._watching = 0.0, True
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def memory_mb(self) -> float:
        """Resident memory of the server and the processes that it has started."""
        return _resident_bytes(self._processes()) / 2**20

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            return [process, *process.children()]
        return []

    def cpu_s(self) -> float:
        """CPU time of the server and of the processes that it has started, also of those that have ended."""
        process = psutil.Process(self.process.pid)
        ended = process.cpu_times()
        return (
            ended.children_user
            + ended.children_system
            + sum(times.user + times.system for times in (p.cpu_times() for p in [process, *process.children()]))
        )

    @property
    def peak_mb(self) -> int:
        return round(self._peak_mb)

    def channel(self) -> grpc.Channel:
        """A channel with its own connection."""
        return grpc.insecure_channel(f"{HOST}:{self.port}", options=[*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)])

    def call(self, method: str, content: bytes, timeout_s: float = 20.0, gzip: bool = False) -> str:
        """Send a request on a new connection; return the name of its code."""
        compression = grpc.Compression.Gzip if gzip else None
        with self.channel() as channel:
            try:
                channel.unary_unary(method)(content, timeout=timeout_s, compression=compression)
            except grpc.RpcError as e:
                return str(e.code().name)  # type: ignore[attr-defined]
        return "OK"

    def post(self, path: str, body: bytes, timeout_s: float = 20.0, **headers: str) -> str:
        """Send an HTTP request; return its status, or the name of the exception."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=timeout_s)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST", f"/v1/models/{path}", body, names)
            return str(connection.getresponse().status)
        except OSError as e:
            return type(e).__name__
        finally:
            connection.close()

    def over_limit(self) -> dict[str, int]:
        """The counters of what was over a limit; {} if the server has none or does not respond."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=10)
        try:
            connection.request("GET", "/monitoring/prometheus/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        except OSError:
            return {}
        finally:
            connection.close()
        found = [line.partition('over_limit_count{reason="')[2] for line in lines if "over_limit_count{" in line]
        return {text.partition('"')[0]: int(text.rpartition(" ")[2]) for text in found}

    def stop(self) -> int | None:
        """Send SIGTERM; return the exit code, or None if the server had to be killed."""
        self._watching = False
        self._watcher.join()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def _watch(self) -> None:
        processes, listed_s = self._processes(), time.monotonic()
        while self._watching and self.process.poll() is None:
            if time.monotonic() - listed_s > 0.5:  # listing all processes takes more time than the rest
                processes, listed_s = self._processes(), time.monotonic()
            self._peak_mb = max(self._peak_mb, _resident_bytes(processes) / 2**20)
            time.sleep(WATCH_S)


def _resident_bytes(processes: Sequence[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def reload_request(*models: tuple[str, str]) -> bytes:
    request = pb.ReloadConfigRequest()
    for name, base_path in models:
        request.config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return bytes(request.SerializeToString())


def repeated(
    request: pb.PredictRequest, alias: str, data_type: Any, shape: Sequence[int] = (16384, 1024), value: bytes = b""
) -> None:
    """Put a tensor into a request that has one value for all its elements, or none, which means zero."""
    tensor = request.inputs[alias]
    tensor.dtype = data_type
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if value:
        tensor.string_val.append(value)


def low_priority(attack: Callable[[], None]) -> threading.Thread:
    """Return a thread of an attacker. It yields the cores to the server, which elsewhere an attacker does not share."""

    def run() -> None:
        if sys.platform == "linux":  # where a priority is a thread's own
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        attack()

    return threading.Thread(target=run, daemon=True)


def _config(name: str, base_path: Path) -> str:
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" }}'
