"""Converts nested JSON lists of a REST request to an array of the input's dtype; rejects values that do not fit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from serving.model_server.errors import Code, ServingError, invalid
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, TensorError, numpy_dtype

ENCODER: Final = json.JSONEncoder()
MAX_SHOWN_CHARS: Final = 200  # for a value in an error text
NOT_IN_JSON: Final = frozenset({pb.DT_HALF, pb.DT_UINT16, pb.DT_COMPLEX64, pb.DT_COMPLEX128})
MAX_DEPTH: Final = 64  # for nested lists: numpy's maximum number of dimensions


def to_array(value: Any, info: pb.TensorInfo, alias: str) -> Array:
    """Return a nested list of numbers, booleans or strings as an array of the input's dtype.

    Raises:
        ServingError: values of another type or out of range, lists of unequal lengths, or a dtype without a JSON
            equivalent.
    """
    name = type_name(info.dtype)
    if info.dtype == pb.DT_STRING:
        return _strings(value, alias)
    try:
        dtype = numpy_dtype(info.dtype)
    except TensorError:
        raise _unimplemented(name) from None
    if info.dtype in NOT_IN_JSON:
        raise _unimplemented(name)
    # Not np.array(value): with one string among the values, each element would get the length of that string.
    array = np.array(value, np.object_)
    kinds: set[type] = set(map(type, array.ravel().tolist()))
    if list in kinds:
        raise invalid(f"Encountered list of unequal lengths in input {alias}: {shown(value)}")
    allowed: dict[str, set[type]] = {"f": {float, int}, "i": {int}, "u": {int}, "b": {bool}}
    if kinds <= allowed[dtype.kind]:
        try:
            with np.errstate(over="ignore"):  # to infinity, as in TensorFlow Serving
                return array.astype(np.float64 if dtype.kind == "f" else dtype).astype(dtype)
        except OverflowError:
            pass  # reported below
    for wrong in _wrong_leaves(value, dtype):
        raise invalid(f"JSON Value: {shown(wrong)} Type: {json_type(wrong)} is not of expected type: {name}")
    raise invalid(f"JSON Value: {shown(value)} Type: Number is not of expected type: {name}")


def to_bytes(value: Any) -> bytes:
    """Return the bytes of a string or of {"b64": ...}. Raises ServingError."""
    if isinstance(value, str):
        return value.encode()
    if is_base64(value):
        text = b"".join(value["b64"].encode().split())  # may have line breaks and no padding
        try:
            return base64.b64decode(text if b"=" in text else text + b"=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise invalid(f"JSON Value: {shown(value)} Unable to base64 decode") from None
    raise invalid(f"JSON Value: {shown(value)} Type: {json_type(value)} is not of expected type: string")


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type for an error text."""
    names: Mapping[type, str] = {str: "String", bool: str(value), dict: "Object", list: "Array", type(None): "Null"}
    return names.get(type(value), "Number")


def shown(value: Any) -> str:
    """Return a value as JSON for an error text, shortened."""
    text = ""
    for part in ENCODER.iterencode(value[:MAX_SHOWN_CHARS] if isinstance(value, str) else value):
        text += part
        if len(text) > MAX_SHOWN_CHARS:  # the rest may be long, or nested deeply
            return text[:MAX_SHOWN_CHARS] + "..."
    return text


def type_name(data_type: int) -> str:
    """Return TensorFlow's name of a DataType, such as "float"."""
    name: str = pb.DataType.Name(data_type)
    return name.removeprefix("DT_").lower()


def _unimplemented(name: str) -> ServingError:
    return ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value to type: {name}")


def _strings(value: Any, alias: str) -> Array:
    """Return an object array of bytes from nested lists of strings or {"b64": ...}."""
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) > MAX_DEPTH:
        raise invalid(f"Encountered list at unexpected level: {len(shape)} in input {alias}")
    leaves = list(_string_leaves(value, shape, alias))  # not preallocated: the client could make `shape` huge
    flat = np.empty(len(leaves), np.object_)
    flat[:] = leaves
    return flat.reshape(shape)


def _string_leaves(value: Any, shape: Sequence[int], alias: str) -> Iterator[bytes]:
    if not shape:
        yield to_bytes(value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise invalid(f"Encountered list of unequal lengths in input {alias}: {shown(value)}")
    for element in value:
        yield from _string_leaves(element, shape[1:], alias)


def _wrong_leaves(value: Any, dtype: np.dtype[Any]) -> Iterator[Any]:
    """Yield the leaves that are not of the dtype, for the error text."""
    if isinstance(value, list):
        for element in value:
            yield from _wrong_leaves(element, dtype)
        return
    if dtype.kind == "b":
        good = isinstance(value, bool)
    elif dtype.kind == "f":
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        good = isinstance(value, int) and not isinstance(value, bool)
        good = good and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    if not good:
        yield value
