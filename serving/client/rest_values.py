"""Converts tensors to and from the JSON of TensorFlow Serving's REST API."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, TensorError, numpy_dtype


def encode(values: Any) -> Any:
    """Return an array (or anything that np.asarray accepts) as nested lists; bytes become {"b64": ...}.

    Raises:
        TensorError: the dtype, such as complex, has no JSON equivalent.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biufOSU":
        raise TensorError(f"dtype {array.dtype} has no JSON equivalent")
    return _without_bytes(array.tolist()) if array.dtype.kind in "OS" else array.tolist()


def decode_outputs(document: Any, signature: pb.SignatureDef) -> dict[str, Array]:
    """Return the "outputs" of a response as arrays of the signature's dtypes; strings as object arrays of bytes.

    For a signature with one output, the response contains the value without its name.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: the document does not match the signature.
    """
    infos = dict(signature.outputs)
    values = document if len(infos) != 1 else {next(iter(infos)): document}
    return {name: _decode(value, infos[name]) for name, value in values.items()}


def _decode(value: Any, info: pb.TensorInfo) -> Array:
    dtype = numpy_dtype(info.dtype)
    if dtype.kind != "O":
        array = np.asarray(value, dtype)
    else:
        shape, inner = [], value
        while isinstance(inner, list):
            shape.append(len(inner))
            inner = inner[0] if inner else None
        array = np.empty(0 if 0 in shape else int(np.prod(shape, dtype=np.int64)), np.object_)
        array[:] = list(_strings(value))
        array = array.reshape(shape)
    if array.size == 0 and info.tensor_shape.dim:  # JSON's [] loses the inner axes
        return array.reshape([0, *(max(dim.size, 0) for dim in info.tensor_shape.dim[1:])])
    return array


def _strings(value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    else:
        yield base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _without_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_bytes(item) for item in value]
    return value if isinstance(value, str) else {"b64": base64.b64encode(bytes(value)).decode()}
