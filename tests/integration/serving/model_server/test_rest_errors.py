"""REST: error codes and error texts."""

from __future__ import annotations

import pytest

from tests.support.servers import Server

X = {"instances": [[1.0], [2.0]]}
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
    response = server.post(path, body)
    assert response.code == code, response.text
    assert response.error if text is None else response.error == text
    assert response.headers["content-type"] == "application/json"
    assert response.text.startswith('{\n    "error": ')


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
    response = server.post("half:predict", body)
    assert response.code == 400 and response.error.endswith(text)


def test_rows_need_all_inputs(server: Server) -> None:
    for name, body in (("pair", {"instances": [{"a": 1}]}), ("defaults", {"instances": [{"x": 1}]})):
        response = server.post(f"{name}:predict", body)
        assert response.code == 400 and ("keys must be equal to: a,b" if name == "pair" else "bias") in response.error


def test_columns_need_the_inputs_with_defaults_too(server: Server) -> None:
    assert server.post("defaults:predict", {"inputs": {"x": [1], "bias": 2}}).json == {"outputs": [3.0]}
    response = server.post("defaults:predict", {"inputs": {"x": [1]}})
    assert (response.code, response.error) == (400, "Missing named input: bias in 'inputs' object.")


def test_rows_need_outputs_of_one_batch_size(server: Server) -> None:
    body = {"signature_name": "uneven", "instances": [1, 2, 3]}
    response = server.post("scalar:predict", body)
    assert response.code == 400 and "has inconsistent batch size: " in response.error
    del body["instances"]
    response = server.post("scalar:predict", {**body, "inputs": [1, 2, 3]})
    assert response.json == {"outputs": {"all": [1.0, 2.0, 3.0], "first": [1.0]}}


EXAMPLES_ERRORS = [
    ({}, "When method is classify, key 'examples' is expected and was not found"),
    ({"examples": {"x": 1.0}}, "Expecting 'examples' value to be an list/array"),
    ({"examples": []}, "'examples' value is an empty array"),
    ({"examples": [1.0]}, "Example must be JSON object but got JSON Number"),
    ({"examples": [{"x": None}]}, ""),
    ({"examples": [{"x": [[1.0]]}]}, ""),
    ({"examples": [{"x": {"a": 1}}]}, ""),
    ({"examples": [{"x": 2**63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
    ({"examples": [{"x": [1, 2.5]}]}, "Unexpected element type in feature: x expecting type: int64"),
    ({"examples": [{"x": [1.0, True]}]}, "Unexpected element type in feature: x expecting type: float"),
    ({"examples": [{"x": ["a", 1.0]}]}, "Unexpected element type in feature: x expecting type: bytes"),
    ({"examples": [{"x": "text"}]}, ""),
    ({"examples": [{"y": 1.0}]}, "Feature: x (data type: float) is required but could not be found."),
    ({"examples": [{"x": 1.0}], "signature_name": 1}, "'signature_name' key must be a string value."),
    ({"examples": [{"x": 1.0}], "signature_name": "S"}, "No signature was found with the name: S"),
    ({"examples": [{"x": 1.0}], "signature_name": "classify"}, "Expected one output Tensor."),
]


@pytest.mark.parametrize(("body", "text"), EXAMPLES_ERRORS)
def test_examples_refused(server: Server, body: dict[str, object], text: str) -> None:
    response = server.post("half:regress", {"signature_name": "regress", **body})
    assert response.code == 400 and text in response.error


@pytest.mark.parametrize("body", [b"", b"  \n", b"{", b'{"a": nul}', b'{"a" 1}', b'{"a": "x', b"\xff"])
def test_broken_json(server: Server, body: bytes) -> None:
    response = server.post("half:predict", body)
    assert response.code == 400 and response.error.startswith("JSON Parse error: ")


def test_text_after_the_document_is_ignored(server: Server) -> None:
    assert server.post("half:predict", b' {"instances": [1.0]} x').json == {"predictions": [2.5]}


def test_unused_keys_may_be_nested_deeply(server: Server) -> None:
    deep = b'[{"a": ' * 250_000 + b'"]}"' + b"}]" * 250_000
    assert server.post("half:predict", b'{"a": %b, "instances": [1.0]}' % deep).json == {"predictions": [2.5]}


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
    response = server.rest(method, path, b"{}" if method == "POST" else None)
    assert (response.code, response.error) == (400, f"Malformed request: {method} {path}")


def test_no_model_name(server: Server) -> None:
    response = server.rest("GET", "/v1/models")
    assert (response.code, response.error) == (400, "Missing model name in request.")


def test_status_of_unknown_models_and_versions(server: Server) -> None:
    response = server.get("nix")
    assert (response.code, response.error) == (404, "Could not find any versions of model nix")
    response = server.get("half/versions/9")
    assert (response.code, response.error) == (404, "Could not find version 9 of model half")


@pytest.mark.parametrize("path", ["/", "/v2/models/half", "/favicon.ico", "/v1"])
def test_paths_outside_v1(server: Server, path: str) -> None:
    response = server.rest("GET", path)
    assert response.code == 404 and response.headers["content-type"].startswith("text/html")
