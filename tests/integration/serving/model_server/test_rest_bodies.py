"""REST: predict, classify and regress bodies, status and metadata."""

from __future__ import annotations

import base64
import math

import pytest

from tests.support.servers import Server

X = {"instances": [[1.0], [2.0]]}


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


# ---- predict ----

PREDICT = {
    "row": ("half", {"instances": [[1.0], [2.0]]}, {"predictions": [[2.5], [3.0]]}),
    "row, ints for floats": ("half", {"instances": [[1], [2]]}, {"predictions": [[2.5], [3.0]]}),
    "row, named": ("half", {"instances": [{"x": [1.0]}, {"x": [2.0]}]}, {"predictions": [[2.5], [3.0]]}),
    "row, of another rank": ("half", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
    "row, several inputs": (
        *("pair", {"instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}),
        {"predictions": [{"sum": 3.0, "product": 2.0}, {"sum": 7.0, "product": 12.0}]},
    ),
    "columns": ("half", {"inputs": [[1.0], [2.0]]}, {"outputs": [[2.5], [3.0]]}),
    "columns, named": ("half", {"inputs": {"x": [[1.0]]}}, {"outputs": [[2.5]]}),
    "columns, several inputs": (
        *("pair", {"inputs": {"a": [1, 3], "b": [2, 4]}}),
        {"outputs": {"sum": [3.0, 7.0], "product": [2.0, 12.0]}},
    ),
    "columns, extra names": ("half", {"inputs": {"x": [1.0], "other": 1}}, {"outputs": [2.5]}),
    "columns, a scalar": ("scalar", {"inputs": 3}, {"outputs": 9.0}),
    "columns, from a default": ("defaults", {"inputs": {"x": [1.0], "bias": 1}}, {"outputs": [2.0]}),
    "signature": ("half", {"signature_name": "serving_default", **X}, {"predictions": [[2.5], [3.0]]}),
    "empty signature": ("half", {"signature_name": "", **X}, {"predictions": [[2.5], [3.0]]}),
    "an empty row": ("half", {"inputs": []}, {"outputs": []}),
    "unknown keys": ("half", {"something": "else", **X}, {"predictions": [[2.5], [3.0]]}),
}


@pytest.mark.parametrize("case", PREDICT)
def test_predict(server: Server, case: str) -> None:
    name, body, expected = PREDICT[case]
    response = server.post(f"{name}:predict", body)
    assert (response.code, response.json) == (200, expected)
    assert response.headers["content-type"] == "application/json"


def test_strings_and_bytes(server: Server) -> None:
    """Bytes are sent as base64, and returned as base64 if the output's name ends in _bytes."""
    response = server.post("text:predict", {"instances": ["abc", b64(b"\0\xff"), "ä"]})
    assert response.code == 200
    rows = response.json["predictions"]
    assert [row["raw_bytes"] for row in rows] == [b64(b"abc"), b64(b"\0\xff"), b64("ä".encode())]
    assert [row["length"] for row in rows] == [3, 2, 2]
    assert rows[0]["upper"] == "ABC"


@pytest.mark.parametrize("inputs", ["abc", b64(b"abc"), ["abc"], {"s": "abc"}, {"s": b64(b"abc")}, [[b64(b"abc")]]])
def test_strings_of_any_shape(server: Server, inputs: object) -> None:
    response = server.post("text:predict", {"inputs": inputs})
    assert response.code == 200 and b64(b"abc")["b64"] in response.text


def test_nan_and_infinity_are_unquoted(server: Server) -> None:
    body = b'{"signature_name": "float64", "instances": [NaN, Infinity, -Infinity, 1, 1.5]}'
    response = server.post("types:predict", body)
    assert response.code == 200
    values = response.json["predictions"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, 1.0, 1.5]
    assert "1.0" in response.text


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_stay_integers(server: Server, name: str) -> None:
    bits = int(name.removeprefix("u").removeprefix("int"))
    limits = [0, 2**bits - 1] if name.startswith("u") else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    response = server.post("types:predict", {"signature_name": name, "instances": limits})
    assert response.json == {"predictions": limits} and ".0" not in response.text


@pytest.mark.parametrize("value", [1.0, 1.5, 300, -1, "1", None, True, {"a": 1}])
def test_integers_accept_nothing_else(server: Server, value: object) -> None:
    response = server.post("types:predict", {"signature_name": "uint8", "instances": [value]})
    assert response.code == 400
    if value == "1":
        assert response.error.endswith('JSON Value: "1" Type: String is not of expected type: uint8')


@pytest.mark.parametrize("value", [0, 1.0, "true", None])
def test_booleans_accept_nothing_else(server: Server, value: object) -> None:
    body = {"signature_name": "bool", "instances": [True, False]}
    assert server.post("types:predict", body).json == {"predictions": [True, False]}
    assert server.post("types:predict", {"signature_name": "bool", "instances": [value]}).code == 400


@pytest.mark.parametrize("name", ["float16", "complex64", "complex128", "uint16"])
def test_dtypes_without_a_json_equivalent(server: Server, name: str) -> None:
    response = server.post("types:predict", {"signature_name": name, "instances": [1]})
    assert response.code == 501


def test_large_numbers(server: Server) -> None:
    big = 10**30
    response = server.post("types:predict", {"signature_name": "float64", "instances": [big, 0.5, 2**63]})
    assert response.json == {"predictions": [1e30, 0.5, float(2**63)]}
    response = server.post("types:predict", {"signature_name": "float32", "instances": [1e39, -1e39]})
    assert response.json == {"predictions": [math.inf, -math.inf]}


@pytest.mark.parametrize("where", ["", "/versions/5", "/versions/1", "/labels/stable", "/labels/canary"])
def test_which_version_responds(server: Server, where: str) -> None:
    expected = {"/versions/1": 1, "/labels/stable": 1, "/labels/canary": 2}.get(where, 5)
    assert server.post(f"versioned{where}:predict", {"instances": [1]}).json == {"predictions": [expected]}


def test_predictions_equal_those_over_grpc(server: Server) -> None:
    values = [0.1, 1 / 3, 1e-30, 12345.678]
    over_grpc = list(server.predict("half", {"x": values}).outputs["y"].float_val)
    assert server.post("half:predict", {"instances": values}).json["predictions"] == pytest.approx(over_grpc, rel=1e-7)


# ---- classify and regress ----


def test_classify(server: Server) -> None:
    body = {"signature_name": "classify", "examples": [{"x": 1.0}, {"x": [4.0]}]}
    assert server.post("half:classify", body).json == {"results": [[["half", 2.5]], [["half", 4.0]]]}


def test_regress(server: Server) -> None:
    body = {"signature_name": "regress", "context": {"x": 10.0}, "examples": [{"other": "text"}, {"x": 2.0}]}
    assert server.post("half:regress", body).json == {"results": [7.0, 3.0]}


def test_scores_have_the_fewest_digits(server: Server) -> None:
    examples = [{"x": 0.4}]
    response = server.post("half:classify", {"signature_name": "classify_scores", "examples": examples})
    assert response.json == {"results": [[["", 2.2]] * 3]}
    assert server.post("half:regress", {"signature_name": "regress", "examples": examples}).json == {"results": [2.2]}


# ---- status and metadata ----


def test_status(server: Server) -> None:
    good = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert server.get("half").json == {"model_version_status": [{"version": "123", **good}]}
    assert [v["version"] for v in server.get("versioned").json["model_version_status"]] == ["5", "2", "1"]
    assert server.get("versioned/versions/2").json == {"model_version_status": [{"version": "2", **good}]}
    assert server.get("versioned/labels/stable").json == {"model_version_status": [{"version": "1", **good}]}


def test_metadata(server: Server) -> None:
    found = server.get("half/metadata").json
    assert found["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    default = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert default["inputs"] == {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x:0"}}
    assert default["method_name"] == "tensorflow/serving/predict" and default["defaults"] == {}
    assert server.get("versioned/versions/1/metadata").json["model_spec"]["version"] == "1"
