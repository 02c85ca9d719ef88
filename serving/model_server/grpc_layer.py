"""gRPC: PredictionService and ModelService on grpc.aio."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from serving.model_server.batching import LARGE_BYTES, Batcher
from serving.model_server.errors import Code, ServingError, shortened
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
ENTRYPOINT: Final = "GRPC"
STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
# TensorFlow Serving accepts messages up to 2 GB; the default of a grpc.aio server is 4 MB.
SIZE_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Call = Callable[[Any, int], Message]
"""(request, timeout in ms or 0) -> response; blocking; raises ServingError."""


class GrpcLayer:
    """Handles RPCs by calling the service in worker threads, so that a slow model never blocks the event loop.

    Args:
        batching: whether Predict requests that wait at the same time share a run of the session.
    """

    def __init__(self, service: Service, workers: Workers, batching: bool = False) -> None:
        self._service, self._workers = service, workers
        self._batcher = Batcher(workers) if batching else None
        self._services: dict[str, dict[str, tuple[type[Message], Call]]] = {
            "tensorflow.serving.PredictionService": {
                "Predict": (pb.PredictRequest, lambda r, t: service.predict(r, t, ENTRYPOINT)),
                "Classify": (pb.ClassificationRequest, lambda r, t: service.classify(r, t, ENTRYPOINT)),
                "Regress": (pb.RegressionRequest, lambda r, t: service.regress(r, t, ENTRYPOINT)),
                "MultiInference": (pb.MultiInferenceRequest, service.multi_inference),
                "GetModelMetadata": (pb.GetModelMetadataRequest, lambda r, _: service.metadata(r)),
            },
            "tensorflow.serving.ModelService": {
                "GetModelStatus": (pb.GetModelStatusRequest, lambda r, _: service.status(r)),
                "HandleReloadConfigRequest": (pb.ReloadConfigRequest, lambda r, _: service.reload(r)),
            },
        }

    def add_to(self, server: grpc.aio.Server) -> None:
        for service, methods in self._services.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(self._handler(request, call), response_serializer=_serialize)
                for name, (request, call) in methods.items()
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _handler(self, request_type: type[Message], call: Call) -> Callable[[bytes, Any], Awaitable[Message]]:
        async def handle(content: bytes, context: Any) -> Message:
            remaining_s = context.time_remaining()
            timeout_ms = max(1, int(remaining_s * 1000)) if remaining_s is not None else 0
            try:
                request = request_type.FromString(content)
                if self._batcher and isinstance(request, pb.PredictRequest) and len(content) < LARGE_BYTES:
                    return await self._batcher.run(self._service.predict_steps(request, timeout_ms, ENTRYPOINT))
                return await self._workers.run(partial(call, request, timeout_ms))
            except ServingError as e:
                code, message = e.code, e.message
            except DecodeError as e:
                code, message = Code.INTERNAL, str(e)
            except Exception as e:  # a bug must not close the connection
                log.exception("unexpected failure")
                code, message = Code.INTERNAL, f"{type(e).__name__}: {e}"
            await context.abort(STATUS_CODES[code], shortened(message))
            raise AssertionError("abort never returns")

        return handle


def _serialize(message: Message) -> bytes:
    return bytes(message.SerializeToString())


def channel_options(text: str) -> list[tuple[str, int | str]]:
    """Parse --grpc_channel_arguments: `k=v,k=v`; whole numbers become int."""
    options: list[tuple[str, int | str]] = []
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        options.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return options
