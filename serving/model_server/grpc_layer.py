"""gRPC: PredictionService and ModelService on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from serving.model_server import codec, data_plane
from serving.model_server.batching import DEFAULT_MAX_ENQUEUED, Batcher
from serving.model_server.codec_pool import CodecPool
from serving.model_server.control import Control
from serving.model_server.errors import Code, ServingError, shortened
from serving.model_server.grpc_calls import STATUS_CODES, Calls
from serving.model_server.limits import LARGE_BYTES, Limits, Ticket
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
ENTRYPOINT: Final = "GRPC"
PENDING_IN_CORE: Final = 100_000  # calls that gRPC-core holds before we see them; by default it cancels above 1,000
MAX_STREAMS: Final = 1000  # concurrent calls of one connection; further ones wait in the client
HANDSHAKE_MS: Final = 10_000
KEEPALIVE_MS: Final = 30_000

Call = Callable[[Any], Message]
"""request -> response; does not block; raises ServingError."""
Handle = Callable[[bytes, Any], Awaitable[Message | bytes]]
"""(serialized request, gRPC's context) -> response, which may be serialized already."""
Infer = Callable[..., Message]
"""(request, ticket, decoded) -> response; blocking; raises ServingError."""


class GrpcLayer:
    """Handles RPCs by calling the service in worker threads, so that a slow model never blocks the event loop.

    Args:
        codecs: decode large requests.
        calls: end calls that stall.
        batching: whether Predict requests that wait at the same time share a run of the session.
        max_enqueued: maximum number of batches that wait for a worker.
    """

    def __init__(
        self,
        service: Service,
        workers: Workers,
        control: Control,
        codecs: CodecPool,
        calls: Calls,
        batching: bool = False,
        max_enqueued: int = DEFAULT_MAX_ENQUEUED,
    ) -> None:
        self._service, self._workers, self._control, self._codecs = service, workers, control, codecs
        self._calls, self._admission = calls, service.admission
        self._batcher = Batcher(workers, max_enqueued) if batching else None

    def add_to(self, server: grpc.aio.Server) -> None:
        service = self._service
        services: dict[str, dict[str, Any]] = {
            "tensorflow.serving.PredictionService": {
                "Predict": self._inference(pb.PredictRequest, partial(service.predict, entrypoint=ENTRYPOINT)),
                "Classify": self._inference(pb.ClassificationRequest, partial(service.classify, entrypoint=ENTRYPOINT)),
                "Regress": self._inference(pb.RegressionRequest, partial(service.regress, entrypoint=ENTRYPOINT)),
                "MultiInference": self._inference(pb.MultiInferenceRequest, service.multi_inference),
                "GetModelMetadata": self._handler(self._quick(pb.GetModelMetadataRequest, service.metadata)),
            },
            "tensorflow.serving.ModelService": {
                "GetModelStatus": self._handler(self._quick(pb.GetModelStatusRequest, service.status)),
                "HandleReloadConfigRequest": self._handler(self._reload),
            },
        }
        for name, handlers in services.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    def _quick(self, request_type: type[Message], call: Call) -> Callable[[bytes, Any], Awaitable[Message]]:
        """Handle a short call on the event loop: it must respond although all workers are busy."""

        async def handle(content: bytes, _: Any) -> Message:
            return call(request_type.FromString(content))

        return handle

    async def _reload(self, content: bytes, context: Any) -> Message:
        return await self._control.reload(pb.ReloadConfigRequest.FromString(content), context.time_remaining())

    def _inference(self, request_type: type[Message], call: Infer) -> grpc.RpcMethodHandler:
        async def handle(content: bytes, context: Any) -> bytes:
            ticket = self._admission.enter(len(content), context.time_remaining())

            def done(context: Any) -> None:  # the client has taken the response, or has gone
                self._calls.sent(context)
                ticket.release()

            context.add_done_callback(done)
            try:
                response = _serialize(await self._infer(request_type, call, content, ticket))
            except asyncio.CancelledError:
                self._admission.cancelled(ticket)
                raise
            ticket.grow(len(response))
            self._calls.send(context)
            return response

        return self._handler(handle, sheds=True)

    async def _infer(self, request_type: type[Message], call: Infer, content: bytes, ticket: Ticket) -> Message | bytes:
        if len(content) >= LARGE_BYTES:
            decode = partial(
                codec.decode_grpc,
                request_type.DESCRIPTOR.name,
                codec.Content(content),
                self._admission.limits.tensor_bytes,
            )
            header, decoded = await self._codecs.run(decode, ticket)
            header_request = request_type.FromString(header)
            return await self._workers.run(lambda: _serialize(call(header_request, ticket, decoded)), ticket)
        request = request_type.FromString(content)
        if (
            self._batcher
            and isinstance(request, pb.PredictRequest)
            and data_plane.tensor_bytes(request) < LARGE_BYTES  # as filled
        ):
            return await self._batcher.run(self._service.predict_steps(request, ticket, entrypoint=ENTRYPOINT), ticket)
        return await self._workers.run(lambda: _serialize(call(request, ticket, None)), ticket)

    def _handler(self, handle: Handle, sheds: bool = False) -> grpc.RpcMethodHandler:
        """Return the handler of an RPC (see Calls). Under overload, `sheds` refuses calls before they are received."""
        admission = self._admission

        async def handle_errors(_: Any, context: Any) -> Message | bytes:
            try:
                if sheds and admission.busy():
                    admission.check_wait(context.time_remaining())
                return await handle(await self._calls.receive(context), context)
            except ServingError as e:
                code, message = e.code, e.message
            except DecodeError as e:
                code, message = Code.INTERNAL, str(e)
            except Exception as e:  # a bug must not close the connection
                log.exception("unexpected failure")
                code, message = Code.INTERNAL, f"{type(e).__name__}: {e}"
            await context.abort(STATUS_CODES[code], shortened(message))
            raise AssertionError("abort never returns")

        return grpc.stream_unary_rpc_method_handler(handle_errors, response_serializer=_serialize)


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def server_options(limits: Limits) -> Sequence[tuple[str, int]]:
    """Return gRPC-core's options for the limits."""
    return (
        ("grpc.max_receive_message_length", limits.request_bytes),
        ("grpc.max_send_message_length", -1),
        # Without so_reuseport=0, a second server could bind the same port and would receive some of the requests.
        ("grpc.so_reuseport", 0),
        ("grpc.server.max_pending_requests", PENDING_IN_CORE),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_IN_CORE),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),  # finds clients whose machine or network has gone
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
    )


def channel_options(text: str) -> list[tuple[str, int | str]]:
    """Parse --grpc_channel_arguments: `k=v,k=v`; whole numbers become int."""
    options: list[tuple[str, int | str]] = []
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        options.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return options
