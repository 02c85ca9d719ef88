"""Threads that run blocking calls for the event loop: one while calls are short, more when a call takes long.

Because of the GIL, threads whose calls take a fraction of a millisecond would mostly pass the lock to each other and to
the event loop. Here, one worker runs call after call, and the event loop collects results in batches, which doubles the
calls per second (docs/decisions/0011). When a call takes longer, another worker is added, so that the call does not
delay others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from serving.model_server.errors import Code, ServingError
from serving.model_server.limits import Ticket

STALL_S: Final = 0.005  # if all current calls run longer, another worker is added
TOO_LATE: Final = "Timed out waiting for notification"  # TensorFlow's text for a run that exceeds its time limit
MAX_UNDELIVERED: Final = 32  # the event loop is woken when this many results are waiting
OVERLOAD_S: Final = 0.02  # if the oldest pending call is older than this, the newest one is run first
Result = TypeVar("Result")


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Any]
    call: Callable[[], Any] | None  # None after the caller has gone, so that its request does not stay in memory
    ticket: Ticket | None
    since_s: float


class Workers:
    """Up to `limit` daemon threads for the event loop that calls `run`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._wake = threading.Condition()  # guards the two numbers below
        self._threads = self._idle = 0
        self._pending: deque[_Pending] = deque()
        self._started_at: dict[int, float] = {}  # thread id -> start time of its current call
        self._results: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._watching = False

    async def run(self, call: Callable[[], Result], ticket: Ticket | None = None) -> Result:
        """Run `call` in a worker. If the caller is cancelled first, or too late for its ticket, it is never made.

        Raises:
            ServingError: DEADLINE_EXCEEDED.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        pending = _Pending(future, call, ticket, time.monotonic())
        self._pending.append(pending)
        if not self._started_at:
            self._add_worker()
        if not self._watching:
            self._watching = True
            loop.call_later(STALL_S, self._watch, loop)
        try:
            return await future
        finally:
            pending.call = None
            del (
                future,
                pending,
                call,
            )  # an exception refers to this frame: with the future, it would keep itself and the call alive

    def busy(self) -> bool:
        """Return whether any call is pending or running."""
        return bool(self._pending or self._started_at)

    def _add_worker(self) -> None:
        with self._wake:
            if self._idle:
                self._wake.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"request-{self._threads}", daemon=True).start()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver results, and add a worker if all current calls are stalled. Repeats every STALL_S while busy."""
        self._deliver()
        now = time.monotonic()
        if self._pending and all(now - started > STALL_S for started in list(self._started_at.values())):
            self._add_worker()
        self._watching = bool(self._pending or self._started_at or self._results)
        if self._watching:
            loop.call_later(STALL_S, self._watch, loop)

    def _work(self) -> None:
        thread = threading.get_ident()
        while True:
            self._started_at[thread] = time.monotonic()
            try:
                pending = self._next()
            except IndexError:
                self._wait_for_call(thread)
                continue
            future, call, ticket = pending.future, pending.call, pending.ticket
            try:
                if ticket is not None and not ticket.start():
                    raise ServingError(Code.DEADLINE_EXCEEDED, TOO_LATE)
                if call is not None and not future.cancelled():
                    self._results.append((future, call(), None))
            except BaseException as e:  # raised again in the caller's task
                self._results.append((future, None, e))
            if len(self._results) >= MAX_UNDELIVERED or not self._pending:
                self._wake_loop(future.get_loop())
            del pending, future, call, ticket  # so that an idle thread does not keep them alive

    def _next(self) -> _Pending:
        """Return the call to make next. Raises IndexError if there is none.

        Under overload the oldest callers are about to give up: whoever came last is the most likely to still wait.
        """
        if time.monotonic() - self._pending[0].since_s > OVERLOAD_S:
            return self._pending.pop()
        return self._pending.popleft()

    def _wait_for_call(self, thread: int) -> None:
        with self._wake:
            # The order matters: `run` appends a call first, and then adds a worker if _started_at is empty.
            self._started_at.pop(thread, None)
            while not self._pending:
                self._idle += 1
                self._wake.wait()
                self._idle -= 1

    def _wake_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the results
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._results:
            future, result, error = self._results.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
