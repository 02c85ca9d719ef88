"""Clients of TensorFlow Serving, over gRPC or REST."""

from __future__ import annotations

from serving.client.base import ATTEMPTS, TIMEOUT_S, Client

__all__ = ["Client", "connect"]


def connect(address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> Client:
    """Return a client for `host:port` or `unix:/path` (gRPC), or for `http://host:port` (REST).

    The first request opens the connection. Only the transport in use is imported.
    """
    if address.startswith(("http://", "https://")):
        from serving.client.rest import RestClient

        return RestClient(address, timeout_s=timeout_s, attempts=attempts)
    from serving.client.grpc import GrpcClient

    return GrpcClient(address, timeout_s=timeout_s, attempts=attempts)
