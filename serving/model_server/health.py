"""The gRPC health service, for requests that may be malformed."""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

SERVICE: Final = "grpc.health.v1.Health"
NAMES: Final = ("", "ModelService", "PredictionService")  # as TensorFlow Serving


class Health(health.aio.HealthServicer):
    """Refuses bytes that are not a request; grpc.aio would log a traceback for them."""

    async def Check(self, request: Any, context: Any) -> Any:
        return await super().Check(await _parsed(request, context), context)

    async def Watch(self, request: Any, context: Any) -> None:
        await super().Watch(await _parsed(request, context), context)

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service, with all names SERVING."""
        encode = health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self.Check, response_serializer=encode),
            "Watch": grpc.unary_stream_rpc_method_handler(self.Watch, response_serializer=encode),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        for name in NAMES:
            await self.set(name, health_pb2.HealthCheckResponse.SERVING)


async def _parsed(content: bytes, context: Any) -> Any:
    try:
        return health_pb2.HealthCheckRequest.FromString(content)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request is not a HealthCheckRequest")
