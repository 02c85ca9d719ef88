"""Errors of the client. A caller tells them apart by what it can do about them.

UserError
└── ServingClientError       a request failed; codes without a class of their own
    ├── InvalidArgument      correct the request
    ├── FailedPrecondition   choose another signature, or export the model again
    ├── NotFound             choose a model and version that is loaded
    ├── Unavailable          start the server, or try again later
    ├── DeadlineExceeded     allow more time
    ├── ResourceExhausted    send less at once
    ├── Unimplemented        use another method or transport
    └── Internal             report a defect of the server
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from components.common.errors import UserError


class ServingClientError(UserError):
    """A request failed.

    Attributes:
        address: of the server.
        code: canonical gRPC name, such as NOT_FOUND. REST has fewer codes than gRPC: its 400 is INVALID_ARGUMENT where
            gRPC may return FAILED_PRECONDITION or OUT_OF_RANGE, its 500 is INTERNAL where gRPC may return UNKNOWN or
            DATA_LOSS.
        text: the server's message.
    """

    advice: ClassVar[str] = ""

    def __init__(self, address: str, code: str, text: str) -> None:
        super().__init__(f"{address}: {code}: {text}", self.advice)
        self.address, self.code, self.text = address, code, text
        self.args = (address, code, text)  # so that it survives pickling


class InvalidArgument(ServingClientError):
    """The server refuses the input, or knows no such label."""

    exit_code = 2


class FailedPrecondition(ServingClientError):
    """No such signature (gRPC), or a model without its variables."""

    exit_code = 5


class NotFound(ServingClientError):
    """No such model or version is loaded."""

    exit_code = 5
    advice = "See what is served: python -m serving status"


class Unavailable(ServingClientError):
    """No server responds at the address, or it is overloaded."""

    exit_code = 5
    advice = "Is the server running? Start one: make serve"


class DeadlineExceeded(ServingClientError):
    """No response within timeout_s."""


class ResourceExhausted(ServingClientError):
    """The request is larger than the server accepts, or there are too many at once."""


class Unimplemented(ServingClientError):
    """The server does not have the method, or the transport does not support the dtype."""


class Internal(ServingClientError):
    """The server failed, or its response cannot be read."""


GRPC_CODES: Final[Mapping[str, type[ServingClientError]]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNIMPLEMENTED": Unimplemented,
    "INTERNAL": Internal,
}
"""gRPC: codes without a row are plain ServingClientErrors."""

HTTP_STATUSES: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""REST: the gRPC code of each HTTP status; statuses without a row are INTERNAL."""


def from_code(address: str, code: str, text: str) -> ServingClientError:
    """Return the error for a gRPC code name."""
    return GRPC_CODES.get(code, ServingClientError)(address, code, text)


def from_http_status(address: str, status: int, text: str) -> ServingClientError:
    """Return the error for an HTTP status."""
    return from_code(address, HTTP_STATUSES.get(status, "INTERNAL"), text)
