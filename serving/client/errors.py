"""What a client raises: one class for each status code that callers tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from components.common.errors import UserError


class ServingClientError(UserError):
    """A request that was not answered; subclasses exist for the codes that callers tell apart.

    Attributes:
        address: whom the client asked.
        code: canonical name, such as NOT_FOUND. REST has fewer codes than gRPC: its 400 is INVALID_ARGUMENT where gRPC
            may say FAILED_PRECONDITION or OUT_OF_RANGE, its 500 is INTERNAL where gRPC may say UNKNOWN or DATA_LOSS.
        text: the server's own words.
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
    """Nobody answers at the address, or the server is overloaded."""

    exit_code = 5
    advice = "Is the server running? Start one: make serve"


class DeadlineExceeded(ServingClientError):
    """No answer within timeout_s."""


class ResourceExhausted(ServingClientError):
    """Larger than the server takes, or too much at once."""


class Unimplemented(ServingClientError):
    """The server does not know the method, or the transport not the dtype."""


class Internal(ServingClientError):
    """The server failed, or answered what is no answer."""


_ERRORS: Final[Mapping[str, type[ServingClientError]]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNIMPLEMENTED": Unimplemented,
    "INTERNAL": Internal,
}


def error(address: str, code: str, text: str) -> ServingClientError:
    """The error of the class that belongs to `code`."""
    return _ERRORS.get(code, ServingClientError)(address, code, text)
