"""Limits: what is admitted, what is refused, and what is never run."""

from __future__ import annotations

import asyncio
import gc
import time

import numpy as np
import pytest

from serving.model_server.codec import Body, Content
from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.limits import LARGE_BYTES, Admission, Limits
from serving.model_server.refusals import Refusals
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import MAX_ELEMENTS, filled_bytes, to_proto


def test_requests_and_bytes_are_limited_until_they_are_released() -> None:
    admission = Admission(Limits(request_bytes=1000, pending_requests=2, pending_bytes=1500))
    with pytest.raises(TooLargeError):
        admission.enter(1001)
    with admission.enter(1000) as first:
        with pytest.raises(ServingError) as error:
            admission.enter(501)
        assert error.value.code == Code.UNAVAILABLE
        with admission.enter(100), pytest.raises(ServingError, match="2 requests"):
            admission.enter(100)
        with pytest.raises(ServingError):
            first.grow(501)
        first.grow(500)
    with admission.enter(1000), admission.enter(500):
        pass
    assert admission.refusals.counts() == {"request_bytes": 1, "pending_bytes": 2, "pending_requests": 1}


def test_a_part_is_reserved_for_requests_that_are_not_large() -> None:
    admission = Admission(Limits(pending_bytes=10 * LARGE_BYTES))
    with admission.enter(7 * LARGE_BYTES):
        with pytest.raises(ServingError):
            admission.enter(LARGE_BYTES + 1)
        with admission.enter(LARGE_BYTES), admission.enter(LARGE_BYTES):
            pass


def test_a_request_that_would_wait_beyond_its_deadline_is_refused() -> None:
    admission = Admission(Limits())
    for _ in range(30):  # runs start some 10 ms after their requests arrive
        with admission.enter(0, 1.0) as ticket:
            time.sleep(0.01)
            assert ticket.start()
    waiting = [admission.enter(0, 1.0) for _ in range(20)]
    with pytest.raises(ServingError) as error:
        admission.enter(0, 0.1)
    assert error.value.code == Code.UNAVAILABLE
    waiting.append(admission.enter(0, 10.0))
    waiting.append(admission.enter(0))  # without a deadline
    for ticket in waiting:
        ticket.release()
    admission.enter(0, 0.001).release()  # nothing waits


def test_a_run_whose_client_has_gone_or_whose_deadline_has_passed_never_starts() -> None:
    admission = Admission(Limits())
    gone, late, good = admission.enter(0, 5.0), admission.enter(0, 0.001), admission.enter(0, 5.0)
    admission.cancelled(gone)
    time.sleep(0.01)
    assert [ticket.start() for ticket in (gone, late, good)] == [False, False, True]
    assert admission.refusals.counts() == {"client_gone": 1, "deadline": 1}

    async def run_late() -> None:
        with admission.enter(0, 0.0) as ticket, pytest.raises(ServingError) as error:
            await Workers(limit=1).run(lambda: pytest.fail("it was run"), ticket)
        assert error.value.code == Code.DEADLINE_EXCEEDED

    asyncio.run(run_late())


def test_a_failed_call_is_freed_at_once() -> None:
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    def fail() -> None:
        held = Held()
        raise ValueError(f"{held is None}")

    async def calls() -> None:
        workers = Workers(limit=1)
        for _ in range(5):
            with pytest.raises(ValueError, match="False"):
                await workers.run(fail)
        assert Held.alive <= 1  # the last one may still be on the worker's stack

    gc.disable()
    try:
        asyncio.run(calls())
    finally:
        gc.enable()


def test_the_log_gets_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for _ in range(1000):
        refusals.count("shed")
    assert len(caplog.records) == 1 and refusals.counts() == {"shed": 1000}


def test_tensors_count_as_filled() -> None:
    def repeated(data_type: int, shape: list[int], value: bytes = b"") -> pb.TensorProto:
        proto = pb.TensorProto(dtype=data_type)  # type: ignore[arg-type]
        proto.tensor_shape.dim.extend(pb.TensorShapeProto.Dim(size=size) for size in shape)
        if value:
            proto.string_val.append(value)
        return proto

    assert filled_bytes(to_proto(np.zeros((3, 4), np.uint8), content=True)) == 12
    assert filled_bytes(repeated(pb.DT_COMPLEX128, [16384, 1024])) == 2**28
    assert filled_bytes(repeated(pb.DT_STRING, [16384, 1024], b"x" * 1000)) > 2**34
    assert filled_bytes(repeated(pb.DT_FLOAT, [MAX_ELEMENTS, 2])) == 0  # refused by from_proto
    assert filled_bytes(repeated(pb.DT_FLOAT, [-1])) == 0


def test_a_body_is_large_if_it_is_when_unpacked() -> None:
    import gzip

    zipped = gzip.compress(bytes(2**20))
    assert (
        len(zipped) < 2000
        and Body(Content(zipped), True, 2**21).is_large()
        and not Body(Content(zipped), False, 2**21).is_large()
    )
    assert not Body(Content(gzip.compress(bytes(1000))), True, 2**21).is_large()
    assert not Body(Content(b"no gzip"), True, 2**21).is_large()
    assert len(Body(Content(zipped), True, 2**20).unpacked()) == 2**20
    with pytest.raises(TooLargeError):
        Body(Content(zipped), True, 2**20 - 1).unpacked()
