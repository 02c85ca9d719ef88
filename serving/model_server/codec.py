"""Decodes large requests and encodes large responses: plain functions of bytes and arrays, run in another process.

Parsing a body of 5 MB holds the interpreter's lock for a quarter of a second, during which the server would respond to
nobody, and can need 30 times its size in memory. In another process neither concerns the server.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from typing_extensions import Buffer

from serving.model_server import data_plane, rest_decode, rest_encode
from serving.model_server.errors import TooLargeError, invalid
from serving.model_server.limits import LARGE_JSON_BYTES
from serving.model_server.rest_decode import PredictBody
from serving.model_server.servable import DEFAULT_SIGNATURE, Endpoint, Signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

Decoded = dict[str, Array] | Array
"""The inputs of a Predict request, or the serialized examples of the others."""


class Content:
    """Bytes in parts, which are sent to another process without copying them."""

    def __init__(self, *parts: Buffer) -> None:
        self._parts = parts

    def joined(self) -> bytes:
        return b"".join(self._parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Content, tuple(pickle.PickleBuffer(part) for part in self._parts)

    def __len__(self) -> int:
        return sum(memoryview(part).nbytes for part in self._parts)


@dataclass(frozen=True)
class Body:
    """A body as received, and the size in bytes that it may have when it is unpacked."""

    content: Content
    gzip: bool
    max_bytes: int

    def is_large(self) -> bool:
        """Return whether it is too large, when it is unpacked, to decode it in the server's process."""
        if len(self.content) >= LARGE_JSON_BYTES or not self.gzip:
            return len(self.content) >= LARGE_JSON_BYTES
        unpacking = zlib.decompressobj(wbits=31)
        with suppress(zlib.error):  # reported when it is unpacked
            return len(unpacking.decompress(self.content.joined(), LARGE_JSON_BYTES)) == LARGE_JSON_BYTES
        return False

    def unpacked(self) -> bytes:
        """Raises ServingError if it is too large or not valid gzip."""
        if not self.gzip:
            return self.content.joined()
        try:
            unpacked = zlib.decompressobj(wbits=31).decompress(self.content.joined(), self.max_bytes + 1)
        except zlib.error:
            raise invalid("Failed to uncompress the request body") from None
        if len(unpacked) > self.max_bytes:
            raise TooLargeError(f"Request body decompresses to more than {self.max_bytes} bytes")
        return unpacked


def decode_grpc(name: str, content: Content, max_tensor_bytes: int) -> tuple[bytes, Decoded]:
    """Return a request message without its inputs, and its inputs. Raises ServingError, DecodeError."""
    request = getattr(pb, name).FromString(content.joined())
    data_plane.check_size(request, max_tensor_bytes)
    decoded: Decoded
    if isinstance(request, pb.PredictRequest):
        decoded = data_plane.decoded_inputs(request)
        request.ClearField("inputs")
    else:
        decoded = data_plane.serialized_examples(request.input)
        request.ClearField("input")
    return bytes(request.SerializeToString()), decoded


def decode_rest_predict(body: Body, inputs: Mapping[str, Mapping[str, bytes]]) -> tuple[str, PredictBody]:
    """Return the name of the signature and the inputs. Raises ServingError.

    Args:
        inputs: serialized TensorInfo of each input, by signature and alias.
    """
    nowhere = (0, 0)  # the inputs are fed in the server's process
    signatures = {
        name: Signature(name, {a: Endpoint("", pb.TensorInfo.FromString(i), nowhere) for a, i in infos.items()}, {}, {})
        for name, infos in inputs.items()
    }
    return predict_document(rest_decode.parse(body.unpacked()), signatures)


def predict_document(document: Mapping[str, Any], signatures: Mapping[str, Signature]) -> tuple[str, PredictBody]:
    """Return the name of the signature and the inputs of a parsed body. Raises ServingError."""
    name = rest_decode.signature_name(document)
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    return name, rest_decode.predict_body(document, signature)


def decode_rest_examples(body: Body, max_tensor_bytes: int) -> tuple[str, Array]:
    """Return the name of the signature and the serialized examples. Raises ServingError."""
    document = rest_decode.parse(body.unpacked())
    request = pb.ClassificationRequest(input=rest_decode.examples_body(document))
    data_plane.check_size(request, max_tensor_bytes)
    return rest_decode.signature_name(document), data_plane.serialized_examples(request.input)


def encode_rest_predict(outputs: Mapping[str, Array], row: bool) -> Content:
    return Content(rest_encode.encoded(rest_encode.predict_response(outputs, row)))
