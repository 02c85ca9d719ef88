"""Processes that run the functions of codec.py, each with a limit on its memory; killed if a call takes too long."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.limits import Admission, Ticket
from serving.model_server.workers import TOO_LATE, Workers

MAX_CALL_S: Final = 60.0  # for calls without a deadline
POLL_S: Final = 0.02  # interval at which a call is checked for a client that has gone
NICENESS: Final = 5  # so that they delay no request that is not large
Result = TypeVar("Result")


class CodecPool:
    """Up to `size` processes, started when first needed. Further calls wait.

    Args:
        memory_bytes: what a process may allocate for a call.
    """

    def __init__(self, admission: Admission, size: int, memory_bytes: int) -> None:
        self._admission, self._memory_bytes = admission, memory_bytes
        self._workers = Workers(size)  # each waits for one process
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()

    async def run(self, call: Callable[[], Result], ticket: Ticket) -> Result:
        """Run a picklable call in another process.

        Raises:
            ServingError: as raised by the call; RESOURCE_EXHAUSTED if it needed too much memory; DEADLINE_EXCEEDED.
            DecodeError: as raised by the call.
        """
        outcome = await self._workers.run(partial(self._run, call, ticket), ticket)
        if isinstance(outcome, DecodeError):
            raise outcome
        if isinstance(outcome, TooLargeError):
            self._admission.refusals.count("request_bytes")
            raise outcome
        if isinstance(outcome, _Error):
            if outcome.code == Code.RESOURCE_EXHAUSTED:
                raise self._admission.exhausted("tensor_bytes", outcome.message)
            raise ServingError(outcome.code, outcome.message)
        return outcome  # type: ignore[no-any-return]

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().kill()

    def _run(self, call: Callable[[], Any], ticket: Ticket) -> Any:
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = _Process(self._memory_bytes)
        try:
            outcome = process.call(call, ticket)
        except (EOFError, OSError):  # it crashed, most likely for want of memory
            process.kill()
            return _Error(Code.RESOURCE_EXHAUSTED, _TOO_MUCH.format(self._memory_bytes))
        except BaseException:
            process.kill()
            raise
        if outcome is None:
            process.kill()
            return _Error(Code.DEADLINE_EXCEEDED, TOO_LATE)
        self._idle.put(process)
        return outcome[0]


_TOO_MUCH: Final = "Decoding the request needs more than {} bytes"


class _Error:
    """A ServingError on its way between two processes."""

    def __init__(self, code: Code, message: str) -> None:
        self.code, self.message = code, message


class _Process:
    def __init__(self, memory_bytes: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.model_server.codec_pool", str(theirs.fileno()), str(memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._connection = ours

    def call(self, call: Callable[[], Any], ticket: Ticket) -> tuple[Any] | None:
        """Return the result in a tuple; None if the client has gone or the deadline has passed."""
        end_s = time.monotonic() + min(MAX_CALL_S, (ticket.remaining_ms() or MAX_CALL_S * 1000) / 1000)
        _send(self._connection, call)
        while not self._connection.poll(POLL_S):
            if ticket.gone() or time.monotonic() > end_s:
                return None
        return (_receive(self._connection),)

    def kill(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _send(connection: Connection, value: Any) -> None:
    """Send arrays and bytes apart from the rest, so that no long copy holds the interpreter's lock."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    connection.send_bytes(pickle.dumps(len(buffers)))
    connection.send_bytes(head)
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def _receive(connection: Connection) -> Any:
    count = pickle.loads(connection.recv_bytes())
    head = connection.recv_bytes()
    return pickle.loads(head, buffers=[connection.recv_bytes() for _ in range(count)])


def main(connection: Connection, memory_bytes: int) -> None:
    """Serve calls until the server closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the group: the server still needs this process
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    limit = _allocated_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    while True:
        try:
            call = _receive(connection)
        except (EOFError, OSError):
            return
        outcome: Any
        try:
            outcome = call()
        except TooLargeError as e:
            outcome = e
        except ServingError as e:
            outcome = _Error(e.code, e.message)
        except DecodeError as e:
            outcome = e
        except MemoryError:
            outcome = _Error(Code.RESOURCE_EXHAUSTED, _TOO_MUCH.format(memory_bytes))
        except Exception as e:
            outcome = _Error(Code.INTERNAL, f"{type(e).__name__}: {e}")
        del call
        _send(connection, outcome)
        del outcome


def _allocated_bytes() -> int:
    """Return what RLIMIT_DATA counts; 0 where it is unknown (it limits nothing there)."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    from serving.model_server import codec_pool  # the classes that are pickled belong to the imported module

    codec_pool.main(Connection(int(sys.argv[1])), int(sys.argv[2]))
