"""Clients of TensorFlow Serving, over gRPC or REST."""

from __future__ import annotations

from serving.client.base import ATTEMPTS, TIMEOUT_S, Client

__all__ = ["Client", "connect"]


def connect(address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> Client:
    """A client for `host:port` or `unix:/path` (gRPC), or for `http://host:port` (REST).

    Connects with the first request. Only the transport that is asked for gets imported.
    """
    if address.startswith(("http://", "https://")):
        from serving.client.rest import RestClient

        return RestClient(address, timeout_s=timeout_s, attempts=attempts)
    from serving.client.grpc import GrpcClient

    return GrpcClient(address, timeout_s=timeout_s, attempts=attempts)
