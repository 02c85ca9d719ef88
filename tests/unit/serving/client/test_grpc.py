"""The gRPC transport with servers that fail, start late or are not gRPC servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from serving.client import connect, errors
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

Start = Callable[..., Any]
StatusCode = grpc.StatusCode
RESPONSE = pb.PredictResponse(outputs={"y": to_proto([1.5])})


def test_each_code_becomes_an_error_and_only_two_are_retried(scripted_grpc: Start) -> None:
    retried = (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    codes = [code for code in StatusCode if code not in (StatusCode.OK, *retried)]
    scripted = scripted_grpc(*codes, *retried, RESPONSE)
    with connect(scripted.address) as client:
        for number, code in enumerate(codes, 1):
            with pytest.raises(errors.ServingClientError, match="scripted") as caught:
                client.predict({}, model="m")
            assert caught.value.code == code.name and len(scripted.requests) == number
            assert type(caught.value) is errors.GRPC_CODES.get(code.name, errors.ServingClientError)
        assert client.predict({}, model="m").outputs["y"].tolist() == [1.5]
    assert len(scripted.requests) == len(codes) + 3


def test_a_tensor_that_cannot_be_read_is_an_internal_error(scripted_grpc: Start) -> None:
    wrong = pb.TensorProto(dtype=pb.DT_FLOAT, tensor_content=b"123")
    scripted = scripted_grpc(pb.PredictResponse(outputs={"y": wrong}))
    with connect(scripted.address) as client, pytest.raises(errors.Internal, match="cannot be read"):
        client.predict({}, model="m")


def test_the_deadline_ends_a_call(silent_port: int) -> None:
    with connect(f"127.0.0.1:{silent_port}", timeout_s=30) as client:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            client.status("mnist", timeout_s=0.2)
        assert 0.15 < time.monotonic() - started < 2
        with pytest.raises(errors.DeadlineExceeded):
            client.status("mnist", timeout_s=0)


def test_closing_the_client_ends_its_calls_at_once(silent_port: int) -> None:
    client = connect(f"127.0.0.1:{silent_port}", timeout_s=30)
    timer = threading.Timer(0.1, client.close)
    timer.start()
    with pytest.raises(errors.Cancelled):
        client.status("mnist")
    timer.join()


def test_a_refused_connection_is_unavailable(closed_port: int) -> None:
    address = f"127.0.0.1:{closed_port}"
    with connect(address, attempts=1) as client, pytest.raises(errors.Unavailable, match="make serve") as caught:
        client.status("mnist")
    assert caught.value.address == address


def test_a_rest_server_is_unavailable(scripted_rest: Start) -> None:
    address = scripted_rest((200, b"{}")).address.removeprefix("http://")
    with connect(address, attempts=1) as client, pytest.raises(errors.Unavailable):
        client.status("mnist")


def test_a_server_that_starts_late_is_found(scripted_grpc: Start, closed_port: int) -> None:
    """The channel must try to connect again for each attempt, not wait for its own backoff."""
    timer = threading.Timer(0.12, scripted_grpc, [RESPONSE], {"port": closed_port})
    timer.start()
    with connect(f"127.0.0.1:{closed_port}", attempts=8) as client:
        assert client.predict({}, model="m").outputs["y"].tolist() == [1.5]
    timer.join()
