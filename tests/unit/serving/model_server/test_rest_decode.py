"""The REST codec on arbitrary JSON and bytes: a value is decoded exactly, or a ServingError states the reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.model_server import rest_decode
from serving.model_server.errors import Code, ServingError
from serving.model_server.rest_encode import encoded, predict_response
from serving.model_server.rest_values import to_bytes
from serving.model_server.servable import Endpoint, Signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import data_type_of, numpy_dtype

NUMERIC = [pb.DT_FLOAT, pb.DT_DOUBLE, pb.DT_BOOL, pb.DT_INT8, pb.DT_INT16, pb.DT_INT32, pb.DT_INT64]
NUMERIC += [pb.DT_UINT8, pb.DT_UINT32, pb.DT_UINT64]
UNSUPPORTED = [pb.DT_HALF, pb.DT_UINT16, pb.DT_BFLOAT16, pb.DT_COMPLEX64, pb.DT_RESOURCE]

NUMBERS = st.integers(-3, 300) | st.floats() | st.sampled_from([10**400, 2**63, 2**64, -(2**63) - 1, 1e39, True])
STRINGS = st.text(max_size=3) | st.sampled_from([{"b64": "YQ=="}, {"b64": "?"}, {"b64": 1}])
LEAVES = NUMBERS | STRINGS | st.sampled_from([None, {}, {"a": 1}])
VALUES = st.one_of(
    *(leaves | st.lists(leaves, max_size=3) | st.lists(st.lists(leaves, max_size=2) | leaves, max_size=3)
      for leaves in (NUMBERS, STRINGS, LEAVES))
)  # fmt: skip
ROWS = st.dictionaries(st.sampled_from(["x", "y", "z", "b64"]), VALUES, max_size=3)
ANY = VALUES | ROWS | st.lists(ROWS, max_size=3)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries({"inputs": ANY}),
    st.fixed_dictionaries({"instances": ANY}),
    st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "other"]), ANY, max_size=3),
)
EXAMPLES = st.fixed_dictionaries({"examples": st.lists(ROWS, max_size=2) | ANY}, optional={"context": ROWS | ANY})


def signature(*data_types: int, defaults: bool = False) -> Signature:
    infos = [pb.TensorInfo(name=f"{alias}:0", dtype=dtype) for alias, dtype in zip("xy", data_types, strict=False)]  # type: ignore[arg-type]
    inputs = {alias: Endpoint(info.name, info, (0, 0)) for alias, info in zip("xy", infos, strict=False)}
    return Signature("s", inputs, {}, {"y": np.zeros(1)} if defaults else {})


SIGNATURES = st.lists(st.sampled_from([*NUMERIC, pb.DT_STRING, *UNSUPPORTED]), min_size=1, max_size=2)


def decode(body: bytes, one: Signature) -> None:
    """Process a body as the server does before it runs the model; every error must be a client error."""
    try:
        document = rest_decode.parse(body)
        rest_decode.signature_name(document)
        for alias, array in rest_decode.predict_body(document, one).inputs.items():
            assert array.dtype == numpy_dtype(one.inputs[alias].info.dtype)
    except ServingError as e:
        assert e.code in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED) and e.message
        encoded({"error": e.message})


@given(st.binary(max_size=100), SIGNATURES)
@example(b"[]", [pb.DT_FLOAT])
@example(b'{"inputs": "\\ud800"}', [pb.DT_STRING])
@example(b"[" * 10_000, [pb.DT_FLOAT])
@example(b'{"inputs": ' + b"1" * 10_000 + b"}", [pb.DT_FLOAT])
@example(b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", [pb.DT_STRING])
@example(b'{"inputs": ' + b"[" * 65 + b"1" + b"]" * 65 + b"}", [pb.DT_INT64])
def test_any_bytes(body: bytes, types: list[int]) -> None:
    decode(body, signature(*types))


@given(DOCUMENTS, SIGNATURES, st.booleans())
@example({"inputs": [["a"], ["b", "c"]]}, [pb.DT_STRING], False)
@example({"inputs": {"b64": 1}}, [pb.DT_STRING], False)
@settings(max_examples=200)
def test_any_document(document: dict[str, Any], types: list[int], defaults: bool) -> None:
    decode(json.dumps(document).encode(), signature(*types, defaults=defaults))


@given(st.data(), DOCUMENTS, SIGNATURES)
def test_any_damaged_document(data: st.DataObject, document: dict[str, Any], types: list[int]) -> None:
    body = bytearray(json.dumps(document).encode())
    start = data.draw(st.integers(0, len(body)))
    body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decode(bytes(body), signature(*types))


@given(EXAMPLES)
@example({"examples": [{"x": [1, 2**63]}]})
@example({"examples": [{"x": {"b64": 1}}]})
@example({"examples": [{"x": [0.5, 10**400]}]})
def test_any_examples(document: dict[str, Any]) -> None:
    try:
        decoded = rest_decode.examples_body(document)
    except ServingError as e:
        assert e.code == Code.INVALID_ARGUMENT and e.message
        return
    assert len(decoded.SerializeToString()) > 0 and decoded.WhichOneof("kind") is not None


@given(st.sampled_from(NUMERIC), st.data())
def test_numbers_survive_exactly(data_type: int, data: st.DataObject) -> None:
    """In rows and in columns. Excluded: NaN bit patterns and empty first dimensions, which JSON cannot represent."""
    dtype = numpy_dtype(data_type)
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
    array = data.draw(npst.arrays(dtype, shape, elements=npst.from_dtype(dtype, allow_nan=False)))
    for row in (True, False):
        document = predict_response({"x": array}, row)
        body = encoded({"instances" if row else "inputs": next(iter(document.values()))})
        decoded = rest_decode.predict_body(rest_decode.parse(body), signature(data_type_of(array))).inputs["x"]
        np.testing.assert_array_equal(decoded, array, strict=True)


@given(st.recursive(st.binary(max_size=6), lambda inner: st.lists(inner, min_size=2, max_size=2), max_leaves=4))
def test_bytes_survive_exactly(values: Any) -> None:
    array = np.array(values, np.object_)
    body = encoded({"inputs": predict_response({"x_bytes": array}, row=False)["outputs"]})
    try:
        decoded = rest_decode.predict_body(rest_decode.parse(body), signature(pb.DT_STRING)).inputs["x"]
    except ServingError as e:
        assert "unequal lengths" in e.message or "not of expected type" in e.message  # a ragged list
        assert any(isinstance(element, list) for element in array.ravel())
        return
    assert decoded.tolist() == array.tolist()


@given(st.sampled_from(NUMERIC[3:]), st.data())
def test_integers_are_accepted_exactly_in_their_range(data_type: int, data: st.DataObject) -> None:
    limits = np.iinfo(numpy_dtype(data_type))
    edges = st.sampled_from([int(limits.min) - 1, int(limits.min), int(limits.max), int(limits.max) + 1])
    values = data.draw(st.lists(edges | st.integers(-(2**65), 2**65), min_size=1, max_size=3))
    document = {"instances": values}
    if all(limits.min <= value <= limits.max for value in values):
        assert rest_decode.predict_body(document, signature(data_type)).inputs["x"].tolist() == values
    else:
        with pytest.raises(ServingError, match="is not of expected type"):
            rest_decode.predict_body(document, signature(data_type))


@given(st.lists(st.floats(width=64), min_size=1, max_size=4))
def test_floats_are_rounded_and_overflow_to_infinity(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values).astype(np.float32)
    decoded = rest_decode.predict_body({"instances": values}, signature(pb.DT_FLOAT)).inputs["x"]
    np.testing.assert_array_equal(decoded, expected, strict=True)


@pytest.mark.parametrize("text", ["YQ==", "YQ", " Y\r\nQ =\t= "])
def test_base64_with_line_breaks_or_without_padding(text: str) -> None:
    assert to_bytes({"b64": text}) == b"a"


@pytest.mark.parametrize("text", ["YQ=", "Y", "YQ===", "YQ==YQ==", "Y-Q", "ü"])
def test_invalid_base64_is_refused(text: str) -> None:
    with pytest.raises(ServingError, match="Unable to base64 decode"):
        to_bytes({"b64": text})
