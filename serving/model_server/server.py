"""The embedded model server: loads the models, opens the gRPC and REST ports, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import uvicorn
from google.protobuf import text_format

from components.common import resources
from components.common.errors import InputError
from components.versions import manifest
from serving.model_server import batching, memory, versions, warmup
from serving.model_server.codec_pool import CodecPool
from serving.model_server.control import Control, is_loopback
from serving.model_server.errors import Code, ServingError
from serving.model_server.flags import FlagError, Flags
from serving.model_server.grpc_calls import Calls
from serving.model_server.grpc_layer import GrpcLayer, channel_options, server_options
from serving.model_server.health import Health
from serving.model_server.http_protocol import Connections, LimitedProtocol
from serving.model_server.limits import Admission, Limits
from serving.model_server.manager import Manager, Policy
from serving.model_server.metrics import Metrics
from serving.model_server.refusals import Refusals
from serving.model_server.rest_layer import RestLayer
from serving.model_server.servable import Servable
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb

log = logging.getLogger("model_server")
LAME_DUCK_S: Final = 2.0  # maximum time after SIGTERM for requests that are still arriving
QUIET_S: Final = 0.2  # the lame-duck period ends after this time without a request
DRAIN_S: Final = 6.5  # maximum time after that for requests in flight; orchestrators kill after 10 s or more


class Server:
    """Starts and stops all parts of the server in order.

    Attributes:
        stuck: after `run`, whether a request is still running although its client has been sent an error.

    Raises:
        FlagError, OSError: a file named by a flag is invalid or cannot be read.
    """

    def __init__(self, flags: Flags) -> None:
        memory.return_freed()
        self._flags = flags
        self._max_batch_size, self._max_enqueued = batching.batch_limits(
            flags.enable_batching, flags.batching_parameters_file
        )
        self._metrics_path = _metrics_path(flags.monitoring_config_file) if flags.rest_api_port else None
        policy = Policy(
            poll_s=flags.file_system_poll_wait_seconds,
            max_retries=flags.max_num_load_retries,
            retry_interval_s=flags.load_retry_interval_micros / 1e6,
            labels_before_available=flags.allow_version_labels_for_unavailable_models,
        )
        self._manager = Manager(self._load, policy)
        self._limits, self._refusals = Limits.from_flags(flags), Refusals()
        admission = Admission(self._limits, self._refusals)
        metrics = Metrics(self._manager.knows, self._refusals)
        self._service = Service(self._manager, metrics, admission, flags.enable_serialization_as_tensor_content)
        self._workers = Workers(limit=4 * resources.cores())
        self._codecs = CodecPool(admission, resources.cores(), flags.max_decoder_bytes, flags.max_decoder_requests)
        self._control = Control(
            self._service,
            allowed=is_loopback(flags.bind_address) if flags.allow_reload is None else flags.allow_reload,
            proven_only=flags.proven_only,
            timeout_s=flags.reload_timeout_in_ms / 1000,
        )
        self._connections = Connections(self._limits, self._refusals)
        self._calls = Calls(self._limits, self._refusals)
        self._health: Health | None = None
        self.stuck = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish accepted requests. Raises ServingError, OSError, FlagError."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        configs = _model_configs(self._flags)
        self._control.configured(configs)
        self._manager.start(configs)
        loading = asyncio.create_task(asyncio.to_thread(self._wait_for_models, stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return
        loading.result()  # raises if a model did not load
        grpc_server = await self._start_grpc()
        try:
            rest_server, rest_task = await self._start_rest()
        except OSError:
            await grpc_server.stop(None)
            raise
        reloading = asyncio.create_task(self._follow_config_file())
        watches = self._connections.watch(), self._calls.watch(), self._watch_memory()
        watching = [asyncio.create_task(watch) for watch in watches]
        print("serving: ready", file=sys.stderr, flush=True)
        await stopping
        print("serving: draining", file=sys.stderr, flush=True)
        reloading.cancel()
        for task in watching:
            task.cancel()
        self._manager.stop_watching()
        await self._lame_duck()
        if rest_server is not None and rest_task is not None:
            rest_server.should_exit = True
            await asyncio.gather(grpc_server.stop(DRAIN_S), rest_task)
        else:
            await grpc_server.stop(DRAIN_S)
        self._codecs.close()
        self.stuck = not await asyncio.to_thread(self._manager.stop, timeout_s=0.5)

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        versions.check_files(folder)
        if self._flags.proven_only:
            try:
                manifest.verify(folder)
            except InputError as e:
                raise ServingError(Code.FAILED_PRECONDITION, e.problem) from None
        tags, config = self._flags.saved_model_tags.split(","), _session_config(self._flags)
        servable = Servable(name, version, folder, tags, config, self._max_batch_size)
        if self._flags.enable_model_warmup:
            try:
                warmup.replay(servable)
            except BaseException:
                servable.unload()
                raise
        return servable

    def _wait_for_models(self, stop: asyncio.Event) -> None:
        while not self._manager.wait(timeout_s=0.2):
            if stop.is_set():
                return

    async def _start_grpc(self) -> grpc.aio.Server:
        options = [*server_options(self._limits), *channel_options(self._flags.grpc_channel_arguments)]
        server = grpc.aio.server(options=options)
        batching, max_enqueued = self._flags.enable_batching, self._max_enqueued
        GrpcLayer(
            self._service, self._workers, self._control, self._codecs, self._calls, batching, max_enqueued
        ).add_to(server)
        if self._flags.enable_grpc_healthcheck_service:
            self._health = Health(self._calls)
            await self._health.add_to(server)
        addresses = [f"{self._flags.bind_address}:{self._flags.port}"] if self._flags.port else []
        if self._flags.grpc_socket_path:
            addresses.append(f"unix:{self._flags.grpc_socket_path}")
        for address in addresses:
            try:
                server.add_insecure_port(address)
            except RuntimeError:
                raise OSError(f"cannot listen on {address}: in use, or not allowed") from None
        await server.start()
        log.info("gRPC on %s", ", ".join(addresses))
        return server

    async def _start_rest(self) -> tuple[uvicorn.Server | None, asyncio.Task[None] | None]:
        host, port = self._flags.bind_address, self._flags.rest_api_port
        if not port:
            return None, None
        timeout_ms, cors = self._flags.rest_api_timeout_in_ms, self._flags.rest_api_enable_cors_support
        config = uvicorn.Config(
            RestLayer(self._service, self._workers, self._codecs, timeout_ms, cors, self._metrics_path).app,
            interface="asgi3",
            http=partial(LimitedProtocol, self._connections),  # type: ignore[arg-type]
            ws="none",
            proxy_headers=False,
            log_level="error",  # warnings are about invalid requests, of which a client can send any number
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(DRAIN_S),
        )
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            # Inherited by connections: sends a response's headers and body at once, not 40 ms apart.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as e:
            raise OSError(f"cannot listen on {host}:{port}: {e.strerror}") from None
        server = _RestServer(config)
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        log.info("REST on %s:%d", host, port)
        return server, task

    async def _watch_memory(self) -> None:
        def is_idle() -> bool:
            return self._calls.is_idle() and self._service.admission.is_idle()

        await memory.watch(self._limits.max_resident_bytes(), is_idle, self._calls.end_arriving)

    async def _follow_config_file(self) -> None:
        """Apply the config file at each poll if it has changed. Errors are logged, and the old config stays active."""
        interval_s, applied, logged = self._flags.model_config_file_poll_wait_seconds, "", ""
        while self._flags.model_config_file and interval_s > 0:
            await asyncio.sleep(interval_s)
            try:
                text = Path(self._flags.model_config_file).read_text()
                if text != applied:
                    configs = versions.parse_config(text, self._flags.model_config_file)
                    self._control.configured(configs)
                    await asyncio.to_thread(self._manager.reload, configs)
                    applied, logged = text, ""
            except (ServingError, OSError, UnicodeDecodeError) as e:  # retried: a label's version may still be loading
                if str(e) != logged:
                    log.warning("model config file not applied: %s", e)
                logged = str(e)

    async def _lame_duck(self) -> None:
        """Keep serving briefly: when gRPC stops, it rejects requests that have arrived but have not been read yet."""
        if self._health is not None:
            await self._health.enter_graceful_shutdown()  # NOT_SERVING: load balancers stop sending
        end = time.monotonic() + LAME_DUCK_S
        quiet_since = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet_since < QUIET_S:
            await asyncio.sleep(0.01)
            if self._workers.busy():
                quiet_since = time.monotonic()


class _RestServer(uvicorn.Server):
    """A uvicorn server that installs no signal handlers: `Server` handles signals."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)


