"""PredictionService.Predict: responses, codes and texts."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.support import saved_models
from tests.support.clients import refused
from tests.support.servers import Server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
X = {"x": [[1.0], [2.0]]}


def proto(dtype: int, shape: list[int], **fields: object) -> tf.compat.v1.TensorProto:
    made = tf.make_tensor_proto(0).__class__(dtype=dtype, **fields)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


# ---- responses ----


def test_response_and_its_model_spec(server: Server) -> None:
    response = server.predict("half", X)
    assert list(response.outputs) == ["y"]
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["y"]), [[2.5], [3.0]])
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half", "serving_default", 123)


def test_the_default_signature_may_be_named(server: Server) -> None:
    assert server.predict("half", X, signature="serving_default") == server.predict("half", X)


@pytest.mark.parametrize("how", [{}, {"version": 5}, {"version": 1}, {"label": "stable"}, {"label": "canary"}])
def test_which_version_responds(server: Server, how: dict[str, object]) -> None:
    expected = {"stable": 1, "canary": 2}.get(str(how.get("label")), how.get("version", 5))
    assert server.responding_version("versioned", **how) == expected


def test_a_label_is_not_echoed(server: Server) -> None:
    spec = server.predict("versioned", {"x": [1.0]}, label="stable").model_spec
    assert spec.WhichOneof("version_choice") == "version" and not spec.version_label


def test_several_outputs(server: Server) -> None:
    response = server.predict("pair", {"a": [1.0, 2.0], "b": [10.0, 20.0]})
    assert {k: list(v.float_val) for k, v in response.outputs.items()} == {"sum": [11, 22], "product": [10, 40]}


@pytest.mark.parametrize("wanted", [("sum",), ("product",), ("sum", "product")])
def test_output_filter(server: Server, wanted: tuple[str, ...]) -> None:
    response = server.predict("pair", {"a": [1.0], "b": [3.0]}, output_filter=wanted)
    assert set(response.outputs) == set(wanted)


def test_strings(server: Server) -> None:
    long = "ä long string, longer than what TensorFlow keeps inline".encode()
    outputs = server.predict("text", {"s": [[b"a"], [long], [b"\0\xff"]]}).outputs
    assert list(outputs["raw_bytes"].string_val) == [b"a", long, b"\0\xff"]
    assert list(outputs["length"].int_val) == [1, len(long), 2]
    assert [d.size for d in outputs["upper"].tensor_shape.dim] == [3, 1]


def test_scalars(server: Server) -> None:
    output = server.predict("scalar", {"x": 3.0}).outputs["y"]
    assert list(output.float_val) == [9.0] and not output.tensor_shape.dim


@pytest.mark.parametrize("name", saved_models.DTYPES)
def test_each_dtype_survives_a_round_trip(server: Server, name: str) -> None:
    """Values may be sent in either encoding; they are returned in the typed field."""
    dtype = tf.dtypes.as_dtype(name)
    values = [b"a", b"bc"] if name == "string" else np.array([0, 1, 1], dtype.as_numpy_dtype)
    sent = tf.make_tensor_proto(values, dtype)
    got = server.predict("types", {"x": sent}, signature=name).outputs["y"]
    assert got.dtype == dtype.as_datatype_enum and not got.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(got), tf.make_ndarray(sent))


def test_an_empty_batch(server: Server) -> None:
    output = server.predict("half", {"x": np.empty((0, 1), np.float32)}).outputs["y"]
    assert [d.size for d in output.tensor_shape.dim] == [0, 1] and not output.float_val


def test_special_floats(server: Server) -> None:
    values = server.predict("types", {"x": np.array([np.nan, np.inf, -np.inf, 0])}, signature="float64").outputs["y"]
    np.testing.assert_array_equal(values.double_val, [np.nan, np.inf, -np.inf, 0])


def test_the_last_value_fills_the_rest_of_a_tensor(server: Server) -> None:
    given = proto(tf.float32.as_datatype_enum, [3, 1], float_val=[2.0, 4.0])
    assert list(server.predict("half", {"x": given}).outputs["y"].float_val) == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("values", [[1.0], 1.0, [[[1.0]], [[1.0]]], [[1.0, 1.0]]])
def test_shapes_are_not_checked_against_the_signature(server: Server, values: object) -> None:
    output = server.predict("half", {"x": values}).outputs["y"]
    assert tf.make_ndarray(output).shape == np.shape(values) and set(output.float_val) == {2.5}


def test_defaults_of_a_signature(server: Server) -> None:
    assert list(server.predict("defaults", {"x": [1.0]}).outputs["y"].float_val) == [11.0]
    assert list(server.predict("defaults", {"x": [1.0], "bias": 5.0}).outputs["y"].float_val) == [6.0]


def test_messages_over_4_mb_in_both_directions(server: Server) -> None:
    values = np.arange(2_000_000, dtype=np.float32)
    output = server.predict("types", {"x": values}, signature="float32").outputs["y"]
    np.testing.assert_array_equal(tf.make_ndarray(output), values)


# ---- errors ----

NAMED = "Inputs expected to be in the request"
ERRORS = {
    "empty name": ("", X, {}, INVALID, "ModelSpec has no name specified."),
    "unknown model": ("nix", X, {}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(nix)"),
    "unknown version": (
        *("half", X, {"version": 9}),
        *(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(half, 9)"),
    ),
    "version that is not loaded": (
        *("versioned", X, {"version": 3}),
        *(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(versioned, 3)"),
    ),
    "unknown label": ("half", X, {"label": "L"}, INVALID, "Unrecognized servable version label: L"),
    "unknown signature": (
        *("half", X, {"signature": "S"}),
        *(grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "S" not found.'),
    ),
    "no input": (
        *("half", {}, {}, INVALID),
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    ),
    "one missing": (
        *("pair", {"a": [1.0]}, {}, INVALID),
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
    ),
    "two missing, one extra": (
        *("pair", {"q": [1.0]}, {}, INVALID),
        "input size does not match signature: 1!=2 len({q}) != len({a,b}). Sent extra: {q}. "
        "Missing but required: {a,b}.",
    ),
    "extra": (
        *("half", {"x": [1.0], "z": [1.0]}, {}, INVALID),
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
    ),
    "wrong name": (
        *("half", {"z": [1.0]}, {}, INVALID),
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
        f"{NAMED} {{z}}, or default input alias set: ",
    ),
    "wrong dtype": (
        *("half", {"x": np.array([1.0])}, {}, INVALID),
        "Expects arg[0] to be float but double is provided",
    ),
    "string instead of number": (
        *("half", {"x": ["1"]}, {}, INVALID),
        "Expects arg[0] to be float but string is provided",
    ),
    "typed values beyond the shape": (
        *("half", {"x": proto(1, [1], float_val=[1.0, 2.0])}, {}, INVALID),
        "tensor parsing error: x",
    ),
    "content of the wrong length": (
        *("half", {"x": proto(1, [2], tensor_content=b"123")}, {}, INVALID),
        "tensor parsing error: x",
    ),
    "negative size": ("half", {"x": proto(1, [-1], float_val=[1.0])}, {}, INVALID, "tensor parsing error: x"),
    "impossible size": (
        "half",
        {"x": proto(1, [2**40, 2**40], float_val=[1.0])},
        {},
        INVALID,
        "tensor parsing error: x",
    ),
    "unknown dtype": ("half", {"x": proto(99, [1], float_val=[1.0])}, {}, INVALID, "tensor parsing error: x"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refused(server: Server, case: str) -> None:
    name, inputs, spec, code, text = ERRORS[case]
    with refused(code, text):
        server.predict(name, inputs, **spec)


def test_unknown_output_filter(server: Server) -> None:
    text = "output tensor alias not found in signature: q Outputs expected to be in the set {y}."
    with refused(INVALID, text):
        server.predict("half", X, output_filter=("q",))


def test_duplicate_output_filter(server: Server) -> None:
    with refused(INVALID, "duplicate output tensor alias: y"):
        server.predict("half", X, output_filter=("y", "y"))


def test_a_kernel_error_names_the_node(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("pair", {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]})
    assert caught.value.code() == INVALID
    text = caught.value.details()
    assert "Incompatible shapes: [2] vs. [3]" in text and "{{node " in text


def test_long_error_texts_are_cut(server: Server) -> None:
    name = "n" * 2000
    with refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name}"[:1024] + "...TRUNCATED"):
        server.predict(name, X)


def test_a_slow_request_delays_no_other(server: Server) -> None:
    slow = server.sleep(400)
    for _ in range(5):
        assert server.predict("half", X)
    assert not slow.done()
    assert list(slow.result().outputs["slept"].int64_val) == [400]
