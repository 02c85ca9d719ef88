"""Loads and runs SavedModels with TensorFlow's public C API through ctypes, without `import tensorflow`.

TensorFlow Serving links the same loader and session, so error codes, error texts and the handling of half-written
SavedModels are the same as in production. The library comes from the installed TensorFlow wheel.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, data_type_of, numpy_dtype

INVALID_ARGUMENT: Final = 3  # canonical status code
_SLOW: Final = frozenset(
    {"TF_LoadSessionFromSavedModel", "TF_SessionRun", "TF_CloseSession", "TF_DeleteSession", "TF_DeleteGraph"}
)
_STRING_BYTES: Final = 24  # sizeof(TF_TString), tf_tstring.h


class TensorFlowError(Exception):
    """A status that TensorFlow returned. `code` is a canonical status code, as in gRPC."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Output(ctypes.Structure):
    _fields_ = [("oper", c_void_p), ("index", c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewBuffer": (POINTER(_Buffer), []),
    "TF_NewBufferFromString": (POINTER(_Buffer), [c_char_p, c_size_t]),
    "TF_DeleteBuffer": (None, [POINTER(_Buffer)]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(_Buffer), c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, POINTER(_Buffer)),  # session, run options
            *(POINTER(_Output), POINTER(c_void_p), c_int),  # feeds
            *(POINTER(_Output), POINTER(c_void_p), c_int),  # fetches
            *(c_void_p, c_int, c_void_p, c_void_p),  # targets, run metadata, status
        ],
    ),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringDealloc": (None, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


@cache
def library() -> Any:
    """Return the declared functions of TensorFlow's library. Raises ImportError if TensorFlow is not installed."""
    spec = importlib.util.find_spec("tensorflow")  # does not import it
    if spec is None or spec.origin is None:
        raise ImportError("the TensorFlow wheel is not installed")
    folder = Path(spec.origin).parent
    found = sorted([*folder.glob("libtensorflow_cc.so.[0-9]"), *folder.glob("libtensorflow_cc.[0-9].dylib")])
    if not found:
        raise ImportError(f"{folder} contains no libtensorflow_cc: is this a different build of TensorFlow?")
    # oneDNN looks up a primitive for each matrix product. For small models this costs more than it saves (a third of
    # this product's requests per second). The library reads the variable when it loads; set it to 1 for large models.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # RTLD_LOCAL: the library exports a TLS implementation that would otherwise shadow Python's OpenSSL.
    releasing = ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_LOCAL)
    holding = ctypes.PyDLL(str(found[0]), mode=ctypes.RTLD_LOCAL)
    functions = {}
    for name, (result, arguments) in _SIGNATURES.items():
        # Calls of about a microsecond keep the GIL: releasing and reacquiring it, 20 times per request, costs more.
        function = getattr(releasing if name in _SLOW else holding, name)
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return SimpleNamespace(**functions)


class _Status:
    """A TF_Status for one call. `check` raises the error, if any."""

    def __init__(self) -> None:
        self.pointer = library().TF_NewStatus()

    def check(self) -> None:
        tf = library()
        code = tf.TF_GetCode(self.pointer)
        if code:
            raise TensorFlowError(code, tf.TF_Message(self.pointer).decode(errors="replace"))

    def __enter__(self) -> _Status:
        return self

    def __exit__(self, *_: object) -> None:
        library().TF_DeleteStatus(self.pointer)


