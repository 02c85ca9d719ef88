"""Errors of the client, one class for each way in which a caller can react.

UserError
└── ServingClientError       a request failed; also used for codes without their own class
    ├── InvalidArgument      correct the request
    ├── FailedPrecondition   choose another signature, or export the model again
    ├── NotFound             choose a loaded model and version
    ├── Unavailable          start the server
    │   └── Overloaded       send fewer requests at once, or try again later
    ├── Cancelled            try again
    ├── DeadlineExceeded     allow more time
    ├── ResourceExhausted    send less at once
    ├── Unimplemented        use another method or transport
    └── Internal             report a bug in the server
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from components.common.commands import command
from components.common.errors import UserError


class ServingClientError(UserError):
    """A request failed.

    Attributes:
        address: server address.
        code: canonical gRPC name, such as NOT_FOUND. REST has fewer codes than gRPC: 400 becomes INVALID_ARGUMENT where
            gRPC may return FAILED_PRECONDITION or OUT_OF_RANGE; 500 becomes INTERNAL where gRPC may return UNKNOWN or
            DATA_LOSS.
        text: the server's message.
    """

    advice: ClassVar[tuple[str, ...]] = ()  # text, and the words of a command to print after it

    def __init__(self, address: str, code: str, text: str) -> None:
        says, words = self.advice[:1], self.advice[1:]
        super().__init__(f"{address}: {code}: {text}", ": ".join([*says, *([command(*words)] if words else [])]))
        self.address, self.code, self.text = address, code, text
        self.args = (address, code, text)  # for pickling


class InvalidArgument(ServingClientError):
    """The server rejects the input or does not know the label."""

    exit_code = 2


class FailedPrecondition(ServingClientError):
    """The signature does not exist (gRPC), or the model has no variables."""

    exit_code = 5


class NotFound(ServingClientError):
    """The model or version is not loaded."""

    exit_code = 5
    advice = ("See what is served", "serving", "status")


class Unavailable(ServingClientError):
    """No server responds at the address, or it is starting or stopping."""

    exit_code = 5
    advice: ClassVar[tuple[str, ...]] = ("Is the server running? Start one", "serving", "up")


class Overloaded(Unavailable):
    """The server refuses the request because it has too many."""

    advice = ("The server is overloaded: send fewer requests at once, or try again later.",)


class Cancelled(ServingClientError):
    """The server, or a proxy, ended the request."""

    advice = ("The server ended the request, or this client was closed. Try again.",)


class DeadlineExceeded(ServingClientError):
    """No response within timeout_s."""


class ResourceExhausted(ServingClientError):
    """The request is larger than the server accepts, or there are too many requests at once."""

    advice = ("Send smaller requests, or fewer at once.",)


class Unimplemented(ServingClientError):
    """The server does not have the method, or the transport does not support the dtype."""


class Internal(ServingClientError):
    """The server failed, or its response cannot be read."""


GRPC_CODES: Final[Mapping[str, type[ServingClientError]]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Cancelled,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNIMPLEMENTED": Unimplemented,
    "INTERNAL": Internal,
}
"""The error class of each gRPC code; ServingClientError for all others."""

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
"""The gRPC code of each HTTP status; INTERNAL for all others."""


OVERLOADED: Final = re.compile("overloaded|queue|requests waiting|all requests together", re.IGNORECASE)
"""The UNAVAILABLE of a server that is overloaded; with any other text, there is no server or it is stopping."""


def from_code(address: str, code: str, text: str) -> ServingClientError:
    """Return the error for a gRPC code name."""
    if code == "UNAVAILABLE" and OVERLOADED.search(text):
        return Overloaded(address, code, text)
    return GRPC_CODES.get(code, ServingClientError)(address, code, text)


def from_http_status(address: str, status: int, text: str) -> ServingClientError:
    """Return the error for an HTTP status."""
    return from_code(address, HTTP_STATUSES.get(status, "INTERNAL"), text)
