"""Decoding in other processes: results, errors, and the limits on memory and time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from serving.model_server import codec
from serving.model_server.codec import Body, Content
from serving.model_server.codec_pool import IMPATIENT_SHARE, CodecPool
from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.limits import Admission, Limits
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

Run = Callable[..., Any]
INPUTS = {"serving_default": {"x": pb.TensorInfo(dtype=pb.DT_INT32).SerializeToString()}}


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Make a call in a pool of one process."""
    with asyncio.Runner() as runner:
        pool = CodecPool(Admission(Limits()), 1, 2**28, 16)
        yield lambda call, timeout_s=30.0: runner.run(in_pool(pool, call, timeout_s))
        pool.close()


async def in_pool(pool: CodecPool, call: Any, timeout_s: float | None = 30.0) -> Any:
    with Admission(Limits()).enter(0, timeout_s) as ticket:
        return await pool.run(call, ticket)


def rest(document: Any) -> Any:
    return partial(codec.decode_rest_predict, Body(Content(json.dumps(document).encode()), False, 2**30), INPUTS)


def test_arrays_and_errors_come_back(run: Run) -> None:
    rows = np.arange(300_000).reshape(1000, 300)
    name, decoded = run(rest({"instances": rows.tolist()}))
    assert (name, decoded.row) == ("", True)
    np.testing.assert_array_equal(decoded.inputs["x"], rows.astype(np.int32))

    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="m"))
    request.inputs["s"].CopyFrom(to_proto(np.array([b"a" * 1000] * 500, np.object_)))
    header, inputs = run(partial(codec.decode_grpc, "PredictRequest", Content(request.SerializeToString()), 2**20))
    assert pb.PredictRequest.FromString(header).model_spec.name == "m"
    assert inputs["s"].tolist() == [b"a" * 1000] * 500

    with pytest.raises(ServingError, match="Missing 'inputs' or 'instances' key") as error:
        run(rest({}))
    assert error.value.code == Code.INVALID_ARGUMENT
    with pytest.raises(TooLargeError):
        run(partial(codec.decode_rest_predict, Body(Content(zlib.compress(bytes(99), wbits=31)), True, 9), INPUTS))


def test_memory_is_limited_and_the_next_call_works(run: Run) -> None:
    body = b'{"instances": [' + b"[]," * 10_000_000 + b"[]]}"
    with pytest.raises(ServingError, match="needs more than 268435456 bytes") as error:
        run(partial(codec.decode_rest_predict, Body(Content(body), False, 2**30), INPUTS))
    assert error.value.code == Code.RESOURCE_EXHAUSTED
    with pytest.raises(ServingError, match="needs more than"):
        run(partial(os._exit, 1))  # as if it had crashed
    assert run(rest({"instances": [1, 2]}))[1].inputs["x"].tolist() == [1, 2]


def test_a_call_ends_with_its_deadline_or_its_client(run: Run) -> None:
    started = time.monotonic()
    with pytest.raises(ServingError) as error:
        run(partial(time.sleep, 30), timeout_s=0.2)
    assert error.value.code == Code.DEADLINE_EXCEEDED and time.monotonic() - started < 10
    assert run(rest({"inputs": [1]}))[1].inputs["x"].tolist() == [1]


def test_a_call_that_ends_soon_is_not_killed(run: Run) -> None:
    """Its process costs more than to wait for a result that nobody wants."""
    process = run(os.getpid)
    for _ in range(3):
        with pytest.raises(ServingError):
            run(partial(time.sleep, 0.3), timeout_s=0.05)
    assert run(os.getpid) == process


def test_only_so_many_calls_wait_and_fewer_after_clients_have_left() -> None:
    async def answers(pool: CodecPool, calls: int) -> Counter[str]:
        """Make calls while the only process is busy; count the outcomes."""
        busy = asyncio.create_task(in_pool(pool, partial(time.sleep, 0.3)))
        await asyncio.sleep(0.05)
        outcomes = await asyncio.gather(*(in_pool(pool, int) for _ in range(calls)), return_exceptions=True)
        await busy
        return Counter(e.code.name if isinstance(e, ServingError) else "OK" for e in outcomes)

    async def crowds() -> tuple[Counter[str], Counter[str]]:
        pool = CodecPool(Admission(Limits()), 1, 2**28, 16)
        await in_pool(pool, int)
        patient = await answers(pool, 26)
        leaving = asyncio.create_task(answers(pool, 10))
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.sleep(0.4)
        found = patient, await answers(pool, 26)
        pool.close()
        return found

    patient, impatient = asyncio.run(crowds())
    assert patient == {"OK": 16, "UNAVAILABLE": 10}
    assert impatient == {"OK": 16 // IMPATIENT_SHARE, "UNAVAILABLE": 26 - 16 // IMPATIENT_SHARE}


def test_no_process_is_lost_when_calls_are_cancelled_at_the_moment_of_their_turn() -> None:
    async def cancelled(delay_s: float, pool: CodecPool) -> None:
        async with asyncio.timeout(delay_s):
            await in_pool(pool, int)

    async def storm() -> None:
        pool = CodecPool(Admission(Limits()), 1, 2**28, 1000)
        await in_pool(pool, int)
        for _ in range(8):
            calls = [cancelled(random.uniform(0, 0.02), pool) for _ in range(100)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {type(None), TimeoutError, ServingError}
        assert await in_pool(pool, int) == 0
        pool.close()

    asyncio.run(storm())
