"""Threads that run blocking calls for the event loop: one at work while calls are short, more when one takes long.

Python runs one thread at a time. Threads that compete with the event loop for a fraction of a millisecond's work
each mostly hand the interpreter to and fro; here one worker takes call after call and its answers are fetched in
bunches, which doubles the calls per second (docs/decisions/0011). A call that takes longer gets company, so it never
keeps others waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

STALL_S: Final = 0.005  # a call that runs for longer gets another worker beside it
BUNCH: Final = 32  # answers at most that wait to be fetched together
Result = TypeVar("Result")


class Workers:
    """Up to `limit` daemon threads for one event loop, the one that calls `run`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._wake = threading.Condition()  # guards the two numbers below
        self._threads = self._idle = 0
        self._waiting: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._began: dict[int, float] = {}  # thread -> when its present call began
        self._answered: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._watching = False

    async def run(self, call: Callable[[], Result]) -> Result:
        """What `call` returns or raises. If the caller is cancelled before its turn, the call is never made."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((future, call))
        if not self._began:
            self._engage()
        if not self._watching:
            self._watching = True
            loop.call_later(STALL_S, self._watch, loop)
        return await future

    def busy(self) -> bool:
        """Whether any call waits or runs."""
        return bool(self._waiting or self._began)

    def _engage(self) -> None:
        """Put one more worker to work."""
        with self._wake:
            if self._idle:
                self._wake.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"request-{self._threads}", daemon=True).start()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """While anything is under way: a stalled call holds up neither the calls behind it nor answers before it."""
        self._fetch()
        now = time.monotonic()
        if self._waiting and all(now - began > STALL_S for began in list(self._began.values())):
            self._engage()
        self._watching = bool(self._waiting or self._began or self._answered)
        if self._watching:
            loop.call_later(STALL_S, self._watch, loop)

    def _work(self) -> None:
        thread = threading.get_ident()
        while True:
            self._began[thread] = time.monotonic()
            try:
                future, call = self._waiting.popleft()
            except IndexError:
                self._rest(thread)
                continue
            if future.cancelled():
                continue
            try:
                self._answered.append((future, call(), None))
            except BaseException as e:  # the caller's to handle, in its own task
                self._answered.append((future, None, e))
            if len(self._answered) >= BUNCH or not self._waiting:
                self._announce(future.get_loop())
            del future, call  # a thread at rest keeps nothing alive

    def _rest(self, thread: int) -> None:
        with self._wake:
            # In this order: who appends a call looks at _began afterwards, and wakes us if we are not in it.
            self._began.pop(thread, None)
            while not self._waiting:
                self._idle += 1
                self._wake.wait()
                self._idle -= 1

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits for the answers
            loop.call_soon_threadsafe(self._fetch)

    def _fetch(self) -> None:
        while self._answered:
            future, result, error = self._answered.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
