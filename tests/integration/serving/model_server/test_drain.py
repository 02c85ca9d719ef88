"""SIGTERM and SIGINT: accepted requests get their responses, and the process ends in time."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from serving.model_server.server import DRAIN_S, LAME_DUCK_S
from tests.integration.serving.conftest import Start
from tests.support.servers import embedded_only, model_config, wait_for


@embedded_only
def test_sigterm_under_load(start: Start, models: Path) -> None:
    """With the real timeouts: every accepted request gets its response, over gRPC and REST; then exit code 0."""
    server = start(model_config("slow", models / "slow"), fast=False)
    calls = [server.sleep(100) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        posts = [pool.submit(server.post, "slow:predict", {"inputs": 100}) for _ in range(5)]
        # Once one of them has its response, the others have been accepted, because all were sent before.
        wait_for(lambda: any(call.done() for call in calls) and any(post.done() for post in posts))
        started = time.monotonic()
        server.send_signal()
        assert [list(call.result().outputs["slept"].int64_val) for call in calls] == [[100]] * 5
        assert [post.result().json for post in posts] == [{"outputs": 100}] * 5
    assert server.wait() == 0
    assert time.monotonic() - started < 10
    assert "Traceback" not in server.output


@embedded_only
def test_sigterm_waits_no_longer_than_allowed(start: Start, models: Path) -> None:
    """Neither for a request that takes a minute nor for a client that never sends its body."""
    assert LAME_DUCK_S + DRAIN_S < 9  # orchestrators kill after 10 s
    server = start(model_config("slow", models / "slow"))
    call = server.sleep(60_000, timeout_s=90)
    with server.connection() as connection:
        connection.sendall(b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        server.post("slow:predict", {"inputs": "accepted"})
        started = time.monotonic()
        server.send_signal()
        assert server.wait() == 0
        assert time.monotonic() - started < 10
    wait_for(call.done)
    assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@embedded_only
def test_a_signal_while_waiting_for_a_version(start: Start, tmp_path: Path) -> None:
    servers = [start(flags=(f"--model_base_path={tmp_path / 'missing'}",), wait=False) for _ in range(2)]
    for server, number in zip(servers, (signal.SIGTERM, signal.SIGINT), strict=True):
        wait_for(lambda server=server: "missing" in server.output)  # the server is polling
        assert not server.is_open()
        server.send_signal(number)
        assert server.wait(10) == 0
