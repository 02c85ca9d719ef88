"""A pool of processes that run the functions of codec.py."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from serving.model_server.codec_process import TOO_MUCH, Error, Process
from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.limits import Admission, Ticket
from serving.model_server.workers import OVERLOAD_S, TOO_LATE

MAX_CALL_S: Final = 60.0  # for calls without a deadline
MIN_CALL_S: Final = 1.0  # a call that nobody waits for may take this long: to start a new process costs half of it
IMPATIENT_SHARE: Final = 16  # only one in so many calls may wait after a client has left before it was its turn, ...
IMPATIENT_S: Final = 2.0  # ... for this long
Result = TypeVar("Result")


class CodecPool:
    """Up to `size` processes, started when first needed. Further calls wait; the newest is first under overload.

    Belongs to one event loop.

    Args:
        memory_bytes: what a process may allocate for a call.
        max_waiting: calls that may wait, per process.
    """

    def __init__(self, admission: Admission, size: int, memory_bytes: int, max_waiting: int) -> None:
        self._admission, self._size, self._memory_bytes = admission, size, memory_bytes
        self._max_waiting = size * max_waiting
        self._count = 0  # of processes, with those that are starting
        self._started: set[Process] = set()
        self._idle: list[Process] = []
        self._waiting: OrderedDict[asyncio.Future[Process], float] = OrderedDict()  # since when, in seconds
        self._left_s = float("-inf")  # when a client left before it was its turn
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop holds only weak references to tasks

    async def run(self, call: Callable[[], Result], ticket: Ticket) -> Result:
        """Run a picklable call in another process.

        Raises:
            ServingError: as raised by the call; RESOURCE_EXHAUSTED if it needed too much memory; DEADLINE_EXCEEDED;
                UNAVAILABLE if too many calls wait.
            DecodeError: as raised by the call.
        """
        try:
            async with asyncio.timeout(min(MAX_CALL_S, (ticket.remaining_ms() or MAX_CALL_S * 1000) / 1000)):
                outcome = await self._outcome(call, ticket)
        except TimeoutError:
            self._admission.refusals.count("deadline")
            raise ServingError(Code.DEADLINE_EXCEEDED, TOO_LATE) from None
        except asyncio.CancelledError:
            self._admission.refusals.count("client_gone")
            raise
        if isinstance(outcome, DecodeError):
            raise outcome
        if isinstance(outcome, TooLargeError):
            self._admission.refusals.count("request_bytes")
            raise outcome
        if isinstance(outcome, Error):
            if outcome.code == Code.RESOURCE_EXHAUSTED:
                raise self._admission.exhausted("tensor_bytes", outcome.message)
            raise ServingError(outcome.code, outcome.message)
        return outcome  # type: ignore[no-any-return]

    def check_waiting(self) -> None:
        """Raise ServingError: UNAVAILABLE if too many calls wait.

        REST clients do not tell their deadlines. If some have left, only few may wait, because to receive and queue a
        request in vain costs more than to refuse it.
        """
        impatient = time.monotonic() - self._left_s < IMPATIENT_S
        limit = max(1, self._max_waiting // IMPATIENT_SHARE) if impatient else self._max_waiting
        if len(self._waiting) >= limit:
            raise self._admission.unavailable("large_requests", f"{limit} large requests are waiting to be decoded")

    def close(self) -> None:
        self._size = 0
        for task in self._tasks:
            task.cancel()
        for process in self._started:
            process.kill()

    async def _outcome(self, call: Callable[[], Any], ticket: Ticket) -> Any:
        process = await self._process()
        if not ticket.start():
            self._free(process)
            raise ServingError(Code.DEADLINE_EXCEEDED, TOO_LATE)
        loop = asyncio.get_running_loop()
        started_s, using = loop.time(), self._task(self._use(process, call))
        try:
            return await asyncio.shield(using)
        finally:
            if not using.done():  # the client has gone, or it is too late
                loop.call_at(started_s + MIN_CALL_S, using.cancel)
            del using  # see Workers.run

    async def _process(self) -> Process:
        """Wait for a process. The caller passes it to `_use` or `_free`."""
        if self._idle:
            return self._idle.pop()
        self.check_waiting()
        future: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._waiting[future] = time.monotonic()
        if self._count < self._size:
            self._count += 1
            self._task(self._start())
        try:
            return await future
        except asyncio.CancelledError:
            self._left_s = time.monotonic()
            if future.done() and not future.cancelled():
                self._free(future.result())
            raise
        finally:
            self._waiting.pop(future, None)
            del future

    def _free(self, process: Process) -> None:
        """Pass a process to a call that waits."""
        while self._waiting:
            since_s = next(iter(self._waiting.values()))
            future, _ = self._waiting.popitem(last=time.monotonic() - since_s > OVERLOAD_S)
            if not future.done():  # cancelled in this turn of the loop
                future.set_result(process)
                return
        self._idle.append(process)

    async def _use(self, process: Process, call: Callable[[], Any]) -> Any:
        try:
            outcome = await process.call(call)
        except BaseException as e:
            if self._size:  # not closed
                self._task(self._start(instead_of=process))
            if isinstance(e, (EOFError, OSError)):  # it crashed, most likely for want of memory
                return Error(Code.RESOURCE_EXHAUSTED, TOO_MUCH.format(self._memory_bytes))
            raise
        self._free(process)
        return outcome

    async def _start(self, instead_of: Process | None = None) -> None:
        """Start a process, after killing the one that it replaces."""
        process = None
        try:
            if instead_of is not None:
                self._started.discard(instead_of)
                await asyncio.to_thread(instead_of.kill)
            if not self._size:  # closed
                return
            process = Process(self._memory_bytes)
            self._started.add(process)
            await process.ready()
        except (EOFError, OSError) as e:
            self._count -= 1
            if process is not None:
                self._started.discard(process)
                await asyncio.to_thread(process.kill)
            while self._waiting:
                future, _ = self._waiting.popitem()
                if not future.done():
                    future.set_exception(ServingError(Code.UNAVAILABLE, f"Cannot start a process that decodes: {e}"))
            return
        self._free(process)

    def _task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
