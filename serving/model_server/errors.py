"""Errors as clients receive them: a canonical status code and TensorFlow Serving's text."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAX_MESSAGE_CHARS: Final = 1024  # TensorFlow Serving truncates longer messages over gRPC
TRUNCATED: Final = "...TRUNCATED"


class Code(IntEnum):
    """Canonical status codes, with the same numbers in TensorFlow and gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """The error response of a request. The message is shortened: it may contain what the client has sent."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = Code(code), shortened(message)
        super().__init__(self.message)


class TooLargeError(ServingError):
    """The content of a request is too large, whatever else the server is doing."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, message)


def invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def shortened(message: str) -> str:
    """Return the message, truncated if too long for gRPC."""
    return message if len(message) <= MAX_MESSAGE_CHARS else message[:MAX_MESSAGE_CHARS] + TRUNCATED
