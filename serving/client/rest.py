"""The client's REST transport, on the standard library's http.client: it loads in milliseconds."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

from google.protobuf import json_format

from components.common.errors import UsageError
from serving.client import rest_values
from serving.client.base import ATTEMPTS, DEFAULT_SIGNATURE, TIMEOUT_S, Client, Metadata, Prediction, VersionStatus
from serving.client.errors import NotFound, error
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import TensorError

CODES: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
READ_BYTES: Final = 1 << 16
MAX_TEXT_CHARS: Final = 1000
MAX_CACHED: Final = 100


class RestClient(Client):
    """Over REST.

    An answer names neither its version nor its dtypes. So unless the caller names a version, each prediction asks
    for the metadata first (a second small request) and then names the version that these belong to.

    Args:
        address: `http://host:port` or `https://host:port`.
    """

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        super().__init__(address, timeout_s=timeout_s, attempts=attempts)
        url = urlsplit(address)
        if url.hostname is None or url.path not in ("", "/"):
            raise UsageError(f"{address}: no address of a REST server", "Expected http://host:port")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        try:
            host, port = url.hostname, url.port
        except ValueError:
            raise UsageError(f"{address}: no such port", "Expected http://host:port") from None
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(host, port)
        self._idle: list[http.client.HTTPConnection] = []  # list.append and list.pop are atomic
        self._metadata_of: dict[tuple[str, int], Metadata] = {}  # a loaded version does not change

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _predict(self, spec: pb.ModelSpec, inputs: Mapping[str, Any], timeout_s: float) -> Prediction:
        deadline = time.monotonic() + timeout_s
        document: dict[str, Any] = {"inputs": {}}
        for name, value in inputs.items():
            try:
                document["inputs"][name] = rest_values.encoded(value)
            except (TensorError, ValueError, TypeError) as e:  # ValueError: numpy, of ragged lists
                raise error(self.address, "INVALID_ARGUMENT", f"input {name} cannot be sent: {e}") from e
        if spec.signature_name:
            document["signature_name"] = spec.signature_name
        body = json.dumps(document).encode()
        try:
            return self._predict_by_version(spec, body, deadline)
        except NotFound:
            if spec.HasField("version"):
                raise
            # The version was replaced between the two requests: the metadata now name its successor.
            return self._predict_by_version(spec, body, deadline)

    def _predict_by_version(self, spec: pb.ModelSpec, body: bytes, deadline: float) -> Prediction:
        metadata = self._metadata_of.get((spec.name, spec.version.value)) if spec.HasField("version") else None
        if metadata is None:
            metadata = self._metadata(spec, deadline - time.monotonic())
        path = f"/v1/models/{quote(spec.name, safe='')}/versions/{metadata.version}:predict"
        answer = self._asked("POST", path, body, deadline - time.monotonic())
        signature = metadata.signatures.get(spec.signature_name or DEFAULT_SIGNATURE)
        with self._reading("answer"):
            outputs = rest_values.outputs(answer["outputs"], signature or pb.SignatureDef())
        return Prediction(outputs, metadata.version)

    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]:
        answer = self._asked("GET", _path(spec), None, timeout_s)
        with self._reading("status"):
            return [
                VersionStatus(int(s["version"]), s["state"], s["status"]["error_code"], s["status"]["error_message"])
                for s in answer["model_version_status"]
            ]

    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata:
        answer = self._asked("GET", f"{_path(spec)}/metadata", None, timeout_s)
        with self._reading("metadata"):
            signatures = json_format.ParseDict(
                answer["metadata"]["signature_def"], pb.SignatureDefMap(), ignore_unknown_fields=True
            ).signature_def
            metadata = Metadata(spec.name, int(answer["model_spec"]["version"]), dict(signatures))
        if len(self._metadata_of) >= MAX_CACHED:
            self._metadata_of.clear()
        self._metadata_of[spec.name, metadata.version] = metadata
        return metadata

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Whatever is wrong with a document becomes an Internal error."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, json_format.Error) as e:
            raise error(self.address, "INTERNAL", f"the {what} cannot be read: {type(e).__name__}: {e}") from e

    def _asked(self, method: str, path: str, body: bytes | None, timeout_s: float) -> dict[str, Any]:
        """The JSON object that the server answers. Raises ServingClientError."""
        status, content = self._exchanged(method, path, body, time.monotonic() + timeout_s)
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        if status == 200 and isinstance(document, dict):
            return document
        text = document["error"] if isinstance(document, dict) and "error" in document else _shortened(content)
        raise error(self.address, CODES.get(status, "INTERNAL"), f"{text}" if status != 200 else f"no JSON: {text}")

    def _exchanged(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            socket: Any = connection.sock  # None until it connects
            used = socket is not None
            try:
                connection.timeout = _left(deadline)  # to connect and to send
                if used:
                    socket.settimeout(connection.timeout)
                connection.request(method, path, body, headers)
                content, response = self._read(connection, deadline)
            except TimeoutError as e:
                connection.close()
                raise error(self.address, "DEADLINE_EXCEEDED", "no answer in time") from e
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                if used:  # the server has closed a connection that lay idle: no failure yet
                    continue
                text = (
                    "answers, but not in HTTP" if type(e) is http.client.BadStatusLine else str(e) or type(e).__name__
                )
                raise error(self.address, "UNAVAILABLE", text) from e
            if response.will_close:
                connection.close()
            else:
                self._idle.append(connection)
            return response.status, content

    def _read(self, connection: http.client.HTTPConnection, deadline: float) -> tuple[bytes, http.client.HTTPResponse]:
        """The body, piece by piece: a socket's own timeout starts anew with each piece."""
        socket: Any = connection.sock  # the response takes it over if the server closes after this answer
        socket.settimeout(_left(deadline))
        response = connection.getresponse()
        parts = []
        while part := response.read1(READ_BYTES):
            parts.append(part)
            socket.settimeout(_left(deadline))
        if response.length:  # read1 takes an early end for the end
            raise http.client.IncompleteRead(b"".join(parts), response.length)
        return b"".join(parts), response


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _path(spec: pb.ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.HasField("version"):
        return f"{path}/versions/{spec.version.value}"
    return f"{path}/labels/{quote(spec.version_label, safe='')}" if spec.version_label else path


def _shortened(content: bytes) -> str:
    return content[:MAX_TEXT_CHARS].decode(errors="replace").strip() or "an empty answer"
