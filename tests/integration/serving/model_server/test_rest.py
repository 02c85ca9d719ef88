"""The REST interface: bodies, codes, texts, and what comes from clients that mean no good."""

from __future__ import annotations

import base64
import http.client
import json
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.servers import Server, example, packed, refused, wait_for

MB = 1024**2
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
    answer = server.post(f"{name}:predict", body)
    assert (answer.code, answer.json) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


def test_strings_and_bytes(server: Server) -> None:
    """Text goes as it is; bytes go as base64, and come so from an output whose name ends in _bytes."""
    answer = server.post("text:predict", {"instances": ["abc", b64(b"\0\xff"), "ä"]})
    assert answer.code == 200
    rows = answer.json["predictions"]
    assert [row["raw_bytes"] for row in rows] == [b64(b"abc"), b64(b"\0\xff"), b64("ä".encode())]
    assert [row["length"] for row in rows] == [3, 2, 2]
    assert rows[0]["upper"] == "ABC"


@pytest.mark.parametrize("inputs", ["abc", b64(b"abc"), ["abc"], {"s": "abc"}, {"s": b64(b"abc")}, [[b64(b"abc")]]])
def test_strings_of_any_shape(server: Server, inputs: object) -> None:
    answer = server.post("text:predict", {"inputs": inputs})
    assert answer.code == 200 and b64(b"abc")["b64"] in answer.text


def test_nan_and_infinity_stand_bare(server: Server) -> None:
    body = b'{"signature_name": "float64", "instances": [NaN, Infinity, -Infinity, 1, 1.5]}'
    answer = server.post("types:predict", body)
    assert answer.code == 200
    values = answer.json["predictions"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, 1.0, 1.5]
    assert "1.0" in answer.text


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_stay_integers(server: Server, name: str) -> None:
    bits = int(name.removeprefix("u").removeprefix("int"))
    limits = [0, 2**bits - 1] if name.startswith("u") else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    answer = server.post("types:predict", {"signature_name": name, "instances": limits})
    assert answer.json == {"predictions": limits} and ".0" not in answer.text


@pytest.mark.parametrize("value", [1.0, 1.5, 300, -1, "1", None, True, {"a": 1}])
def test_integers_take_nothing_else(server: Server, value: object) -> None:
    answer = server.post("types:predict", {"signature_name": "uint8", "instances": [value]})
    assert answer.code == 400
    if value == "1":
        assert answer.error.endswith('JSON Value: "1" Type: String is not of expected type: uint8')


@pytest.mark.parametrize("value", [0, 1.0, "true", None])
def test_booleans_take_nothing_else(server: Server, value: object) -> None:
    body = {"signature_name": "bool", "instances": [True, False]}
    assert server.post("types:predict", body).json == {"predictions": [True, False]}
    assert server.post("types:predict", {"signature_name": "bool", "instances": [value]}).code == 400


@pytest.mark.parametrize("name", ["float16", "complex64", "complex128"])
def test_types_that_json_has_no_form_for(server: Server, name: str) -> None:
    answer = server.post("types:predict", {"signature_name": name, "instances": [1.0]})
    assert answer.code in (400, 501)


def test_large_numbers(server: Server) -> None:
    big = 10**30
    answer = server.post("types:predict", {"signature_name": "float64", "instances": [big, 0.5, 2**63]})
    assert answer.json == {"predictions": [1e30, 0.5, float(2**63)]}
    answer = server.post("types:predict", {"signature_name": "float32", "instances": [1e39]})
    assert answer.code == 400 and "without loss of precision" in answer.error


@pytest.mark.parametrize("where", ["", "/versions/5", "/versions/1", "/labels/stable", "/labels/canary"])
def test_which_version_answers(server: Server, where: str) -> None:
    expected = {"/versions/1": 1, "/labels/stable": 1, "/labels/canary": 2}.get(where, 5)
    assert server.post(f"versioned{where}:predict", {"instances": [1]}).json == {"predictions": [expected]}


def test_the_same_as_over_grpc(server: Server) -> None:
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


EXAMPLES_ERRORS = [
    ({}, "When method is classify, key 'examples' is expected and was not found"),
    ({"examples": {"x": 1.0}}, "Expecting 'examples' value to be an list/array"),
    ({"examples": []}, "'examples' value is an empty array"),
    ({"examples": [1.0]}, "Example must be JSON object but got JSON Number"),
    ({"examples": [{"x": None}]}, ""),
    ({"examples": [{"x": [[1.0]]}]}, ""),
    ({"examples": [{"x": {"a": 1}}]}, ""),
    ({"examples": [{"x": 2**64}]}, ""),
    ({"examples": [{"x": "text"}]}, ""),
    ({"examples": [{"y": 1.0}]}, "Feature: x (data type: float) is required but could not be found."),
    ({"examples": [{"x": 1.0}], "signature_name": 1}, "'signature_name' key must be a string value."),
    ({"examples": [{"x": 1.0}], "signature_name": "S"}, "No signature was found with the name: S"),
    ({"examples": [{"x": 1.0}], "signature_name": "classify"}, "Expected one output Tensor."),
]


