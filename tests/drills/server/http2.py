"""HTTP/2 frames as bytes, to send gRPC requests that no gRPC library sends: incomplete, endless, never taken."""

from __future__ import annotations

import struct
from typing import Final

DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE: Final = 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, content: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def opening(window_bytes: int = 65_535, acknowledge: bool = True) -> bytes:
    """Return the start of a connection.

    Args:
        window_bytes: what the server may send of each response.
        acknowledge: whether to accept the server's settings. Until then, gRPC's library accepts 16 MB of headers.
    """
    settings = frame(SETTINGS, struct.pack(">HI", INITIAL_WINDOW_SIZE, window_bytes), stream=0)
    return PREFACE + settings + (frame(SETTINGS, b"", ACK, stream=0) if acknowledge else b"")


def headers(method: str, flags: int = END_HEADERS) -> bytes:
    """Return the headers of a gRPC call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return frame(HEADERS, b"".join(field(name, value) for name, value in fields.items()), flags)


def field(name: str, value: str) -> bytes:
    """Return a header that is not added to the table (HPACK), with a name and a value below 127 bytes."""
    return b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def message(content: bytes, size_bytes: int | None = None) -> bytes:
    """Return a gRPC message; with `size_bytes`, the beginning of one of that size."""
    return struct.pack(">BI", 0, len(content) if size_bytes is None else size_bytes) + content
