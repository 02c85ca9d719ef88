"""REST: TensorFlow Serving's URLs, bodies, error bodies and HTTP codes on starlette."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf import json_format
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from serving.model_server import codec, data_plane
from serving.model_server.codec import Body
from serving.model_server.codec_pool import CodecPool
from serving.model_server.errors import Code, ServingError, TooLargeError, invalid
from serving.model_server.http_protocol import HALF_CLOSED, ON_GONE
from serving.model_server.limits import LARGE_BYTES, LARGE_JSON_BYTES, Ticket
from serving.model_server.rest_encode import encoded
from serving.model_server.rest_inference import RestInference
from serving.model_server.service import Service
from serving.model_server.workers import TOO_LATE, Workers
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
ENTRYPOINT: Final = "REST"
HALF_CLOSED_S: Final = 0.05  # a client that closes its half does so at once; one that gives up, later
RETRY_AFTER_S: Final = "1"
MODEL: Final = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
INFER: Final = re.compile(MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
STATUS: Final = re.compile(MODEL, re.IGNORECASE)
METADATA: Final = re.compile(MODEL + r"/metadata", re.IGNORECASE)
HTTP_CODES: Final = {
    Code.OK: 200, Code.INVALID_ARGUMENT: 400, Code.FAILED_PRECONDITION: 400, Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401, Code.PERMISSION_DENIED: 403, Code.NOT_FOUND: 404, Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409, Code.RESOURCE_EXHAUSTED: 429, Code.CANCELLED: 499, Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503, Code.DEADLINE_EXCEEDED: 504,
}  # fmt: skip
NOT_FOUND: Final = "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
CORS_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class RestLayer:
    """The ASGI application.

    Args:
        workers: threads that run the service's blocking calls.
        codecs: decode large requests and encode large responses.
        timeout_ms: timeout for the call, after the body has been received.
        cors: whether to add CORS headers to every response.
        metrics_path: URL path of the Prometheus metrics; None for no metrics.
    """

    def __init__(
        self,
        service: Service,
        workers: Workers,
        codecs: CodecPool,
        timeout_ms: int,
        cors: bool,
        metrics_path: str | None,
    ) -> None:
        self._service, self._timeout_ms = service, timeout_ms
        self._inference, self._codecs = RestInference(service, workers, codecs), codecs
        self._admission = service.admission
        self._headers = CORS_HEADERS if cors else {}
        self._metrics_path = metrics_path

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode("latin-1")
        if path == self._metrics_path and request.method == "GET":
            response: Response = PlainTextResponse(self._service.metrics.text())
        elif path[:4].lower() == "/v1/":
            response = await self._respond(request, path)
        else:
            response = HTMLResponse(NOT_FOUND, 404, headers=self._headers)
        if len(response.body) < LARGE_BYTES:
            await response(scope, receive, send)
            return
        try:
            hold = self._admission.hold(len(response.body))
        except ServingError as e:
            await self._error(e)(scope, receive, send)
            return
        with hold:  # until the client has taken it
            await _send_in_parts(response, send)

    async def _respond(self, request: Request, path: str) -> Response:
        started = time.perf_counter()
        if request.method == "OPTIONS":
            return self._preflight(request)
        try:
            return self._json(200, await self._call(request, path))
        except ServingError as e:
            response = self._error(e)
            if "incomplete" in request.scope:  # do not read the rest
                response.headers["Connection"] = "close"
            return response
        except TimeoutError:
            return self._error(ServingError(Code.DEADLINE_EXCEEDED, TOO_LATE))
        except ClientDisconnect:
            return self._error(ServingError(Code.CANCELLED, "The client disconnected"))
        except Exception as e:  # a bug must not stop the server
            log.exception("unexpected failure after %.3f s", time.perf_counter() - started)
            return self._error(ServingError(Code.INTERNAL, f"{type(e).__name__}: {e}"))

    async def _call(self, request: Request, path: str) -> bytes:
        """Execute a request and return the encoded JSON. Raises ServingError, TimeoutError, ClientDisconnect."""
        method = request.method
        if method == "POST" and (found := INFER.fullmatch(path)):
            spec, name = _spec(found), found["method"].lower()
            body = await self._body(request)
            with self._counted(spec, name), self._enter(body) as ticket:
                return await self._while_connected(request, ticket, self._inference.run(name, spec, body, ticket))
        # These are short, and must respond although all workers are busy.
        if method == "GET" and (found := METADATA.fullmatch(path)):
            spec = _spec(found)
            with self._counted(spec, "metadata"):
                return self._metadata(spec)
        if method == "GET" and (found := STATUS.fullmatch(path)):
            spec = _spec(found)
            with self._counted(spec, "status"):
                return self._status(spec)
        if method == "GET" and re.fullmatch(r"/v1/models/?", path, re.IGNORECASE):
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {method} {path}")

    def _enter(self, body: Body) -> Ticket:
        return self._admission.enter(len(body.content), self._timeout_ms / 1000, large=body.is_large())

    async def _while_connected(self, request: Request, ticket: Ticket, work: Coroutine[Any, Any, bytes]) -> bytes:
        """Return the result of `work`, which is cancelled when the client disconnects or the time is over."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        left = done = False

        def leave(unless_started: bool = False) -> None:
            nonlocal left
            if not done and not left and not (unless_started and ticket.started()):
                left = True
                self._admission.cancelled(ticket)
                task.cancel()

        def on_gone(half_closed: bool) -> None:
            if not half_closed or ticket.age_s() >= HALF_CLOSED_S:
                leave()
            else:  # the client has closed its half of the connection, or has left: TCP does not tell which
                loop.call_later(HALF_CLOSED_S, leave, True)

        request.scope[ON_GONE] = on_gone
        if HALF_CLOSED in request.scope:
            on_gone(True)
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                return await work
        except TimeoutError:
            self._admission.cancelled(ticket)
            raise
        except asyncio.CancelledError:
            if not left:
                raise
            task.uncancel()
            raise ClientDisconnect from None
        finally:
            done = True
            del request.scope[ON_GONE]

    @contextmanager
    def _counted(self, spec: pb.ModelSpec, api: str) -> Iterator[None]:
        started, code = time.perf_counter(), Code.UNKNOWN
        try:
            yield
            code = Code.OK
        except ServingError as e:
            code = e.code
            raise
        finally:
            latency_us = (time.perf_counter() - started) * 1e6
            self._service.metrics.request(spec.name, api, ENTRYPOINT, code.name, latency_us)

    async def _body(self, request: Request) -> Body:
        """Receive the body. Raises ServingError if it is too large or cannot be queued, TimeoutError if it is slow."""
        limits = self._admission.limits
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal():
            self._admission.check_request(int(declared))
            if int(declared) >= LARGE_JSON_BYTES:  # the body is discarded as it arrives
                self._codecs.check_waiting()
        parts, size_bytes = list[bytes](), 0
        request.scope["incomplete"] = True
        with self._admission.hold() as hold:
            try:
                async with asyncio.timeout(limits.receive_s):
                    async for part in request.stream():
                        size_bytes += len(part)
                        self._admission.check_request(size_bytes)
                        hold.grow(len(part))
                        parts.append(part)
            except TimeoutError:
                self._admission.refusals.count("receive_timeout")
                raise
        del request.scope["incomplete"]
        gzip = request.headers.get("content-encoding", "").lower() == "gzip"
        return Body(codec.Content(*parts), gzip, limits.request_bytes)

    def _status(self, spec: pb.ModelSpec) -> bytes:
        if spec.HasField("version_label"):  # unlike over gRPC, a label selects the version
            with self._service.manager.use(spec) as servable:
                spec.version.value = servable.version
        states = self._service.manager.status(spec).model_version_status
        rows = [
            {
                "version": str(state.version),
                "state": pb.ModelVersionStatus.State.Name(state.state),
                "status": {
                    "error_code": Code(state.status.error_code).name,
                    "error_message": state.status.error_message,
                },
            }
            for state in states
        ]
        return encoded({"model_version_status": rows})

    def _metadata(self, spec: pb.ModelSpec) -> bytes:
        with self._service.manager.use(spec) as servable:
            signatures = json_format.MessageToDict(
                data_plane.signature_map(servable),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            model_spec = {"name": servable.name, "signature_name": "", "version": str(servable.version)}
        return encoded({"model_spec": model_spec, "metadata": {"signature_def": signatures}})

    def _preflight(self, request: Request) -> Response:
        origin = request.headers.get("origin", "")
        if not origin.startswith(("http://", "https://")):
            return self._error(invalid("Origin header is missing in CORS preflight"))
        return Response(status_code=200, headers=self._headers)

    def _error(self, error: ServingError) -> Response:
        code = 413 if isinstance(error, TooLargeError) else HTTP_CODES.get(error.code, 500)
        response = self._json(code, encoded({"error": error.message}))
        if error.code == Code.UNAVAILABLE:
            response.headers["Retry-After"] = RETRY_AFTER_S
        return response

    def _json(self, status_code: int, content: bytes) -> Response:
        return Response(content, status_code, headers=self._headers, media_type="application/json")


async def _send_in_parts(response: Response, send: Send) -> None:
    """Send a large response as fast as the client takes it: the whole would stay in the connection's buffer."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    content = memoryview(response.body)
    for start in range(0, len(content), LARGE_BYTES):
        part = bytes(content[start : start + LARGE_BYTES])
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _spec(found: re.Match[str]) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=unquote(found["model"]))
    if found["version"]:
        if len(found["version"]) > 19 or int(found["version"]) >= 2**63:
            raise invalid(f"Failed to convert version: {found['version']} to numeric.")
        spec.version.value = int(found["version"])
    elif found["label"]:
        spec.version_label = unquote(found["label"])
    return spec
