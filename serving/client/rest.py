"""The client's REST transport, based on the standard library's http.client, which imports in milliseconds."""

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
from serving.client.errors import NotFound, from_code, from_http_status
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import TensorError

READ_BYTES: Final = 1 << 16
MAX_TEXT_CHARS: Final = 1000
MAX_CACHED_VERSIONS: Final = 100


class RestClient(Client):
    """A client over REST.

    A REST response contains neither the version nor the dtypes. Unless the caller specifies a version, each prediction
    therefore takes an additional small request for the metadata, followed by a request to the version they describe.

    Args:
        address: `http://host:port` or `https://host:port`.
    """

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        super().__init__(address, timeout_s=timeout_s, attempts=attempts)
        url = urlsplit(address)
        if url.hostname is None or url.path not in ("", "/"):
            raise UsageError(f"{address}: not the address of a REST server", "Expected http://host:port")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        try:
            host, port = url.hostname, url.port
        except ValueError:
            raise UsageError(f"{address}: invalid port number", "Expected http://host:port") from None
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
                document["inputs"][name] = rest_values.encode(value)
            except (TensorError, ValueError, TypeError) as e:  # ValueError: numpy, for ragged lists
                raise from_code(self.address, "INVALID_ARGUMENT", f"input {name} cannot be sent: {e}") from e
        if spec.signature_name:
            document["signature_name"] = spec.signature_name
        body = json.dumps(document).encode()
        try:
            return self._predict_by_version(spec, body, deadline)
        except NotFound:
            if spec.HasField("version"):
                raise
            # The version was replaced between the two requests: the metadata now describe the new one.
            return self._predict_by_version(spec, body, deadline)

    def _predict_by_version(self, spec: pb.ModelSpec, body: bytes, deadline: float) -> Prediction:
        metadata = self._metadata_of.get((spec.name, spec.version.value)) if spec.HasField("version") else None
        if metadata is None:
            metadata = self._metadata(spec, deadline - time.monotonic())
        path = f"/v1/models/{quote(spec.name, safe='')}/versions/{metadata.version}:predict"
        response = self._request("POST", path, body, deadline - time.monotonic())
        signature = metadata.signatures.get(spec.signature_name or DEFAULT_SIGNATURE)
        with self._reading("response"):
            outputs = rest_values.decode_outputs(response["outputs"], signature or pb.SignatureDef())
        return Prediction(outputs, metadata.version)

    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]:
        response = self._request("GET", _path(spec), None, timeout_s)
        with self._reading("status"):
            return [
                VersionStatus(int(s["version"]), s["state"], s["status"]["error_code"], s["status"]["error_message"])
                for s in response["model_version_status"]
            ]

    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata:
        response = self._request("GET", f"{_path(spec)}/metadata", None, timeout_s)
        with self._reading("metadata"):
            signatures = json_format.ParseDict(
                response["metadata"]["signature_def"], pb.SignatureDefMap(), ignore_unknown_fields=True
            ).signature_def
            metadata = Metadata(spec.name, int(response["model_spec"]["version"]), dict(signatures))
        if len(self._metadata_of) >= MAX_CACHED_VERSIONS:
            self._metadata_of.clear()
        self._metadata_of[spec.name, metadata.version] = metadata
        return metadata

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Convert any error in a JSON document to an Internal error."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, json_format.Error) as e:
            raise from_code(self.address, "INTERNAL", f"the {what} cannot be read: {type(e).__name__}: {e}") from e

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> dict[str, Any]:
        """Return the JSON object of a response. Raises ServingClientError."""
        status, content = self._exchange(method, path, body, time.monotonic() + timeout_s)
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        if status == 200 and isinstance(document, dict):
            return document
        text = document["error"] if isinstance(document, dict) and "error" in document else _shorten(content)
        if status == 200:
            raise from_code(self.address, "INTERNAL", f"not a JSON object: {text}")
        raise from_http_status(self.address, status, str(text))

    def _exchange(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            socket: Any = connection.sock  # None until it connects
            used = socket is not None
            try:
                connection.timeout = _left_s(deadline)  # to connect and to send
                if used:
                    socket.settimeout(connection.timeout)
                connection.request(method, path, body, headers)
                content, response = self._read(connection, deadline)
            except TimeoutError as e:
                connection.close()
                raise from_code(self.address, "DEADLINE_EXCEEDED", "no response in time") from e
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                if used:  # the server may have closed the idle connection: try another
                    continue
                foreign = type(e) is http.client.BadStatusLine
                text = "the response is not HTTP" if foreign else str(e) or type(e).__name__
                raise from_code(self.address, "UNAVAILABLE", text) from e
            if response.will_close:
                connection.close()
            else:
                self._idle.append(connection)
            return response.status, content

    def _read(self, connection: http.client.HTTPConnection, deadline: float) -> tuple[bytes, http.client.HTTPResponse]:
        """Read the body in pieces, setting the remaining time before each read: a socket timeout applies per read."""
        socket: Any = connection.sock  # connection.sock becomes None if the server closes after this response
        socket.settimeout(_left_s(deadline))
        response = connection.getresponse()
        parts = []
        while part := response.read1(READ_BYTES):
            parts.append(part)
            socket.settimeout(_left_s(deadline))
        if response.length:  # read1 does not report that the connection ended early
            raise http.client.IncompleteRead(b"".join(parts), response.length)
        return b"".join(parts), response


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _path(spec: pb.ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.HasField("version"):
        return f"{path}/versions/{spec.version.value}"
    return f"{path}/labels/{quote(spec.version_label, safe='')}" if spec.version_label else path


def _shorten(content: bytes) -> str:
    return content[:MAX_TEXT_CHARS].decode(errors="replace").strip() or "an empty response"
