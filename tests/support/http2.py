"""A gRPC client that does not finish its requests, or does not take its responses. Writes HTTP/2 frames itself."""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from benchmarks.harness import HOST

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS: Final = 4
INITIAL_WINDOW: Final = 4  # the setting
FRAME_BYTES: Final = 2**14
READ_S: Final = 0.01


class Stalling:
    """One connection with `streams` calls.

    Args:
        content: the message of each call, without its last byte.
        finished: send the last byte too; the client then takes no byte of the responses.
    """

    def __init__(self, port: int, method: str, streams: int, content: bytes, finished: bool = False) -> None:
        self._socket = socket.create_connection((HOST, port), 5)
        self._received = b""
        self.frames: list[int] = []  # kinds of the frames received
        self._window, self._initial = 2**16 - 1, 2**16 - 1  # what may be sent: in all, and on a new stream
        self._windows = {2 * n + 1: self._initial for n in range(streams)}
        self._left = dict.fromkeys(self._windows, len(content) - (not finished))
        self._content, self._finished = memoryview(content), finished
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 0)))
        for stream in self._windows:
            self._socket.sendall(_frame(HEADERS, END_HEADERS, stream, _headers(method)))
            self._send(stream, struct.pack(">BI", 0, len(content)))

    def run(self, seconds: float) -> int:
        """Send as much as the server allows; return the number of bytes. Raises OSError if the server closes it."""
        sent, end = 0, time.monotonic() + seconds
        with self._socket:
            while time.monotonic() < end:
                before = sent
                for stream in self._windows:
                    size = min(FRAME_BYTES, self._window, self._windows[stream], self._left[stream])
                    if size > 0:
                        place = len(self._content) - self._left[stream] - (not self._finished)
                        self._left[stream] -= size
                        last = self._finished and not self._left[stream]
                        self._send(stream, self._content[place : place + size], END_STREAM if last else 0)
                        sent += size
                self._read(READ_S if sent == before else 0.0001)
        return sent

    def _send(self, stream: int, content: bytes | memoryview, flags: int = 0) -> None:
        self._socket.settimeout(5)
        self._socket.sendall(_frame(DATA, flags, stream, content))
        self._window -= len(content)
        self._windows[stream] -= len(content)

    def _read(self, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        try:
            received = self._socket.recv(2**16)
        except TimeoutError:
            return
        if not received:
            raise ConnectionResetError
        self._received += received
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size:
                return
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            content, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self._handle(kind, flags, stream, content)

    def _handle(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        self.frames.append(kind)
        if kind == SETTINGS and not flags & ACK:
            for setting, value in struct.iter_unpack(">HI", content):
                if setting == INITIAL_WINDOW:
                    for known in self._windows:
                        self._windows[known] += value - self._initial
                    self._initial = value
            self._socket.sendall(_frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, content))
        elif kind == WINDOW_UPDATE:
            size = int.from_bytes(content)
            if stream:
                self._windows[stream] += size
            else:
                self._window += size


def _frame(kind: int, flags: int = 0, stream: int = 0, content: bytes | memoryview = b"") -> bytes:
    return len(content).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + content


def _headers(method: str) -> bytes:
    """The header block of a call, each field literally."""
    fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": HOST}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    return b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)
