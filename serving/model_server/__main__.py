"""Stands in for tensorflow_model_server: `python -m serving.model_server --model_base_path=/models/mnist ...`.

For development, CI and machines without a container engine; production is TensorFlow Serving's container.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import uvicorn
import uvloop
from google.protobuf import text_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from components.common.errors import InputError
from components.versions import manifest
from serving.model_server import batching, versions, warmup
from serving.model_server import flags as flags_module
from serving.model_server.capi import library
from serving.model_server.errors import Code, ServingError
from serving.model_server.flags import FlagError, Flags
from serving.model_server.grpc_layer import SIZE_OPTIONS, GrpcLayer, channel_options
from serving.model_server.manager import Manager, Policy
from serving.model_server.metrics import Metrics
from serving.model_server.rest_layer import RestLayer
from serving.model_server.servable import Servable
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb
from serving.protocol.wire import varint

log = logging.getLogger("model_server")
EXIT_FAILED: Final = 255  # as tensorflow_model_server
LAME_DUCK_S: Final = 2.0  # after SIGTERM, while requests that were sent before it still arrive
QUIET_S: Final = 0.2  # without any request: none is on its way
DRAIN_S: Final = 6.5  # then, for requests in flight; orchestrators kill after 10 s or more


def session_config(flags: Flags) -> bytes:
    """A serialized ConfigProto{intra_op_parallelism_threads = 2, inter_op_parallelism_threads = 5}.

    Unless told otherwise a request runs in the thread that brought it: requests are what runs in parallel here.
    """
    both = flags.tensorflow_session_parallelism
    intra = flags.tensorflow_intra_op_parallelism or both or 1
    inter = flags.tensorflow_inter_op_parallelism or both or -1
    return b"\x10" + varint(intra) + b"\x28" + varint(inter)


def model_configs(flags: Flags) -> list[pb.ModelConfig]:
    """Models to serve: the config file's, or the one that the flags name. Raises ServingError, OSError, FlagError."""
    if flags.model_config_file:
        return versions.parse_config(Path(flags.model_config_file).read_text())
    if not flags.model_base_path:
        raise FlagError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return [pb.ModelConfig(name=flags.model_name, base_path=flags.model_base_path, model_platform=versions.PLATFORM)]


