"""A process that makes calls for the server, with a limit on its memory: `Process` there, `main` in the process."""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import DecodeError

from serving.model_server.errors import Code, ServingError, TooLargeError

NICENESS: Final = 5  # so that it delays no request that is not large
TOO_MUCH: Final = "Decoding the request needs more than {} bytes"
SIZE: Final = struct.Struct("=Q")  # of the next part of a message, in bytes


class Error:
    """A ServingError on its way between two processes."""

    def __init__(self, code: Code, message: str) -> None:
        self.code, self.message = code, message


class Process:
    """All methods but `kill` belong to one event loop, and may raise EOFError or OSError if the process has ended."""

    def __init__(self, memory_bytes: int) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.model_server.codec_process", str(theirs.fileno()), str(memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    async def ready(self) -> None:
        """Wait until it takes calls."""
        await self._receive()

    async def call(self, call: Callable[[], Any]) -> Any:
        """Return the result of a picklable call, or its exception: an Error in place of a ServingError."""
        loop = asyncio.get_running_loop()
        for part in _parts(call):
            await loop.sock_sendall(self._socket, part)
        return await self._receive()

    async def _receive(self) -> Any:
        head, sizes = pickle.loads(await self._exactly(SIZE.unpack(await self._exactly(SIZE.size))[0]))
        return pickle.loads(head, buffers=[await self._exactly(size) for size in sizes])

    async def _exactly(self, size: int) -> bytearray:
        loop, content, filled = asyncio.get_running_loop(), bytearray(size), 0
        while filled < size:
            count = await loop.sock_recv_into(self._socket, memoryview(content)[filled:])
            if not count:
                raise EOFError
            filled += count
        return content

    def kill(self) -> None:
        """Kill it, and wait until its memory is free."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _parts(value: Any) -> list[bytes | memoryview]:
    """Return a message: arrays and bytes apart from the rest, so that they are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    head = pickle.dumps((content, [part.nbytes for part in raw]))
    return [SIZE.pack(len(head)) + head, *raw]


def main(connection: socket.socket, memory_bytes: int) -> None:
    """Make the server's calls until it closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the group: the server still needs this process
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    limit = _allocated_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    _send(connection, None)  # ready
    with suppress(EOFError, OSError, MemoryError):  # too little memory to receive a call or to send its result
        while True:
            _send(connection, _outcome(_receive(connection), memory_bytes))


def _outcome(call: Callable[[], Any], memory_bytes: int) -> Any:
    """Return the result of a call, or its exception."""
    try:
        return call()
    except (TooLargeError, DecodeError) as e:
        return e
    except ServingError as e:
        return Error(e.code, e.message)
    except MemoryError:
        return Error(Code.RESOURCE_EXHAUSTED, TOO_MUCH.format(memory_bytes))
    except Exception as e:
        return Error(Code.INTERNAL, f"{type(e).__name__}: {e}")


def _send(connection: socket.socket, value: Any) -> None:
    for part in _parts(value):
        connection.sendall(part)


def _receive(connection: socket.socket) -> Any:
    head, sizes = pickle.loads(_exactly(connection, SIZE.unpack(_exactly(connection, SIZE.size))[0]))
    return pickle.loads(head, buffers=[_exactly(connection, size) for size in sizes])


def _exactly(connection: socket.socket, size: int) -> bytearray:
    content, filled = bytearray(size), 0
    while filled < size:
        count = connection.recv_into(memoryview(content)[filled:])
        if not count:
            raise EOFError
        filled += count
    return content


def _allocated_bytes() -> int:
    """Return what RLIMIT_DATA counts; 0 where it is unknown (it limits nothing there)."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    from serving.model_server import codec_process  # the classes that are pickled belong to the imported module

    codec_process.main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