@pytest.mark.parametrize(("body", "text"), EXAMPLES_ERRORS)
def test_examples_refused(server: Server, body: dict[str, object], text: str) -> None:
    answer = server.post("half:regress", {"signature_name": "regress", **body})
    assert answer.code == 400 and text in answer.error


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


# ---- errors ----

NOT_FOUND = "Servable not found for request: "
ERRORS = {
    "unknown model": ("nix:predict", X, 404, NOT_FOUND + "Latest(nix)"),
    "unknown version": ("half/versions/9:predict", X, 404, NOT_FOUND + "Specific(half, 9)"),
    "unknown label": ("half/labels/L:predict", X, 400, "Unrecognized servable version label: L"),
    "version beyond 64 bits": ("half/versions/99999999999999999999:predict", X, 400, None),
    "wrong signature": (
        *("half:predict", {"signature_name": "S", **X}, 400),
        'Serving signature name: "S" not found in signature def',
    ),
    "signature that is no string": ("half:predict", {"signature_name": 1, **X}, 400, None),
    "neither key": ("half:predict", {"x": 1}, 400, "Missing 'inputs' or 'instances' key"),
    "missing in columns": (
        *("pair:predict", {"inputs": {"b": [1]}}, 400),
        "Missing named input: a in 'inputs' object.",
    ),
    "unknown in rows": (
        *("half:predict", {"instances": [{"q": 1}]}, 400),
        "Failed to process element: 0 key: q of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: q",
    ),
    "plain rows, several inputs": (
        *("pair:predict", {"instances": [1]}, 400),
        "instances is a plain list, but expecting list of objects as multiple input tensors required "
        "as per tensorinfo_map",
    ),
    "plain columns, several inputs": ("pair:predict", {"inputs": [1]}, 400, None),
    "ragged": ("half:predict", {"instances": [[1.0], [1.0, 2.0]]}, 400, None),
    "ragged strings": ("text:predict", {"instances": [["a"], "b"]}, 400, None),
    "rows, then no rows": ("half:predict", {"instances": [{"x": 1}, 1]}, 400, None),
    "a wrong base64": ("text:predict", {"inputs": {"b64": "?"}}, 400, None),
    "a lone surrogate": ("text:predict", b'{"inputs": "\\ud800"}', 400, None),
    "deep lists": ("half:predict", b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", 400, None),
    "deep lists of strings": ("text:predict", b'{"inputs": ' + b"[" * 500 + b'"a"' + b"]" * 500 + b"}", 400, None),
    "bottomless lists": ("half:predict", b"[" * 100_000, 400, None),
    "a number of 10,000 digits": ("half:predict", b'{"inputs": ' + b"1" * 10_000 + b"}", 400, None),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refused(server: Server, case: str) -> None:
    path, body, code, text = ERRORS[case]
    answer = server.post(path, body)
    assert answer.code == code, answer.text
    assert answer.error if text is None else answer.error == text
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith('{\n    "error": ')


PARTIAL_TEXTS = {
    "both keys": (
        {"instances": [[1.0]], "inputs": [[1.0]]},
        " Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    "no list": ({"instances": 1}, " Expecting 'instances' to be an list/array"),
    "empty list": ({"instances": []}, " No values in 'instances' array"),
    "wrong type": ({"instances": [["x"]]}, 'JSON Value: "x" Type: String is not of expected type: float'),
}


@pytest.mark.parametrize("case", PARTIAL_TEXTS)
def test_refused_with_the_value_in_the_text(server: Server, case: str) -> None:
    body, text = PARTIAL_TEXTS[case]
    answer = server.post("half:predict", body)
    assert answer.code == 400 and answer.error.endswith(text)


def test_rows_need_all_inputs(server: Server) -> None:
    for name, body in (("pair", {"instances": [{"a": 1}]}), ("defaults", {"instances": [{"x": 1}]})):
        answer = server.post(f"{name}:predict", body)
        assert answer.code == 400 and ("keys must be equal to: a,b" if name == "pair" else "bias") in answer.error


def test_rows_need_outputs_of_one_batch_size(server: Server) -> None:
    body = {"signature_name": "uneven", "instances": [1, 2, 3]}
    answer = server.post("scalar:predict", body)
    assert answer.code == 400 and "has inconsistent batch size: " in answer.error
    del body["instances"]
    answer = server.post("scalar:predict", {**body, "inputs": [1, 2, 3]})
    assert answer.json == {"outputs": {"all": [1.0, 2.0, 3.0], "first": [1.0]}}


JSON_ERRORS = {
    b"": "The document is empty",
    b"  \n": "The document is empty",
    b"{": "Missing a name for object member. at offset: 1",
    b'{"a": nul}': "Invalid value. at offset: ",
    b'{"a" 1}': "Missing a colon after a name of object member. at offset: 5",
    b'{"a": 1 "b": 2}': "Missing a comma or } after an object member. at offset: 8",
    b'{"a": [1, "]" 2]}': "Missing a comma or ] after an array element. at offset: 14",
    b'{"a": 1} x': "The document root must not be followed by other values. at offset: 9",
    b'{"a": "x': "Missing a closing quotation mark in string. at offset: ",
    b'{"\xc3\xa4": 1} x': "The document root must not be followed by other values. at offset: 10",
}


@pytest.mark.parametrize("body", JSON_ERRORS)
def test_broken_json(server: Server, body: bytes) -> None:
    answer = server.post("half:predict", body)
    assert answer.code == 400 and answer.error.startswith("JSON Parse error: " + JSON_ERRORS[body])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/half:foo"),
        ("POST", "/v1/models/half"),
        ("GET", "/v1/models/half:predict"),
        ("GET", "/v1/models/half/versions/x"),
        ("PUT", "/v1/models/half:predict"),
        ("DELETE", "/v1/models/half"),
        ("POST", "/v1/"),
        ("GET", "/v1/models/a%2Fb/c"),
    ],
)
def test_malformed_request(server: Server, method: str, path: str) -> None:
    answer = server.rest(method, path, b"{}" if method == "POST" else None)
    assert (answer.code, answer.error) == (400, f"Malformed request: {method} {path}")


def test_no_model_name(server: Server) -> None:
    answer = server.rest("GET", "/v1/models")
    assert (answer.code, answer.error) == (400, "Missing model name in request.")


def test_status_of_what_is_unknown(server: Server) -> None:
    answer = server.get("nix")
    assert (answer.code, answer.error) == (404, "Could not find any versions of model nix")
    answer = server.get("half/versions/9")
    assert (answer.code, answer.error) == (404, "Could not find version 9 of model half")


@pytest.mark.parametrize("path", ["/", "/v2/models/half", "/favicon.ico", "/v1"])
def test_outside_of_v1(server: Server, path: str) -> None:
    answer = server.rest("GET", path)
    assert answer.code == 404 and answer.headers["content-type"].startswith("text/html")


def test_paths_in_any_case(server: Server) -> None:
    assert server.rest("POST", "/V1/Models/half:PREDICT", X).code == 200


def test_names_are_decoded(server: Server) -> None:
    assert server.post("ha%6Cf:predict", X).code == 200
    assert server.get("a%2Fb").error == "Could not find any versions of model a/b"


# ---- headers ----


def test_gzip(server: Server) -> None:
    body = packed(json.dumps(X).encode())
    answer = server.post("half:predict", body, headers={"Content-Encoding": "gzip"})
    assert answer.json == {"predictions": [[2.5], [3.0]]}


@pytest.mark.parametrize("body", [b"no gzip", packed(b"{}")[:12], b""], ids=["no gzip", "cut short", "empty"])
def test_broken_gzip(server: Server, body: bytes) -> None:
    assert server.post("half:predict", body, headers={"Content-Encoding": "gzip"}).code == 400


def test_gzip_beyond_100_mb(server: Server) -> None:
    body = packed(b" " * (101 * MB))
    answer = server.post("half:predict", body, headers={"Content-Encoding": "gzip"})
    assert 400 <= answer.code < 500 and server.post("half:predict", X).code == 200


def test_preflight(server: Server) -> None:
    answer = server.rest("OPTIONS", "/v1/models/half:predict", headers={"Origin": "http://example.com"})
    assert answer.code == 200
    answer = server.rest("OPTIONS", "/v1/models/half:predict")
    assert (answer.code, answer.error) == (400, "Origin header is missing in CORS preflight")


def test_no_cors_unless_asked_for(server: Server) -> None:
    assert not [name for name in server.post("half:predict", X).headers if name.startswith("access-control")]


def test_connections_are_kept(server: Server) -> None:
    request = b"GET /v1/models/half HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.connection() as connection:
        for _ in range(3):
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200 and b"AVAILABLE" in answer.read()


# ---- metrics ----

METRICS = "/monitoring/prometheus/metrics"


def sample(server: Server, series: str) -> float:
    lines = server.rest("GET", METRICS).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " ")), 0.0)


