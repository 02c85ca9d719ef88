"""The limits of the data plane, the same for gRPC and REST: how much a request, and all of them together, may hold.

A request over a limit is refused with the protocol's own code and counted in the metrics; the log gets at most
one line a second.
"""

from __future__ import annotations

import resource
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.flags import Flags
from serving.model_server.refusals import Refusals

LARGE_BYTES: Final = 2**18  # larger requests and responses are converted in another process (see codec_pool.py)
LARGE_JSON_BYTES: Final = 2**15  # the same for JSON, which takes much longer to parse
LARGE_SHARE: Final = 0.75  # of the bytes of all requests; the rest is reserved for requests that are not large
BUSY_S: Final = 0.01  # if the expected wait for a run is longer, some requests may have to be refused
SAFETY: Final = 0.4  # part of the time until its deadline that a request may be expected to wait for its run
BASE_WORK: Final = 2**10  # work of a request with no content, in the unit of its bytes
SMOOTHING: Final = 0.1  # weight of the newest sample of the pace
CONNECTION_BYTES: Final = 2**16
MAX_FILES: Final = 2**16
OTHER_FILES: Final = 64  # that the server needs beside connections


@dataclass(frozen=True)
class Limits:
    """Each limit is a flag of the same name with `max_` (docs/serving.md).

    Attributes:
        request_bytes: of one request, unpacked.
        tensor_bytes: of all tensors of one request as filled: a shape with one value can be large.
        pending_requests, pending_bytes: of all requests without a response, and of responses not yet taken.
        connections: HTTP connections, and gRPC connections.
        header_bytes, headers: of one HTTP request, its URL included.
        receive_s: for receiving a request, and for taking a response.
    """

    request_bytes: int = 16 * 2**20
    tensor_bytes: int = 16 * 2**20
    pending_requests: int = 2000
    pending_bytes: int = 512 * 2**20
    connections: int = 1000
    header_bytes: int = 64 * 2**10
    headers: int = 100
    receive_s: float = 30.0

    @staticmethod
    def from_flags(flags: Flags) -> Limits:
        return Limits(
            request_bytes=flags.max_request_bytes,
            tensor_bytes=flags.max_tensor_bytes,
            pending_requests=flags.max_pending_requests,
            pending_bytes=flags.max_pending_bytes,
            connections=max(1, min(flags.max_connections, (max_files() - OTHER_FILES) // 2)),
            header_bytes=flags.max_header_bytes,
            headers=flags.max_headers,
            receive_s=flags.receive_timeout_in_ms / 1000,
        )

    def max_resident_bytes(self) -> int:
        """Return what the server's process may need for requests: a message, its arrays and TensorFlow's copy."""
        return 3 * self.pending_bytes + self.connections * (self.header_bytes + CONNECTION_BYTES)


def max_files() -> int:
    """Raise this process's limit of open files as far as allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else MAX_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, MAX_FILES), hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else MAX_FILES


@dataclass
class _Queue:
    """Requests that wait for the same resources: the workers or, if they are large, the processes that decode them.

    Attributes:
        work: of the requests whose run has not started, in bytes.
        s_per_work: moving average of the time that a request waits for its run, per work that was waiting.
    """

    work: int = 0
    s_per_work: float = 0.0


class Ticket:
    """One admitted request: the bytes that it holds, and whether its run may still start. Thread-safe.

    Use it as a context manager for as long as the request holds memory.
    """

    __slots__ = ("_admission", "_ahead", "_bytes", "_cancelled_s", "_deadline_s", "_entered_s", "_queue", "_work")

    def __init__(self, admission: Admission, queue: _Queue, size_bytes: int, timeout_s: float | None) -> None:
        self._admission, self._queue = admission, queue
        self._bytes = 0
        self._entered_s = time.monotonic()
        self._deadline_s = self._entered_s + timeout_s if timeout_s is not None else float("inf")
        self._cancelled_s = float("inf")
        self._work = BASE_WORK + size_bytes  # 0 when it no longer waits for its run
        self._ahead = 0

    def grow(self, size_bytes: int) -> None:
        """Account for more bytes. Raises ServingError: UNAVAILABLE if all requests together hold too many."""
        self._admission._reserve(self, size_bytes)

    def start(self) -> bool:
        """Called when the request's run is about to start. Return False if it must not: client gone, or too late."""
        now_s = time.monotonic()
        alive = now_s < self._cancelled_s and now_s < self._deadline_s
        self._admission._started(self, now_s, alive)
        return alive

    def started(self) -> bool:
        """Return whether the request's run has started."""
        return self._work == 0

    def age_s(self) -> float:
        """Return the time since the request was admitted."""
        return time.monotonic() - self._entered_s

    def remaining_ms(self) -> int:
        """Return the time until the deadline, at least 1; 0 if there is no deadline."""
        if self._deadline_s == float("inf"):
            return 0
        return max(1, int((self._deadline_s - time.monotonic()) * 1000))

    def refuse(self, reason: str, message: str) -> ServingError:
        """Return the error of a request that was admitted but cannot be queued."""
        return self._admission.unavailable(reason, message)

    def gone(self) -> bool:
        """Return whether the client has gone."""
        return time.monotonic() >= self._cancelled_s

    def release(self) -> None:
        """The request no longer holds any memory."""
        self._admission._left(self)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()


class Admission:
    """Decides whether a request may wait for its run. One for the whole server."""

    def __init__(self, limits: Limits, refusals: Refusals | None = None) -> None:
        self.limits, self.refusals = limits, refusals or Refusals()
        self._lock = threading.Lock()  # guards everything below
        self._requests = self._bytes = 0
        self._queues = {large: _Queue() for large in (False, True)}

    def hold(self, size_bytes: int = 0) -> Ticket:
        """Account for bytes that do not wait for a run. Raises ServingError: UNAVAILABLE if there are too many."""
        with self._lock:
            self._requests += 1
        ticket = Ticket(self, self._queues[False], 0, None)
        ticket._work = 0
        return self._grown(ticket, size_bytes)

    def enter(self, size_bytes: int, timeout_s: float | None = None, *, large: bool | None = None) -> Ticket:
        """Admit a request of this size.

        Args:
            large: whether it is decoded in another process; by default judged by its size.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if it is too large; UNAVAILABLE if the server has too many requests, or too
                many to run this one before its deadline.
        """
        self.check_request(size_bytes)
        queue = self._queues[size_bytes >= LARGE_BYTES if large is None else large]
        ticket = Ticket(self, queue, size_bytes, timeout_s)
        with self._lock:
            self._check_wait(queue, timeout_s)
            self._requests += 1
            queue.work += ticket._work
            ticket._ahead = queue.work
        return self._grown(ticket, size_bytes)

    def _grown(self, ticket: Ticket, size_bytes: int) -> Ticket:
        try:
            ticket.grow(size_bytes)
        except ServingError:
            self._left(ticket)
            raise
        return ticket

    def is_idle(self) -> bool:
        """Return whether there is no request."""
        return self._requests == 0

    def busy(self) -> bool:
        """Return whether a request that is not large may have to be refused."""
        queue = self._queues[False]
        return queue.work * queue.s_per_work > BUSY_S or self._requests >= self.limits.pending_requests

    def check_wait(self, timeout_s: float | None) -> None:
        """Raise ServingError if a request that is not large would be refused now, whatever its size."""
        self._check_wait(self._queues[False], timeout_s)

    def _check_wait(self, queue: _Queue, timeout_s: float | None) -> None:
        if self._requests >= self.limits.pending_requests:
            raise self.unavailable(
                "pending_requests", f"The server has {self.limits.pending_requests} requests waiting"
            )
        expected_s = queue.work * queue.s_per_work
        if timeout_s is not None and queue.work > 0 and expected_s > SAFETY * timeout_s:
            raise self.unavailable(
                "shed", f"The server is overloaded: this request would wait {expected_s * 1000:.0f} ms for its run"
            )

    def check_request(self, size_bytes: int) -> None:
        """Raise ServingError if a request of this size is too large."""
        if size_bytes > self.limits.request_bytes:
            self.refusals.count("request_bytes")
            raise TooLargeError(f"Request body is larger than {self.limits.request_bytes} bytes")

    def check_tensors(self, size_bytes: int) -> None:
        """Raise ServingError if a request's tensors, as filled, are too large."""
        if size_bytes > self.limits.tensor_bytes:
            raise self.exhausted(
                "tensor_bytes",
                f"The tensors of the request need {size_bytes} bytes, more than {self.limits.tensor_bytes}",
            )

    def exhausted(self, reason: str, message: str) -> ServingError:
        self.refusals.count(reason)
        return ServingError(Code.RESOURCE_EXHAUSTED, message)

    def unavailable(self, reason: str, message: str) -> ServingError:
        self.refusals.count(reason)
        return ServingError(Code.UNAVAILABLE, message)

    def cancelled(self, ticket: Ticket) -> None:
        """The client has gone. A run that has not started never will."""
        ticket._cancelled_s = min(ticket._cancelled_s, time.monotonic())

    def _reserve(self, ticket: Ticket, size_bytes: int) -> None:
        limit = self.limits.pending_bytes
        if ticket._bytes + size_bytes > LARGE_BYTES:
            limit = int(limit * LARGE_SHARE)
        with self._lock:
            fits = self._bytes + size_bytes <= limit
            if fits:
                self._bytes += size_bytes
                ticket._bytes += size_bytes
        if not fits:
            raise self.unavailable("pending_bytes", f"All requests together need more than {limit} bytes")

    def _started(self, ticket: Ticket, now_s: float, alive: bool) -> None:
        with self._lock:
            if ticket._work:
                sample = (now_s - ticket._entered_s) / max(ticket._ahead, 1)
                ticket._queue.s_per_work += SMOOTHING * (sample - ticket._queue.s_per_work)
                ticket._queue.work -= ticket._work
                ticket._work = 0
        if not alive:
            self.refusals.count("deadline" if ticket._cancelled_s == float("inf") else "client_gone")
        elif ticket._cancelled_s <= now_s:  # must never happen: the drills check that this counter stays 0
            self.refusals.count("started_after_cancellation")

    def _left(self, ticket: Ticket) -> None:
        with self._lock:
            self._requests -= 1
            self._bytes -= ticket._bytes
            ticket._queue.work -= ticket._work
            ticket._bytes = ticket._work = 0
