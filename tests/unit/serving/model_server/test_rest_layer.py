"""The ASGI application without a server: body size limits and arbitrary paths."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.model_server.codec_pool import CodecPool
from serving.model_server.errors import Code, ServingError
from serving.model_server.limits import LARGE_JSON_BYTES, Admission, Limits
from serving.model_server.metrics import Metrics
from serving.model_server.rest_layer import RestLayer
from serving.model_server.workers import Workers

PREDICT = b"/v1/models/m:predict"
LIMIT = 1000  # bytes


class NoModels:
    """A manager without models."""

    @contextmanager
    def use(self, spec: Any) -> Any:
        raise ServingError(Code.NOT_FOUND, f"no {spec.name}")
        yield

    def status(self, spec: Any) -> Any:
        raise ServingError(Code.NOT_FOUND, f"no {spec.name}")


def request(
    method: str, path: bytes, parts: Sequence[bytes] | None = (), limit: int = LIMIT, waiting: int = 1, **headers: str
) -> tuple[int, bytes]:
    """Return (status code, body) of the response; the request's body arrives in parts, or never if they are None."""
    sent: list[Any] = []
    events: list[Any] = []
    if parts is not None:
        events += [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        events += [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return events.pop(0) if events else await asyncio.Future()

    async def send(event: Any) -> None:
        sent.append(event)

    async def run() -> None:
        admission = Admission(Limits(request_bytes=limit))
        service: Any = SimpleNamespace(manager=NoModels(), metrics=Metrics(), admission=admission)
        codecs = CodecPool(admission, 1, 2**30, waiting)
        layer = RestLayer(service, Workers(limit=1), codecs, timeout_ms=5000, cors=False, metrics_path=None)
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "raw_path": path, "path": "", "query_string": b"", "headers": pairs}
        await layer.app(scope, receive, send)

    asyncio.run(run())
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


def padded(size_bytes: int) -> bytes:
    return b'{"inputs": 1}'.ljust(size_bytes)


def test_a_body_of_the_limit_is_accepted() -> None:
    zipped = gzip.compress(padded(LIMIT), mtime=0)
    for parts, headers in (([padded(LIMIT)], {}), ([zipped[:9], zipped[9:]], {"content_encoding": "gzip"})):
        code, body = request("POST", PREDICT, parts, **headers)
        assert (code, body) == (404, b'{\n    "error": "no m"\n}')


def test_a_body_beyond_the_limit_is_refused() -> None:
    """Whether Content-Length, the received parts or only the decompressed size exceed the limit."""
    for parts, headers in (
        ([], {"content_length": str(LIMIT + 1)}),
        ([padded(LIMIT), b" "], {}),
        ([gzip.compress(padded(20 * LIMIT), mtime=0)[:LIMIT]], {"content_encoding": "gzip"}),
    ):
        code, body = request("POST", PREDICT, parts, **headers)
        assert code == 413 and b"Request body " in body


def test_a_large_body_is_refused_unread_if_too_many_wait() -> None:
    size = str(LARGE_JSON_BYTES)
    code, body = request("POST", PREDICT, None, limit=LARGE_JSON_BYTES, waiting=0, content_length=size)
    assert code == 503 and b"large requests are waiting" in body
    assert request("POST", PREDICT, [padded(LIMIT)])[0] == 404  # not for requests that are not large


@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "X"]),
    st.binary(max_size=20) | st.text("models/:predcv1%2F", max_size=30).map(str.encode),
)
def test_any_path(method: str, rest: bytes) -> None:
    for prefix in (b"", b"/v1/models/"):
        code, _ = request(method, prefix + rest, [b"{}"])
        assert code in (400, 404)
