"""Converts numpy arrays to and from TensorProto, without TensorFlow."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serving.protocol import serving_pb2 as pb

Array = npt.NDArray[Any]

# DataType -> (numpy dtype, typed field of its values). Types without a numpy equivalent are omitted.
_TYPES: Final[dict[int, tuple[npt.DTypeLike, str]]] = {
    pb.DT_FLOAT: (np.float32, "float_val"),
    pb.DT_DOUBLE: (np.float64, "double_val"),
    pb.DT_INT32: (np.int32, "int_val"),
    pb.DT_UINT8: (np.uint8, "int_val"),
    pb.DT_INT16: (np.int16, "int_val"),
    pb.DT_INT8: (np.int8, "int_val"),
    pb.DT_STRING: (np.object_, "string_val"),
    pb.DT_COMPLEX64: (np.complex64, "scomplex_val"),
    pb.DT_INT64: (np.int64, "int64_val"),
    pb.DT_BOOL: (np.bool_, "bool_val"),
    pb.DT_UINT16: (np.uint16, "int_val"),
    pb.DT_COMPLEX128: (np.complex128, "dcomplex_val"),
    pb.DT_HALF: (np.float16, "half_val"),
    pb.DT_UINT32: (np.uint32, "uint32_val"),
    pb.DT_UINT64: (np.uint64, "uint64_val"),
}
_DATA_TYPES: Final = {np.dtype(dtype): data_type for data_type, (dtype, _) in _TYPES.items()}
_DT_STRING: Final = int(pb.DT_STRING)  # as int: an enum lookup in `pb` takes longer than the rest of a function here
_DT_HALF: Final = int(pb.DT_HALF)
_DT_COMPLEX64: Final = int(pb.DT_COMPLEX64)
_RAW: Final = {np.dtype(np.float32): 0x2A, np.dtype(np.float64): 0x32}  # tags of float_val (5) and double_val (6)
MAX_ELEMENTS: Final = 2**31  # larger shapes are rejected as malicious
MAX_FILLED: Final = 2**24  # elements of a tensor that repeats its last value: a few bytes must not allocate gigabytes


STRING_BYTES: Final = 100  # memory of a string beside its content, in Python and in TensorFlow
EXTEND_ELEMENTS: Final = 2**14  # values added at once: the interpreter's lock is released in between
MERGE_ELEMENTS: Final = 2**18  # the same for values that are copied as bytes


class TensorError(ValueError):
    """An inconsistent TensorProto, or a dtype without a TensorProto equivalent."""


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """Return the numpy dtype of a DataType; object for DT_STRING. Raises TensorError if numpy has no such type."""
    if data_type not in _TYPES:
        raise TensorError(f"data type {data_type} has no numpy equivalent")
    return np.dtype(_TYPES[data_type][0])


def data_type_of(array: Array) -> int:
    """Return the DataType of an array; DT_STRING for str, bytes and object. Raises TensorError if it has none."""
    if array.dtype.kind in "OSU":
        return _DT_STRING
    try:
        return int(_DATA_TYPES[array.dtype])
    except KeyError:
        raise TensorError(f"dtype {array.dtype} has no TensorProto equivalent") from None


def to_proto(values: Any, *, content: bool = False) -> pb.TensorProto:
    """Encode an array (or nested list) as a TensorProto.

    Args:
        values: anything that np.asarray accepts; strings as str or bytes.
        content: put the raw bytes into tensor_content instead of the typed field (smaller and faster for uint8).
            TensorFlow Serving responds with typed fields, so a server leaves this off.

    Raises:
        TensorError: the dtype has no TensorProto equivalent.
    """
    proto = pb.TensorProto()
    fill_proto(proto, np.asarray(values), content=content)
    return proto


def fill_proto(proto: pb.TensorProto, array: Array, *, content: bool = False) -> None:
    """Encode an array into an existing, empty message, as `to_proto` does."""
    proto.MergeFromString(_head(data_type_of(array), array.shape))
    if array.dtype.kind in "OSU":
        proto.string_val.extend(v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel().tolist())
    elif content:
        proto.tensor_content = array.tobytes()
    elif array.dtype in _RAW:
        # A packed field is the array's raw bytes: copy them, without creating a Python number for each value.
        flat = array.astype(array.dtype.newbyteorder("<"), copy=False).ravel()
        for start in range(0, len(flat), MERGE_ELEMENTS):
            raw = flat[start : start + MERGE_ELEMENTS].tobytes()
            proto.MergeFromString(bytes([_RAW[array.dtype]]) + _varint(len(raw)) + raw)
    else:
        flat = np.ascontiguousarray(array).ravel()
        data_type = proto.dtype
        if data_type == _DT_HALF:
            flat = flat.view(np.uint16)
        elif array.dtype.kind == "c":
            flat = flat.view(np.float32 if data_type == _DT_COMPLEX64 else np.float64)  # real, imaginary, real, ...
        values = getattr(proto, _TYPES[data_type][1])
        for start in range(0, len(flat), EXTEND_ELEMENTS):
            values.extend(flat[start : start + EXTEND_ELEMENTS].tolist())


@lru_cache(maxsize=1024)
def _head(data_type: int, shape: tuple[int, ...]) -> bytes:
    """Return a serialized TensorProto without values. A scalar gets an empty shape, not a missing one."""
    dims = [pb.TensorShapeProto.Dim(size=size) for size in shape]
    head = pb.TensorProto(dtype=data_type, tensor_shape=pb.TensorShapeProto(dim=dims))  # type: ignore[arg-type]
    return bytes(head.SerializeToString())


def _varint(value: int) -> bytes:
    """Encode a number >= 0 as a base-128 varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def from_proto(proto: pb.TensorProto) -> Array:
    """Decode a TensorProto; strings become an object array of bytes.

    As in TensorFlow, the last typed value fills the rest of the shape (zero if there are no values).

    Raises:
        TensorError: unknown dtype or shape, more values than elements, or content of the wrong length.
    """
    dtype = numpy_dtype(proto.dtype)
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    count = 1
    for size in shape:
        count *= size
        if size < 0 or count > MAX_ELEMENTS:
            raise TensorError(f"invalid shape {list(shape)}")
    if proto.tensor_shape.unknown_rank:
        raise TensorError("shape of unknown rank")
    if proto.tensor_content and proto.dtype != _DT_STRING:
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise TensorError(f"{len(proto.tensor_content)} bytes of content for {count} elements of {dtype}")
        return _shaped(np.frombuffer(proto.tensor_content, dtype), shape)
    values = getattr(proto, _TYPES[proto.dtype][1])
    if proto.dtype == _DT_STRING:
        return _shaped(_filled(np.array([*values, None], np.object_)[:-1], count, b""), shape)
    if proto.dtype == _DT_HALF:
        flat = np.array(values, np.int64).astype(np.uint16).view(np.float16)
    elif dtype.kind == "c":
        pairs = values[: len(values) // 2 * 2]  # a real part without an imaginary one is ignored, as in TensorFlow
        flat = np.array(pairs, np.float32 if proto.dtype == _DT_COMPLEX64 else np.float64).view(dtype)
    else:
        held_in = np.int64 if _TYPES[proto.dtype][1] == "int_val" else dtype  # narrow types are sent as int32
        flat = np.array(values, held_in).astype(dtype)
    return _shaped(_filled(flat, count, 0), shape)


def _shaped(flat: Array, shape: tuple[int, ...]) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError:  # more dimensions than numpy supports, or a size such as [0, 2**62, 2**62]
        raise TensorError(f"shape of {len(shape)} dimensions is not supported") from None


def filled_bytes(proto: pb.TensorProto) -> int:
    """Return the memory that `from_proto` and TensorFlow need for a tensor, about; 0 for an invalid one."""
    if proto.tensor_content and proto.dtype != _DT_STRING:
        return len(proto.tensor_content)
    count = math.prod(dim.size for dim in proto.tensor_shape.dim)
    if proto.dtype not in _TYPES or not 0 <= count <= MAX_ELEMENTS:
        return 0
    if proto.dtype != _DT_STRING:
        return int(count) * numpy_dtype(proto.dtype).itemsize
    values = proto.string_val
    repeated = max(0, count - len(values)) * len(values[-1]) if values else 0
    return int(count * STRING_BYTES + proto.ByteSize() + repeated)


def array_bytes(array: Array) -> int:
    """Return the memory that an array and TensorFlow's copy of it need, about."""
    if array.dtype.kind != "O":
        return array.nbytes
    return array.size * STRING_BYTES + sum(map(len, array.ravel().tolist()))


def _filled(flat: Array, count: int, empty: Any) -> Array:
    """Return `flat` with its last value repeated up to `count` elements."""
    if len(flat) > count:
        raise TensorError(f"{len(flat)} values for {count} elements")
    if len(flat) == count:
        return flat
    if count > MAX_FILLED:
        raise TensorError(f"{len(flat)} values for {count} elements")
    filled = np.empty(count, flat.dtype)
    filled[: len(flat)] = flat
    filled[len(flat) :] = flat[-1] if len(flat) else empty
    return filled
