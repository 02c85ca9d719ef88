"""Decoding in other processes: results, errors, and the limits on memory and time."""

from __future__ import annotations

import asyncio
import json
import os
import time
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from serving.model_server import codec
from serving.model_server.codec import Body, Content
from serving.model_server.codec_pool import CodecPool
from serving.model_server.errors import Code, ServingError, TooLargeError
from serving.model_server.limits import Admission, Limits
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

INPUTS = {"serving_default": {"x": pb.TensorInfo(dtype=pb.DT_INT32).SerializeToString()}}


@pytest.fixture(scope="module")
def pool() -> Iterator[CodecPool]:
    found = CodecPool(Admission(Limits()), 1, 2**28)
    yield found
    found.close()


def run(pool: CodecPool, call: Any, timeout_s: float | None = 30.0) -> Any:
    async def outcome() -> Any:
        with Admission(Limits()).enter(0, timeout_s) as ticket:
            return await pool.run(call, ticket)

    return asyncio.run(outcome())


def rest(document: Any) -> Any:
    return partial(codec.decode_rest_predict, Body(Content(json.dumps(document).encode()), False, 2**30), INPUTS)


def test_arrays_and_errors_come_back(pool: CodecPool) -> None:
    rows = np.arange(300_000).reshape(1000, 300)
    name, decoded = run(pool, rest({"instances": rows.tolist()}))
    assert (name, decoded.row) == ("", True)
    np.testing.assert_array_equal(decoded.inputs["x"], rows.astype(np.int32))

    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="m"))
    request.inputs["s"].CopyFrom(to_proto(np.array([b"a" * 1000] * 500, np.object_)))
    header, inputs = run(
        pool, partial(codec.decode_grpc, "PredictRequest", Content(request.SerializeToString()), 2**20)
    )
    assert pb.PredictRequest.FromString(header).model_spec.name == "m"
    assert inputs["s"].tolist() == [b"a" * 1000] * 500

    with pytest.raises(ServingError, match="Missing 'inputs' or 'instances' key") as error:
        run(pool, rest({}))
    assert error.value.code == Code.INVALID_ARGUMENT
    with pytest.raises(TooLargeError):
        run(
            pool, partial(codec.decode_rest_predict, Body(Content(zlib.compress(bytes(99), wbits=31)), True, 9), INPUTS)
        )


def test_memory_is_limited_and_the_next_call_works(pool: CodecPool) -> None:
    body = b'{"instances": [' + b"[]," * 10_000_000 + b"[]]}"
    with pytest.raises(ServingError, match="needs more than 268435456 bytes") as error:
        run(pool, partial(codec.decode_rest_predict, Body(Content(body), False, 2**30), INPUTS))
    assert error.value.code == Code.RESOURCE_EXHAUSTED
    with pytest.raises(ServingError, match="needs more than"):
        run(pool, partial(os._exit, 1))  # as if it had crashed
    assert run(pool, rest({"instances": [1, 2]}))[1].inputs["x"].tolist() == [1, 2]


def test_a_call_ends_with_its_deadline_or_its_client(pool: CodecPool) -> None:
    started = time.monotonic()
    with pytest.raises(ServingError) as error:
        run(pool, partial(time.sleep, 30), timeout_s=0.2)
    assert error.value.code == Code.DEADLINE_EXCEEDED and time.monotonic() - started < 10
    assert run(pool, rest({"inputs": [1]}))[1].inputs["x"].tolist() == [1]
