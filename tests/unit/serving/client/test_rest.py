"""The REST transport with servers that fail, start late, close connections or send invalid documents."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.client import connect, errors
from serving.client.base import VersionStatus

Start = Callable[..., Any]
STATUS = (
    b'{"model_version_status":[{"version":"3","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}'
)
UP = [VersionStatus(3, "AVAILABLE", "OK", "")]
BUSY = 503, b'{"error": "The batch scheduling queue is full"}'


def metadata_body(version: int) -> bytes:
    info = {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1"}]}, "name": "y:0", "not_known_here": {}}
    signatures = {"serving_default": {"inputs": {}, "outputs": {"y": info}, "method_name": ""}}
    spec = {"name": "mnist", "signature_name": "", "version": str(version)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}).encode()


@pytest.mark.parametrize("first", [BUSY, (502, b"<html>bad gateway"), (200, b"cut")], ids=["busy", "gateway", "cut"])
def test_unavailable_is_retried(scripted_rest: Start, first: tuple[int, bytes]) -> None:
    scripted = scripted_rest(first, (200, STATUS))
    with connect(scripted.address) as client:
        assert client.status("mnist") == UP
    assert len(scripted.requests) == 2


def test_other_statuses_are_not_retried_and_keep_the_servers_message(scripted_rest: Start) -> None:
    scripted = scripted_rest((500, b'{"error": "broken"}'))
    with connect(scripted.address) as client, pytest.raises(errors.Internal, match="broken"):
        client.status("mnist")
    assert len(scripted.requests) == 1


def test_idle_connections_that_the_server_closed_are_replaced(scripted_rest: Start) -> None:
    with connect(scripted_rest((200, STATUS)).address, attempts=1) as client:
        for _ in range(3):
            assert client.status("mnist") == UP


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"{}", b'{"model_version_status": [{}]}', b"\xff"])
def test_a_status_that_cannot_be_read_is_an_internal_error(scripted_rest: Start, body: bytes) -> None:
    with connect(scripted_rest((200, body)).address) as client, pytest.raises(errors.Internal):
        client.status("mnist")


@pytest.mark.parametrize(
    "body", [b'{"outputs": ["a"]}', b'{"outputs": [[1], [1, 2]]}', b'{"predictions": 1}', b'{"outputs": [1e400]}']
)
def test_outputs_that_contradict_the_metadata_are_an_internal_error(scripted_rest: Start, body: bytes) -> None:
    scripted = scripted_rest((200, metadata_body(3)), (200, body))
    with connect(scripted.address) as client, pytest.raises(errors.Internal, match="cannot be read"):
        client.predict({}, model="mnist")


def test_a_version_replaced_between_metadata_and_predict_is_followed(scripted_rest: Start) -> None:
    gone = 404, b'{"error": "Servable not found for request: Specific(mnist, 3)"}'
    scripted = scripted_rest((200, metadata_body(3)), gone, (200, metadata_body(4)), (200, b'{"outputs": [5, 6]}'))
    with connect(scripted.address) as client:
        outputs, version = client.predict({}, model="mnist")
    assert version == 4 and outputs["y"].tolist() == [5, 6]
    assert scripted.requests[1::2] == ["/v1/models/mnist/versions/3:predict", "/v1/models/mnist/versions/4:predict"]


def test_the_metadata_of_a_named_version_are_requested_once(scripted_rest: Start) -> None:
    scripted = scripted_rest((200, metadata_body(3)), (200, b'{"outputs": [5]}'))
    with connect(scripted.address) as client:
        for _ in range(2):
            client.predict({}, model="mnist", version=3)
    assert [path.rpartition("/")[2] for path in scripted.requests] == ["metadata", "3:predict", "3:predict"]


def test_a_large_body_arrives_in_pieces(scripted_rest: Start) -> None:
    values = list(range(100_000))
    body = json.dumps({"outputs": values}).encode()
    with connect(scripted_rest((200, metadata_body(3)), (200, body)).address) as client:
        assert client.predict({}, model="mnist").outputs["y"].tolist() == values


def test_the_deadline_ends_a_call(silent_port: int) -> None:
    with connect(f"http://127.0.0.1:{silent_port}", timeout_s=30) as client:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            client.status("mnist", timeout_s=0.2)
        assert 0.15 < time.monotonic() - started < 2
        with pytest.raises(errors.DeadlineExceeded):
            client.status("mnist", timeout_s=0)


def test_a_refused_connection_is_unavailable(closed_port: int) -> None:
    address = f"http://127.0.0.1:{closed_port}"
    with connect(address, attempts=1) as client, pytest.raises(errors.Unavailable, match="make serve") as caught:
        client.status("mnist")
    assert caught.value.address == address


def test_a_grpc_server_is_unavailable(scripted_grpc: Start) -> None:
    with connect(f"http://{scripted_grpc().address}", attempts=1) as client, pytest.raises(errors.Unavailable):
        client.status("mnist")


def test_a_server_that_starts_late_is_found(scripted_rest: Start, closed_port: int) -> None:
    timer = threading.Timer(0.12, scripted_rest, [(200, STATUS)], {"port": closed_port})
    timer.start()
    with connect(f"http://127.0.0.1:{closed_port}", attempts=8) as client:
        assert client.status("mnist") == UP
    timer.join()