class Session:
    """A loaded SavedModel. Thread-safe: any number of threads may call `run` at once.

    Args:
        folder: SavedModel folder.
        tags: tags of the MetaGraph, usually ("serve",).
        config: a serialized tensorflow.ConfigProto.

    Raises:
        TensorFlowError: loading failed; has the loader's code and text.
    """

    def __init__(self, folder: Path, tags: Sequence[str] = ("serve",), config: bytes = b"") -> None:
        tf = library()
        self._graph = tf.TF_NewGraph()
        self._session: int | None = None
        options, meta_graph = tf.TF_NewSessionOptions(), tf.TF_NewBuffer()
        try:
            with _Status() as status:
                if config:
                    tf.TF_SetConfig(options, config, len(config), status.pointer)
                    status.check()
                names = (c_char_p * len(tags))(*(tag.encode() for tag in tags))
                session = tf.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), names, len(tags), self._graph, meta_graph, status.pointer
                )
                status.check()
            self._session = session
            content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            self.meta_graph = pb.MetaGraphDef.FromString(content)
            self.meta_graph.DiscardUnknownFields()  # such as the graph, of which TensorFlow has its own copy
        except BaseException:
            tf.TF_DeleteGraph(self._graph)
            raise
        finally:
            tf.TF_DeleteSessionOptions(options)
            tf.TF_DeleteBuffer(meta_graph)

    def endpoint(self, tensor_name: str) -> tuple[int, int]:
        """Return (operation, index) of a tensor such as "x:0". Raises TensorFlowError if it is not in the graph."""
        name, _, index = tensor_name.partition(":")
        operation = library().TF_GraphOperationByName(self._graph, name.encode())
        if not operation:
            raise TensorFlowError(INVALID_ARGUMENT, f"Tensor {tensor_name} was not found in the graph")
        return operation, int(index or 0)

    def run(
        self,
        feeds: Sequence[tuple[tuple[int, int], Array]],
        fetches: Sequence[tuple[int, int]],
        timeout_ms: int = 0,
    ) -> list[Array]:
        """Feed arrays, return the fetched ones (strings as object arrays of bytes). Releases the GIL during the run.

        Args:
            timeout_ms: TensorFlow's limit for the run; 0 for none.

        Raises:
            TensorFlowError: the run failed; has the kernel's code and text.
        """
        tf = library()
        inputs, outputs = _outputs(tuple(endpoint for endpoint, _ in feeds)), _outputs(tuple(fetches))
        given, fetched = (c_void_p * len(feeds))(), (c_void_p * len(fetches))()
        options = None
        if timeout_ms:
            encoded = _run_options(timeout_ms)
            options = tf.TF_NewBufferFromString(encoded, len(encoded))
        try:
            for i, (_, array) in enumerate(feeds):
                given[i] = _new_tensor(tf, array)
            with _Status() as status:
                tf.TF_SessionRun(
                    self._session, options, inputs, given, len(feeds), outputs, fetched, len(fetches), None, 0, None,
                    status.pointer,
                )  # fmt: skip
                status.check()
            return [_to_array(tf, tensor) for tensor in fetched if tensor is not None]
        finally:
            if options is not None:
                tf.TF_DeleteBuffer(options)
            for tensor, (_, array) in zip(given, feeds, strict=True):
                if tensor:
                    if array.dtype.kind in "OSU":
                        _free_strings(tf, tensor, array.size)
                    tf.TF_DeleteTensor(tensor)
            for tensor in fetched:
                if tensor:
                    tf.TF_DeleteTensor(tensor)

    def close(self) -> None:
        """Free the model. No thread may be inside `run`."""
        if self._session is None:
            return
        tf, session, self._session = library(), self._session, None
        with _Status() as status:
            tf.TF_CloseSession(session, status.pointer)
            tf.TF_DeleteSession(session, status.pointer)
        tf.TF_DeleteGraph(self._graph)


@lru_cache(maxsize=256)
def _outputs(endpoints: tuple[tuple[int, int], ...]) -> Any:
    """Return the C array of these endpoints. TensorFlow only reads it, so requests can share it."""
    return (_Output * len(endpoints))(*(_Output(*endpoint) for endpoint in endpoints))


def _run_options(timeout_ms: int) -> bytes:
    return bytes(pb.RunOptions(timeout_in_ms=timeout_ms).SerializeToString())


def _new_tensor(tf: Any, array: Array) -> int:
    data_type = data_type_of(array)
    dims = (c_int64 * array.ndim)(*array.shape)
    if data_type != pb.DT_STRING:
        array = np.ascontiguousarray(array)
        tensor: int = tf.TF_AllocateTensor(data_type, dims, len(dims), array.nbytes)
        ctypes.memmove(tf.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor
    tensor = tf.TF_AllocateTensor(data_type, dims, len(dims), array.size * _STRING_BYTES)
    place = tf.TF_TensorData(tensor)
    for value in array.ravel().tolist():
        content = value.encode() if isinstance(value, str) else value
        tf.TF_StringInit(place)
        tf.TF_StringCopy(place, content, len(content))
        place += _STRING_BYTES
    return int(tensor)


def _free_strings(tf: Any, tensor: int, count: int) -> None:
    """Free a fed tensor's strings: TF_DeleteTensor frees its slots, but not the long strings that they point to."""
    place = tf.TF_TensorData(tensor)
    for i in range(count):
        tf.TF_StringDealloc(place + i * _STRING_BYTES)


def _to_array(tf: Any, tensor: int) -> Array:
    data_type = tf.TF_TensorType(tensor)
    shape = tuple(tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor)))
    data = tf.TF_TensorData(tensor)
    if data_type == pb.DT_STRING:
        values = np.empty(math.prod(shape), np.object_)
        for i in range(len(values)):
            place = data + i * _STRING_BYTES
            values[i] = ctypes.string_at(tf.TF_StringGetDataPointer(place), tf.TF_StringGetSize(place))
        return values.reshape(shape)
    size_bytes = tf.TF_TensorByteSize(tensor)
    content = ctypes.string_at(data, size_bytes) if size_bytes else b""  # a copy: the tensor is deleted next
    return np.frombuffer(content, numpy_dtype(data_type)).reshape(shape)