def _session_config(flags: Flags) -> bytes:
    """Return a serialized ConfigProto. By default each request uses one thread, and requests run in parallel."""
    both = flags.tensorflow_session_parallelism
    config = pb.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism or both or 1,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism or both or -1,  # -1: the calling thread
    )
    return bytes(config.SerializeToString())


def _model_configs(flags: Flags) -> list[pb.ModelConfig]:
    """Return the models to serve, from the config file or the flags. Raises ServingError, OSError, FlagError."""
    if flags.model_config_file:
        return versions.parse_config(Path(flags.model_config_file).read_text(), flags.model_config_file)
    if not flags.model_base_path:
        raise FlagError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return [pb.ModelConfig(name=flags.model_name, base_path=flags.model_base_path, model_platform=versions.PLATFORM)]


def _metrics_path(config_file: str) -> str | None:
    """Return the URL path of the Prometheus metrics; None if monitoring is off. Raises FlagError, OSError."""
    if not config_file:
        return None
    config = pb.MonitoringConfig()
    try:
        text_format.Parse(Path(config_file).read_text(), config)
    except text_format.ParseError as e:
        raise FlagError(f"--monitoring_config_file={config_file}: {e}") from None
    prometheus = config.prometheus_config
    return (prometheus.path or "/monitoring/prometheus/metrics") if prometheus.enable else None
