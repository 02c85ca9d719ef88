"""Requests that no client of ours sends: each gets an error of its own, and none leaves a traceback in the log."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest

from serving.protocol import serving_pb2 as pb
from tests.support.clients import refused
from tests.support.servers import Server, embedded_only

pytestmark = embedded_only
PREDICT = "/tensorflow.serving.PredictionService/Predict"
METRICS = "/monitoring/prometheus/metrics"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SLOW = b'POST /v1/models/slow:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{"inputs": 150}'


@pytest.fixture(autouse=True)
def no_traceback(server: Server) -> Iterator[None]:
    before = server.output.count("Traceback")
    yield
    assert server.predict("half", {"x": [1.0]})
    assert server.output.count("Traceback") == before


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_malformed_health_request(server: Server, method: str) -> None:
    with refused(INVALID):
        list(server.channel.unary_stream(f"/grpc.health.v1.Health/{method}")(b"\xff", timeout=20))


TENSORS = {
    "65 dimensions": pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape={"dim": [{"size": 1}] * 65}, float_val=[1]),
    "a size beyond 64 bits": pb.TensorProto(
        dtype=pb.DT_FLOAT, tensor_shape={"dim": [{"size": 0}, {"size": 2**62}, {"size": 2**62}]}
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_that_numpy_does_not_support(server: Server, case: str) -> None:
    request = pb.PredictRequest(model_spec={"name": "types", "signature_name": "float32"}, inputs={"x": TENSORS[case]})
    with refused(INVALID, "tensor parsing error: x"):
        server.channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=20)


def test_a_long_name_is_not_echoed(server: Server) -> None:
    name = "n" * 10_000_000
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("half", {"x": [1.0]}, signature=name)
    assert len(caught.value.details()) < 2000
    for method, body in (("predict", {"instances": [1.0]}), ("classify", {"examples": [{"x": 1.0}]})):
        response = server.post(f"half:{method}", {"signature_name": name, **body})
        assert response.code == 400 and len(response.body) < 2000


def test_unknown_models_are_one_series(server: Server) -> None:
    series = ':tensorflow:serving:request_count{model_name="(unknown)",status="NOT_FOUND"}'

    def count() -> float:
        lines = server.rest("GET", METRICS).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)

    before = count()
    for number in range(20):
        assert server.post(f"unknown-{number}:predict", {"instances": [1.0]}).code == 404
        with refused(grpc.StatusCode.NOT_FOUND):
            server.predict(f"unknown-{number}", {"x": [1.0]})
    assert count() == before + 40
    assert "unknown-" not in server.rest("GET", METRICS).text


def test_clients_that_leave(server: Server) -> None:
    """Before the response over gRPC and REST, and in the middle of a body."""
    server.sleep(150).cancel()
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        server.sleep(150, timeout_s=0.05).result()
    for sent in (SLOW, SLOW[:-5]):
        with server.connection() as connection:
            connection.sendall(sent)


@pytest.mark.parametrize("requests", [1, 2])
def test_a_half_closed_client_gets_its_responses(server: Server, requests: int) -> None:
    with server.connection() as connection:
        connection.sendall(SLOW * requests)
        connection.shutdown(socket.SHUT_WR)
        response = b""
        while part := connection.recv(65536):
            response += part
    assert response.count(b"HTTP/1.1 200") == requests and response.count(b"150") == requests


def test_garbage_after_a_request_that_is_running(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(SLOW + b"\0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    server.sleep(200).result()  # by then the first request has ended