class Server:
    """All parts, started and stopped in order. Raises FlagError, OSError: a file that a flag names cannot be read."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.max_batch_size = batching.max_batch_size(flags.enable_batching, flags.batching_parameters_file)
        self.metrics = Metrics()
        policy = Policy(
            poll_s=flags.file_system_poll_wait_seconds,
            max_retries=flags.max_num_load_retries,
            retry_interval_s=flags.load_retry_interval_micros / 1e6,
            labels_before_available=flags.allow_version_labels_for_unavailable_models,
        )
        self.manager = Manager(self._load, policy)
        self.service = Service(self.manager, self.metrics, flags.enable_serialization_as_tensor_content)
        self.health: health.aio.HealthServicer | None = None
        self.stuck = False  # a request is still running, long after its client has been told
        self.workers = Workers(limit=4 * (os.cpu_count() or 1))

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        if self.flags.proven_only:
            try:
                manifest.verify(folder)
            except InputError as e:
                raise ServingError(Code.FAILED_PRECONDITION, e.problem) from None
        tags, config = self.flags.saved_model_tags.split(","), session_config(self.flags)
        servable = Servable(name, version, folder, tags, config, self.max_batch_size)
        if self.flags.enable_model_warmup:
            try:
                warmup.replay(servable)
            except BaseException:
                servable.unload()
                raise
        return servable

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then answer what has been accepted. Raises ServingError, OSError."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self.manager.start(model_configs(self.flags))
        waiting = asyncio.create_task(asyncio.to_thread(self._wait_for_models, stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return
        waiting.result()  # raises what kept a model from loading
        grpc_server = await self._start_grpc()
        try:
            rest_server, rest_task = await self._start_rest()
        except OSError:
            await grpc_server.stop(None)
            raise
        reloading = asyncio.create_task(self._follow_config_file())
        print("serving: ready", file=sys.stderr, flush=True)
        await stopping
        print("serving: draining", file=sys.stderr, flush=True)
        reloading.cancel()
        self.manager.stop_watching()
        await self._lame_duck()
        if rest_server is not None and rest_task is not None:
            rest_server.should_exit = True
            await asyncio.gather(grpc_server.stop(DRAIN_S), rest_task)
        else:
            await grpc_server.stop(DRAIN_S)
        self.stuck = not await asyncio.to_thread(self.manager.stop, timeout_s=0.5)

    async def _lame_duck(self) -> None:
        """Go on for a moment: stopping gRPC refuses requests that have arrived and wait to be looked at."""
        if self.health is not None:
            await self.health.enter_graceful_shutdown()  # NOT_SERVING: send no more
        end = time.monotonic() + LAME_DUCK_S
        quiet_since = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet_since < QUIET_S:
            await asyncio.sleep(0.01)
            if self.workers.busy():
                quiet_since = time.monotonic()

    def _wait_for_models(self, stop: asyncio.Event) -> None:
        while not self.manager.wait(timeout_s=0.2):
            if stop.is_set():
                return

    async def _start_grpc(self) -> grpc.aio.Server:
        # Without this option a second server could bind the same port, and requests would go to either.
        options = [*SIZE_OPTIONS, ("grpc.so_reuseport", 0), *channel_options(self.flags.grpc_channel_arguments)]
        server = grpc.aio.server(options=options)
        GrpcLayer(self.service, self.workers, self.flags.enable_batching).add_to(server)
        if self.flags.enable_grpc_healthcheck_service:
            self.health = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
            for name in ("", "ModelService", "PredictionService"):
                await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        addresses = [f"{self.flags.bind_address}:{self.flags.port}"] if self.flags.port else []
        if self.flags.grpc_socket_path:
            addresses.append(f"unix:{self.flags.grpc_socket_path}")
        for address in addresses:
            try:
                server.add_insecure_port(address)
            except RuntimeError:
                raise OSError(f"cannot listen on {address}: in use, or not allowed") from None
        await server.start()
        log.info("gRPC on %s", ", ".join(addresses))
        return server

    async def _start_rest(self) -> tuple[uvicorn.Server | None, asyncio.Task[None] | None]:
        if not self.flags.rest_api_port:
            return None, None
        path = _metrics_path(self.flags.monitoring_config_file)
        layer = RestLayer(
            self.service, self.workers, self.flags.rest_api_timeout_in_ms, self.flags.rest_api_enable_cors_support, path
        )
        config = uvicorn.Config(
            layer.app,
            interface="asgi3",
            ws="none",
            proxy_headers=False,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(DRAIN_S),
        )
        host, port = self.flags.bind_address, self.flags.rest_api_port
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            # Inherited by its connections: an answer's head and body go out at once, not 40 ms apart.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as e:
            raise OSError(f"cannot listen on {host}:{port}: {e.strerror}") from None
        server = _QuietServer(config)
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        log.info("REST on %s:%d", self.flags.bind_address, self.flags.rest_api_port)
        return server, task

    async def _follow_config_file(self) -> None:
        """Apply the config file anew at each poll; what is wrong with it is logged and the old one stays."""
        interval_s, applied, complaint = self.flags.model_config_file_poll_wait_seconds, "", ""
        while self.flags.model_config_file and interval_s > 0:
            await asyncio.sleep(interval_s)
            try:
                text = Path(self.flags.model_config_file).read_text()
                if text != applied:
                    await asyncio.to_thread(self.manager.reload, versions.parse_config(text))
                    applied, complaint = text, ""
            except (ServingError, OSError, UnicodeDecodeError) as e:  # tried again: a label's version may be loading
                if str(e) != complaint:
                    log.warning("model config file not applied: %s", e)
                complaint = str(e)


class _QuietServer(uvicorn.Server):
    """Signals are the process's business, not uvicorn's."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)


def _metrics_path(config_file: str) -> str | None:
    """Path of `prometheus_config {enable: true path: "..."}`; None if monitoring is off. Raises FlagError, OSError."""
    if not config_file:
        return None
    config = pb.MonitoringConfig()
    try:
        text_format.Parse(Path(config_file).read_text(), config)
    except text_format.ParseError as e:
        raise FlagError(f"--monitoring_config_file={config_file}: {e}") from None
    prometheus = config.prometheus_config
    return (prometheus.path or "/monitoring/prometheus/metrics") if prometheus.enable else None


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        flags, notes = flags_module.parse(arguments)
    except FlagError as e:
        print(f"{e}\n{flags_module.usage()}", file=sys.stderr)
        return EXIT_FAILED
    for note in notes:
        print(note, file=sys.stderr)
    if flags.version:
        print("serving.model_server, a stand-in for TensorFlow ModelServer")
        print(f"TensorFlow Library: {library().TF_Version().decode()}")
        return 0
    try:
        server = Server(flags)
        uvloop.run(server.run())
    except (ServingError, OSError, FlagError, ImportError) as e:
        code = f"{e.code.name}: " if isinstance(e, ServingError) else ""
        print(f"Failed to start server. Error: {code}{e}", flush=True)
        return EXIT_FAILED
    if server.stuck:
        os._exit(0)  # its thread cannot be ended, and Python would wait for it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
