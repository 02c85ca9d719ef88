"""Attacks with connections (A7) and bursts of calls (A4), while a well-behaved client is served."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from benchmarks.harness import HOST
from tests.drills.server.probe import PREDICT, half_request, probing
from tests.drills.server.target import Target

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


def idle(target: Target) -> dict[str, Any]:
    """240 idle connections to each port, in a process that may open 256 files."""
    return _attack(target, [lambda: _open(target.port, b""), lambda: _open(target.rest_port, b"")], count=240)


def half_headers(target: Target) -> dict[str, Any]:
    """240 connections with half a header."""
    return _attack(target, [lambda: _open(target.rest_port, b"GET /v1/models/half HTTP/1.1\r\nHo")], count=240)


def endless_headers(target: Target) -> dict[str, Any]:
    """Small headers, one long header and a long URL, without an end."""
    small = (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 4000)
    long = (b"GET / HTTP/1.1\r\na: ", b"x" * 24_000)
    url = (b"GET /", b"x" * 24_000)
    return _attack(target, [lambda p=p: _stream(target.rest_port, *p) for p in (small, long, url)], count=4)


def slow_bodies(target: Target) -> dict[str, Any]:
    """240 bodies that arrive byte by byte, and 40 of 99 MB of which the end never comes."""
    large = HEAD % 99_000_000

    def unfinished() -> None:
        with suppress(OSError), socket.create_connection((HOST, target.rest_port), 5) as connection:
            connection.settimeout(SECONDS)
            connection.sendall(large)
            for _ in range(98):
                connection.sendall(b"1" * 1_000_000)
            time.sleep(SECONDS)

    def slow() -> None:
        with suppress(OSError), socket.create_connection((HOST, target.rest_port), 5) as connection:
            connection.sendall(HEAD % 1000)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                connection.sendall(b"1")
                time.sleep(0.2)

    return _attack(target, [slow] * 6 + [unfinished], count=40)


def answers_not_taken(target: Target) -> dict[str, Any]:
    """100 clients that ask for a response of 4 MB and never read it."""
    content = b'{"instances": [' + b"1.2345678," * 400_000 + b"1]}"

    def ask() -> None:
        with suppress(OSError), socket.create_connection((HOST, target.rest_port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(SECONDS)
            connection.sendall(HEAD % len(content) + content)
            time.sleep(SECONDS)

    return _attack(target, [ask], count=100)


def _attack(target: Target, attackers: list[Callable[[], None]], count: int) -> dict[str, Any]:
    """Run `count` threads of each attacker for SECONDS; return what a well-behaved client saw from the start on."""
    threads = [threading.Thread(target=attack, daemon=True) for attack in attackers for _ in range(count)]
    with probing(target.port, target.rest_port) as probe:
        time.sleep(0.2)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS * 3)
    return {"well_behaved": probe}


def _open(port: int, content: bytes) -> None:
    with suppress(OSError), socket.create_connection((HOST, port), 5) as connection:
        connection.sendall(content)
        time.sleep(SECONDS)


def _stream(port: int, head: bytes, part: bytes) -> None:
    with suppress(OSError), socket.create_connection((HOST, port), 5) as connection:
        connection.settimeout(SECONDS)
        connection.sendall(head)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            connection.sendall(part)
