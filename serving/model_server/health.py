"""The gRPC health service, for requests that may be malformed."""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from serving.model_server.errors import ServingError
from serving.model_server.grpc_calls import STATUS_CODES, Calls

SERVICE: Final = "grpc.health.v1.Health"
NAMES: Final = ("", "ModelService", "PredictionService")  # as TensorFlow Serving


class Health(health.aio.HealthServicer):
    """Refuses bytes that are not a request; grpc.aio would log a traceback for them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    async def Check(self, _: Any, context: Any) -> Any:
        return await super().Check(await self._received(context), context)

    async def Watch(self, _: Any, context: Any) -> None:
        await super().Watch(await self._received(context), context)

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service, with all names SERVING."""
        encode = health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.stream_unary_rpc_method_handler(self.Check, response_serializer=encode),
            "Watch": grpc.stream_stream_rpc_method_handler(self.Watch, response_serializer=encode),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        for name in NAMES:
            await self.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def _received(self, context: Any) -> Any:
        try:
            return health_pb2.HealthCheckRequest.FromString(await self._calls.receive(context))
        except ServingError as e:
            await context.abort(STATUS_CODES[e.code], e.message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request is not a HealthCheckRequest")