def test_metrics(server: Server) -> None:
    count = ':tensorflow:serving:request_count{model_name="half",status="OK"}'
    latency = ':tensorflow:serving:request_latency_count{model_name="half",API="%s",entrypoint="%s"}'
    watched = (count, latency % ("Predict", "GRPC"), latency % ("predict", "REST"), latency % ("classify", "REST"))
    before = [sample(server, series) for series in watched]
    server.predict("half", {"x": [1.0]})
    server.classify("half", example(x=1.0), signature="classify")
    server.post("half:predict", X)
    server.post("half:classify", {"signature_name": "classify", "examples": [{"x": 1.0}]})
    after = [sample(server, series) for series in watched]
    assert [b - a for a, b in zip(before, after, strict=True)] == [4, 1, 1, 1]


def test_metrics_count_what_is_refused(server: Server) -> None:
    series = ':tensorflow:serving:request_count{model_name="gone",status="NOT_FOUND"}'
    server.post("gone:predict", X)
    assert sample(server, series) == 1
    answer = server.rest("GET", METRICS)
    assert answer.headers["content-type"].startswith("text/plain")
    assert "# TYPE :tensorflow:serving:request_count counter\n" in answer.text and "# HELP" not in answer.text


# ---- clients that mean no good ----


def test_a_body_of_100_mb(server: Server) -> None:
    body = b'{"instances": [[1.0]]' + b" " * (100 * MB - 22) + b"}"
    assert server.post("half:predict", body).json == {"predictions": [[2.5]]}


