"""REST: TensorFlow Serving's URLs, bodies, error bodies and HTTP codes on starlette."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import unquote

from google.protobuf import json_format
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from serving.model_server import data_plane, rest_decode
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.rest_encode import encoded, predict_response, shortest
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
ENTRYPOINT: Final = "REST"
MAX_BODY_BYTES: Final = 100 * 1024**2  # TensorFlow Serving's limit for unpacked gzip bodies; here for all bodies
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
        timeout_ms: timeout for receiving the body, and again for the call.
        cors: whether to add CORS headers to every response.
        metrics_path: URL path of the Prometheus metrics; None for no metrics.
    """

    def __init__(
        self, service: Service, workers: Workers, timeout_ms: int, cors: bool, metrics_path: str | None
    ) -> None:
        self._service, self._workers, self._timeout_ms = service, workers, timeout_ms
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
        await response(scope, receive, send)

    async def _respond(self, request: Request, path: str) -> Response:
        started = time.perf_counter()
        if request.method == "OPTIONS":
            return self._preflight(request)
        try:
            body = await asyncio.wait_for(_body(request), self._timeout_ms / 1000)
            call = self._call(request.method, path, body)
            document = await asyncio.wait_for(self._workers.run(call), self._timeout_ms / 1000)
        except ServingError as e:
            return self._error(e.code, e.message)
        except TimeoutError:
            return self._error(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        except ClientDisconnect:
            return self._error(Code.CANCELLED, "The client disconnected")
        except Exception as e:  # a bug must not stop the server
            log.exception("unexpected failure after %.3f s", time.perf_counter() - started)
            return self._error(Code.INTERNAL, f"{type(e).__name__}: {e}")
        return self._json(200, document)

    def _call(self, method: str, path: str, body: bytes) -> Callable[[], bytes]:
        """Return a function that executes a request and returns the encoded JSON. Raises ServingError."""
        if method == "POST" and (found := INFER.fullmatch(path)):
            spec, name = _spec(found), found["method"].lower()
            work = {"predict": self._predict, "classify": self._classify, "regress": self._regress}[name]
            return partial(self._counted, spec, name, partial(work, spec, body))
        if method == "GET" and (found := METADATA.fullmatch(path)):
            spec = _spec(found)
            return partial(self._counted, spec, "metadata", partial(self._metadata, spec))
        if method == "GET" and (found := STATUS.fullmatch(path)):
            spec = _spec(found)
            return partial(self._counted, spec, "status", partial(self._status, spec))
        if method == "GET" and re.fullmatch(r"/v1/models/?", path, re.IGNORECASE):
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {method} {path}")

    def _counted(self, spec: pb.ModelSpec, api: str, work: Callable[[], bytes]) -> bytes:
        started, code = time.perf_counter(), Code.UNKNOWN
        try:
            content = work()
            code = Code.OK
            return content
        except ServingError as e:
            code = e.code
            raise
        finally:
            latency_us = (time.perf_counter() - started) * 1e6
            self._service.metrics.request(spec.name, api, ENTRYPOINT, code.name, latency_us)

    def _predict(self, spec: pb.ModelSpec, body: bytes) -> bytes:
        document = rest_decode.parse(body)
        name = rest_decode.signature_name(document)
        with self._service.manager.use(spec) as servable:
            signature = servable.signature(name)
            if signature is None:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            decoded = rest_decode.predict_body(document, signature)
            outputs = servable.predict(signature, decoded.inputs, [], self._timeout_ms)
            return encoded(predict_response(outputs, decoded.row))

    def _classify(self, spec: pb.ModelSpec, body: bytes) -> bytes:
        document = rest_decode.parse(body)
        spec.signature_name = rest_decode.signature_name(document)
        request = pb.ClassificationRequest(model_spec=spec, input=rest_decode.examples_body(document))
        with self._service.manager.use(spec) as servable:
            result = data_plane.classify(servable, request, self._timeout_ms).result
        rows = [
            list(zip([c.label for c in row.classes], shortest([c.score for c in row.classes]), strict=True))
            for row in result.classifications
        ]
        return encoded({"results": rows})

    def _regress(self, spec: pb.ModelSpec, body: bytes) -> bytes:
        document = rest_decode.parse(body)
        spec.signature_name = rest_decode.signature_name(document)
        request = pb.RegressionRequest(model_spec=spec, input=rest_decode.examples_body(document))
        with self._service.manager.use(spec) as servable:
            result = data_plane.regress(servable, request, self._timeout_ms).result
        return encoded({"results": shortest([regression.value for regression in result.regressions])})

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
            return self._error(Code.INVALID_ARGUMENT, "Origin header is missing in CORS preflight")
        return Response(status_code=200, headers=self._headers)

    def _error(self, code: Code, message: str) -> Response:
        return self._json(HTTP_CODES.get(code, 500), encoded({"error": message}))

    def _json(self, status_code: int, content: bytes) -> Response:
        return Response(content, status_code, headers=self._headers, media_type="application/json")


async def _body(request: Request) -> bytes:
    """Return the body, decompressed. Raises ServingError if it is too large or not valid gzip."""
    content_length = request.headers.get("content-length", "0")
    parts, size = [], 0
    if content_length.isdecimal() and int(content_length) > MAX_BODY_BYTES:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Request body is larger than {MAX_BODY_BYTES} bytes")
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"Request body is larger than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    body = b"".join(parts)
    if request.headers.get("content-encoding", "").lower() != "gzip":
        return body
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise invalid("Failed to uncompress the request body") from None
    if len(unpacked) > MAX_BODY_BYTES:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Request body decompresses to more than {MAX_BODY_BYTES} bytes")
    return unpacked


def _spec(found: re.Match[str]) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=unquote(found["model"]))
    if found["version"]:
        if len(found["version"]) > 19 or int(found["version"]) >= 2**63:
            raise invalid(f"Failed to convert version: {found['version']} to numeric.")
        spec.version.value = int(found["version"])
    elif found["label"]:
        spec.version_label = unquote(found["label"])
    return spec
