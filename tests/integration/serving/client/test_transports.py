"""The client with a real server: values, metadata and errors are the same over gRPC and REST."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serving.client import connect, errors
from serving.client.base import Client, VersionStatus
from serving.client.signatures import describe
from serving.protocol import serving_pb2 as pb
from tests.support.servers import Server

VALUES: dict[str, Any] = {
    "float32": np.array([[0.1, np.inf, -np.inf], [1e-42, 3.4e38, -0.0]], np.float32),
    "float64": np.array([0.1, 1e-300]),
    "int64": np.int64(-(2**63)),
    "uint8": np.arange(256, dtype=np.uint8).reshape(2, 128),
    "bool": np.array([[True, False]]),
}


@pytest.fixture(params=["grpc", "rest"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    address = f"127.0.0.1:{server.port}" if request.param == "grpc" else f"http://127.0.0.1:{server.rest_port}"
    with connect(address) as client:
        yield client


def echo(client: Client, dtype: str, value: Any) -> Any:
    return client.predict({"x": value}, model="types", signature=dtype).outputs["y"]


@pytest.mark.parametrize("dtype", VALUES)
def test_numbers_survive_bit_for_bit(client: Client, dtype: str) -> None:
    sent, returned = np.asarray(VALUES[dtype]), echo(client, dtype, VALUES[dtype])
    assert (returned.dtype, returned.shape, returned.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


def test_strings_return_as_bytes(client: Client) -> None:
    values = np.array([["ä", b"plain"], ["", "\n\x00"]], np.object_)
    assert echo(client, "string", values).tolist() == [["ä".encode(), b"plain"], [b"", b"\n\x00"]]
    png = np.array([b"\x89PNG\xff\x00"], np.object_)  # REST can return it only in an output whose name ends in _bytes
    inputs = png if "http" not in client.address else np.array(["png"], np.object_)
    outputs = client.predict({"s": inputs}, model="text").outputs
    assert outputs["raw_bytes"].tolist() == [value if isinstance(value, bytes) else value.encode() for value in inputs]


def test_a_prediction_names_the_version(client: Client) -> None:
    for spec, version in (({}, 5), ({"version": 2}, 2), ({"label": "stable"}, 1)):
        prediction = client.predict({"x": np.zeros(3, np.float32)}, model="versioned", **spec)
        assert prediction.version == version
        assert prediction.outputs["version"].tolist() == [version] * 3


def test_large_responses_arrive(client: Client) -> None:
    values = np.linspace(0, 1, 1_100_000 if "http" not in client.address else 30_000, dtype=np.float32)
    np.testing.assert_array_equal(echo(client, "float32", values), values)  # over gRPC 4.4 MB, above its default limit


def test_status_and_metadata(client: Client) -> None:
    available = [VersionStatus(version, "AVAILABLE", "OK", "") for version in (5, 2, 1)]
    assert client.status("versioned") == available
    assert client.status("versioned", 2) == available[1:2]
    metadata = client.metadata("versioned")
    assert metadata.version == 5 and client.metadata("versioned", 5) == metadata
    assert client.metadata("versioned", label="canary").version == 2
    assert metadata.signatures["serving_default"].outputs["version"].dtype == pb.DT_INT64
    assert describe(client.metadata("half"))["serving_default"] == {
        "inputs": {"x": {"dtype": "DT_FLOAT", "shape": [-1, 1]}},
        "outputs": {"y": {"dtype": "DT_FLOAT", "shape": [-1, 1]}},
    }
    assert describe(client.metadata("types"))["int8"]["inputs"] == {"x": {"dtype": "DT_INT8", "shape": None}}


def test_threads_may_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda value: int(echo(client, "int64", np.int64(value))), range(40))) == list(range(40))


X = {"x": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    ("inputs", "options", "over_grpc", "over_rest", "text"),
    [
        (X, {"model": "z"}, errors.NotFound, errors.NotFound, r"Servable not found for request: Latest\(z\)"),
        (X, {"version": 9}, errors.NotFound, errors.NotFound, r"Specific\(versioned, 9\)"),
        (X, {"label": "q"}, errors.InvalidArgument, errors.InvalidArgument, "Unrecognized servable version label: q"),
        (X, {"signature": "q"}, errors.FailedPrecondition, errors.InvalidArgument, 'Serving signature.*"q".*not found'),
        (X, {"model": "a/b c:d"}, errors.NotFound, errors.NotFound, "a/b c:d"),
        ({}, {}, errors.InvalidArgument, errors.InvalidArgument, "x"),
        ({"x": ["a"]}, {}, errors.InvalidArgument, errors.InvalidArgument, "float"),
        ({"x": [[1], [1, 2]]}, {}, errors.InvalidArgument, errors.InvalidArgument, "x cannot be sent"),
        (
            {"x": np.array([1], "M8[D]")},
            {},
            *(errors.InvalidArgument, errors.InvalidArgument),
            r"x cannot be sent: dtype datetime64\[D\]",
        ),
    ],
)
def test_errors_are_typed_and_keep_the_servers_message(
    client: Client, inputs: Any, options: Any, over_grpc: type, over_rest: type, text: str
) -> None:
    with pytest.raises(errors.ServingClientError, match=text) as caught:
        client.predict(inputs, **({"model": "versioned"} | options))
    assert type(caught.value) is (over_rest if "http" in client.address else over_grpc)
    assert caught.value.address == client.address
    assert caught.value.text in str(caught.value)


def test_the_status_of_a_missing_model_or_version(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="Could not find any versions of model z"):
        client.status("z")
    with pytest.raises(errors.NotFound, match="Could not find version 9 of model versioned"):
        client.status("versioned", 9)
