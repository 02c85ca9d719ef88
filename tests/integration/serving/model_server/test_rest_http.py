"""REST: paths, headers, compression, metrics, and clients that are hostile or slow."""

from __future__ import annotations

import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.clients import example
from tests.support.servers import Server, wait_for

X = {"instances": [[1.0], [2.0]]}


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def test_paths_in_any_case(server: Server) -> None:
    assert server.rest("POST", "/V1/Models/half:PREDICT", X).code == 200


def test_names_are_decoded(server: Server) -> None:
    assert server.post("ha%6Cf:predict", X).code == 200
    assert server.get("a%2Fb").error == "Could not find any versions of model a/b"


def test_gzip(server: Server) -> None:
    body = packed(json.dumps(X).encode())
    response = server.post("half:predict", body, headers={"Content-Encoding": "gzip"})
    assert response.json == {"predictions": [[2.5], [3.0]]}


@pytest.mark.parametrize("body", [b"no gzip", packed(b"{}")[:12], b""], ids=["no gzip", "cut short", "empty"])
def test_broken_gzip(server: Server, body: bytes) -> None:
    assert server.post("half:predict", body, headers={"Content-Encoding": "gzip"}).code == 400


def test_preflight(server: Server) -> None:
    response = server.rest("OPTIONS", "/v1/models/half:predict", headers={"Origin": "http://example.com"})
    assert response.code == 200
    response = server.rest("OPTIONS", "/v1/models/half:predict")
    assert (response.code, response.error) == (400, "Origin header is missing in CORS preflight")


def test_no_cors_by_default(server: Server) -> None:
    assert not [name for name in server.post("half:predict", X).headers if name.startswith("access-control")]


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


def test_metrics_count_refused_requests(server: Server) -> None:
    series = ':tensorflow:serving:request_count{model_name="(unknown)",status="NOT_FOUND"}'
    before = sample(server, series)
    server.post("gone:predict", X)
    assert sample(server, series) == before + 1
    response = server.rest("GET", METRICS)
    assert response.headers["content-type"].startswith("text/plain")
    assert "# TYPE :tensorflow:serving:request_count counter\n" in response.text and "# HELP" not in response.text


# ---- hostile and slow clients ----


def test_a_body_beyond_the_limit(server: Server) -> None:
    """The request is rejected before its body is read; other requests are served in the meantime."""
    with server.connection() as connection:
        head = f"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {2**40}\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 1024**2)
        assert server.post("half:predict", X).code == 200
        response = connection.recv(65536)
        assert response.startswith(b"HTTP/1.1 4"), response


GARBAGE = (
    b"",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0",
    b"POST " + b"a" * 70_000,
    bytes(range(256)) * 20,
)


@pytest.mark.parametrize("port", ["port", "rest_port"])
def test_hostile_bytes_never_break_the_server(server: Server, port: str) -> None:
    for garbage in GARBAGE:
        with server.connection(getattr(server, port)) as connection, suppress(ConnectionError):  # it may reset
            connection.settimeout(10)
            connection.sendall(garbage)
            with suppress(OSError):  # no longer connected
                connection.shutdown(socket.SHUT_WR)
            wait_for(lambda connection=connection: connection.recv(65536) == b"")
    assert server.post("half:predict", X).code == 200
    assert server.predict("half", {"x": [1.0]})


def test_slow_clients_delay_no_one_and_may_disconnect(server: Server) -> None:
    """Half of the clients have sent part of the headers, the others all headers and part of the body."""
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    connections = [server.connection() for _ in range(50)]
    for index, connection in enumerate(connections):
        connection.sendall(head + b"\r\n{" if index % 2 else head)
    assert server.post("half:predict", X, timeout_s=10).code == 200
    assert server.predict("half", {"x": [1.0]}, timeout_s=10)
    for connection in connections:
        connection.close()
    assert server.post("half:predict", X).code == 200


def test_many_clients_at_once(server: Server) -> None:
    """Each gets its own response."""

    def predict(value: int) -> bool:
        return bool(server.post("half:predict", {"instances": [value]}).json == {"predictions": [value / 2 + 2]})

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(predict, range(100)))