def test_a_body_beyond_the_limit(server: Server) -> None:
    """Refused or cut off; the others are served meanwhile and after."""
    with server.connection() as connection:
        head = f"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {2**40}\r\n\r\n"
        connection.sendall(head.encode() + b"x" * MB)
        assert server.post("half:predict", X).code == 200
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 4"), answer
    assert server.post("half:predict", X).code == 200


@pytest.fixture
def crawling(server: Server) -> Iterator[list[socket.socket]]:
    """200 clients that have sent half a request: half of its head, or half of its body."""
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    with ExitStack() as stack:
        made = [stack.enter_context(server.connection()) for _ in range(200)]
        for index, connection in enumerate(made):
            connection.sendall(head + b"\r\n{" if index % 2 else head)
        yield made


def test_slow_clients_keep_nobody_waiting(server: Server, crawling: list[socket.socket]) -> None:
    for connection in crawling[::10]:
        connection.sendall(b" ")
    assert server.post("half:predict", X, timeout_s=10).code == 200
    assert server.predict("half", {"x": [1.0]}, timeout_s=10)


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST " + b"a" * 70_000,
    ],
    ids=["nothing", "blank", "no path", "TLS", "HTTP/9.9", "70,000 characters"],
)
def test_what_is_no_http(server: Server, noise: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        wait_for(lambda: connection.recv(65536) == b"")
    assert server.post("half:predict", X).code == 200


def test_websocket_upgrades_are_requests_like_others(server: Server) -> None:
    headers = {
        **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert server.rest("GET", "/v1/models/half", headers=headers).code == 200


def test_a_client_that_goes_away(server: Server) -> None:
    for _ in range(20):
        with server.connection() as connection:
            connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
    assert server.post("half:predict", X).code == 200


def test_many_clients_at_once(server: Server) -> None:
    def ask(value: int) -> bool:
        return bool(server.post("half:predict", {"instances": [value]}).json == {"predictions": [value / 2 + 2]})

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


BOUNDED = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"b64": "YQ=="}),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "a", "b", "s"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(body=st.binary(max_size=200))
@BOUNDED
def test_no_bytes_upset_the_server(server: Server, body: bytes) -> None:
    assert server.post("half:predict", body).code == 400


@given(
    key=st.sampled_from(["instances", "inputs"]),
    value=JSON,
    signature=st.sampled_from(["float32", "int32", "string", "bool"]),
)
@BOUNDED
def test_no_json_upsets_the_server(server: Server, key: str, value: object, signature: str) -> None:
    answer = server.post("types:predict", {"signature_name": signature, key: value})
    assert answer.code in (200, 400), answer.text


@given(examples=JSON, context=JSON)
@BOUNDED
def test_no_example_upsets_the_server(server: Server, examples: object, context: object) -> None:
    body = {"signature_name": "regress", "examples": [examples], "context": context}
    assert server.post("half:regress", body).code in (200, 400)


@given(path=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=30))
@BOUNDED
def test_no_path_upsets_the_server(server: Server, path: str) -> None:
    assert server.rest("GET", "/v1/models/" + path.replace("#", "")).code in (200, 400, 404)


def test_over_grpc_after_all_that(server: Server) -> None:
    assert server.predict("half", {"x": [1.0]})
    with refused(grpc.StatusCode.NOT_FOUND):
        server.predict("nix", {})
