"""Attacks with connections (A7), while a well-behaved client is served, and with many calls (A4, A5)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import grpc
import numpy as np

from benchmarks.harness import HOST
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.drills.server import http2
from tests.drills.server.probe import PREDICT, half_request, probing
from tests.drills.server.target import Target, low_priority, repeated

SECONDS: Final = 8.0
BURSTS: Final = (2_000, 20_000)
HEAD: Final = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def bursts(target: Target) -> dict[str, Any]:
    """A4: thousands of calls at once on eight connections; the codes of their responses."""

    async def burst(count: int) -> dict[str, int]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(f"{HOST}:{target.port}", options=options) for _ in range(8)]
        calls = [channel.unary_unary(PREDICT) for channel in channels]
        content, codes = half_request(), Counter[str]()

        async def send(n: int) -> None:
            try:
                await calls[n % 8](content, timeout=120)
                codes["OK"] += 1
            except grpc.aio.AioRpcError as e:
                codes[e.code().name] += 1

        await asyncio.gather(*(send(n) for n in range(count)))
        for channel in channels:
            await channel.close()
        return dict(codes)

    return {f"{count} at once": asyncio.run(burst(count)) for count in BURSTS}


def abandoned(target: Target) -> dict[str, Any]:
    """A5: 300 clients with deadlines of 0.5 s ask for runs of 0.1 s; the time of one such run after they have left."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="slow"))
    request.inputs["milliseconds"].CopyFrom(to_proto(np.int64(50)))
    content = request.SerializeToString()

    async def attack() -> dict[str, int]:
        codes, end = Counter[str](), time.monotonic() + SECONDS
        async with grpc.aio.insecure_channel(f"{HOST}:{target.port}") as channel:
            call = channel.unary_unary(PREDICT)

            async def client() -> None:
                while time.monotonic() < end:
                    try:
                        await call(content, timeout=0.5)
                        codes["OK"] += 1
                    except grpc.aio.AioRpcError as e:
                        codes[e.code().name] += 1
                        await asyncio.sleep(0.1)

            await asyncio.gather(*(client() for _ in range(300)))
        return dict(codes)

    codes, started = asyncio.run(attack()), time.monotonic()
    after = target.call(PREDICT, content, 60.0)
    return {"codes": codes, "predict_after": after, "predict_after_s": round(time.monotonic() - started, 2)}


def idle(target: Target) -> dict[str, Any]:
    """240 idle connections to each port, in a process that may open 256 files."""
    return _attack(target, [lambda: _send(target.port), lambda: _send(target.rest_port)], count=240)


def half_headers(target: Target) -> dict[str, Any]:
    """240 connections to each port with half a header."""
    rest = b"GET /v1/models/half HTTP/1.1\r\nHo"
    rpc = http2.opening() + http2.headers(PREDICT, flags=0)
    return _attack(target, [lambda: _send(target.port, rpc), lambda: _send(target.rest_port, rest)], count=240)


def endless_headers(target: Target) -> dict[str, Any]:
    """Small headers, one long header and a long URL without an end; connections that are closed are opened again."""
    small = (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 4000)
    long = (b"GET / HTTP/1.1\r\na: ", b"x" * 24_000)
    url = (b"GET /", b"x" * 24_000)
    attackers = [lambda p=p: _send(target.rest_port, *p, again=True) for p in (small, long, url)]
    return _attack(target, [*attackers, lambda: _endless_rpc(target)], count=4)


def unacknowledged(target: Target) -> dict[str, Any]:
    """Headers without an end over gRPC, of one client at a time that never acknowledges the server's settings."""
    return _attack(target, [lambda: _endless_rpc(target, acknowledge=False)], count=1)


def slow_bodies(target: Target) -> dict[str, Any]:
    """240 bodies for each port that arrive byte by byte, and 40 each of 15 and 99 MB whose end never comes."""
    large = [HEAD % (n * 1_000_000) + b"1" * ((n - 1) * 1_000_000) for n in (15, 99)]
    rpc = http2.opening() + http2.headers(PREDICT) + http2.frame(http2.DATA, http2.message(b"", size_bytes=1000))
    byte = http2.frame(http2.DATA, b"1")
    slow = [
        lambda: _send(target.rest_port, HEAD % 1000, b"1", pause_s=0.2),
        lambda: _send(target.port, rpc, byte, pause_s=0.2),
    ]
    return _attack(target, [*slow * 6, *(lambda p=p: _send(target.rest_port, p) for p in large)], count=40)


def answers_not_taken(target: Target) -> dict[str, Any]:
    """100 clients over each protocol that ask for a response and never take it: 4 MB over gRPC, 0.8 MB over REST."""
    content = b'{"instances": [' + b"1.5," * 200_000 + b"1]}"
    filled = pb.PredictRequest(model_spec=pb.ModelSpec(name="types", signature_name="float32"))
    repeated(filled, "x", pb.DT_FLOAT, (1, 1_000_000))
    call = http2.frame(http2.DATA, http2.message(filled.SerializeToString()), http2.END_STREAM)
    rpc = http2.opening(window_bytes=0) + http2.headers(PREDICT) + call
    attackers = [lambda: _send(target.rest_port, HEAD % len(content) + content), lambda: _send(target.port, rpc)]
    return _attack(target, attackers, count=100)


def _attack(target: Target, attackers: list[Callable[[], None]], count: int) -> dict[str, Any]:
    """Run `count` threads of each attacker for SECONDS; return what a well-behaved client saw from the start on."""
    threads = [low_priority(attack) for attack in attackers for _ in range(count)]
    with probing(target.port, target.rest_port) as probe:
        time.sleep(0.2)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS * 3)
    return {"well_behaved": probe}


def _endless_rpc(target: Target, acknowledge: bool = True) -> None:
    head = http2.opening(acknowledge=acknowledge) + http2.headers(PREDICT, flags=0)
    _send(target.port, head, http2.frame(http2.CONTINUATION, http2.field("a", "b") * 3000), again=True)


def _send(port: int, head: bytes = b"", part: bytes = b"", pause_s: float = 0.0, again: bool = False) -> None:
    """Send `head`, and then `part` over and over; nothing is received.

    Args:
        again: whether to connect again, 0.1 s later, when the server closes the connection.
    """
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with suppress(OSError), socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(SECONDS)
            connection.connect((HOST, port))
            connection.sendall(head)
            while part and time.monotonic() < end:
                connection.sendall(part)
                time.sleep(pause_s)
            time.sleep(max(0.0, end - time.monotonic()))
        if not again:
            return
        time.sleep(0.1)
