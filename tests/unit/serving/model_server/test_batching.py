"""Batching: each request gets its own response or error, in as few runs as possible."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model_server.batching import Batcher, Run, Steps, batch_limits, run_alone
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.flags import FlagError
from serving.model_server.limits import LARGE_BYTES
from serving.model_server.servable import Servable
from serving.model_server.workers import Workers
from serving.protocol.tensors import Array

X, Y = (1, 0), (2, 0)


class Doubling:
    """A version that returns x + x, records the number of rows of its runs, and rejects negative numbers."""

    def __init__(self, max_batch_size: int = 64) -> None:
        self.max_batch_size, self.runs = max_batch_size, []  # type: int, list[int]

    def run(self, feeds: Sequence[tuple[Any, Array]], fetches: Sequence[Any], timeout_ms: int = 0) -> list[Array]:
        ((_, x),) = feeds
        self.runs.append(x.shape[0] if x.ndim else 0)
        if x.dtype.kind == "f" and (x < 0).any():
            raise invalid("negative")
        return [x + x] if fetches == [Y] else [np.zeros(3)]


def request(version: Doubling, x: Array, fetch: tuple[int, int] = Y, closed: list[Array] | None = None) -> Steps[Array]:
    try:
        (fetched,) = yield Run(cast(Servable, version), [(X, x)], [fetch])
    finally:
        if closed is not None:
            closed.append(x)
    return fetched


def refused() -> Steps[Array]:
    raise invalid("no such signature")
    yield


def run_together(requests: Sequence[Steps[Array]], max_enqueued: int = 100) -> list[Array | BaseException]:
    """Run all requests at the same time, on their own event loop."""

    async def gathered() -> list[Array | BaseException]:
        batcher = Batcher(Workers(limit=2), max_enqueued)
        return await asyncio.gather(*(batcher.run(steps) for steps in requests), return_exceptions=True)

    return asyncio.run(gathered())


ARRAYS = st.builds(
    lambda rows, width, dtype, value: np.full((rows, width) if width else rows, value, dtype),
    *(st.integers(0, 9), st.integers(0, 2), st.sampled_from(["float32", "int64"]), st.integers(-1, 5)),
)


@given(st.lists(ARRAYS, max_size=20), st.integers(1, 12))
@settings(max_examples=50)
def test_a_shared_run_returns_what_separate_runs_return(arrays: list[Array], size: int) -> None:
    version = Doubling(size)
    closed: list[Array] = []
    outcomes = run_together([request(version, x, closed=closed) for x in arrays])
    assert len(outcomes) == len(arrays) == len(closed)
    for x, outcome in zip(arrays, outcomes, strict=True):
        if x.dtype.kind == "f" and (x < 0).any():
            assert isinstance(outcome, ServingError) and outcome.message == "negative"
        else:
            np.testing.assert_array_equal(cast(Array, outcome), x + x)
            assert cast(Array, outcome).dtype == x.dtype


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 12))
@settings(max_examples=50)
def test_runs_are_as_full_as_possible(rows: list[int], size: int) -> None:
    version = Doubling(size)
    run_together([request(version, np.ones((n, 2), np.float32)) for n in rows])
    assert sum(version.runs) == sum(rows)
    assert all(total <= max(size, *rows) for total in version.runs)
    if sum(rows) <= size:  # the first request may run before the others arrive
        assert len(version.runs) <= 2


def test_requests_of_different_kinds_share_no_run() -> None:
    one, other = Doubling(), Doubling()
    ones = np.ones((1, 2), np.float32)
    kinds = [ones, np.ones((1, 3), np.float32), np.ones((1, 2)), np.float32(1)]
    run_together([*(request(one, np.asarray(x)) for x in kinds), request(other, ones), request(one, ones)])
    assert (sorted(one.runs), other.runs) == ([0, 1, 1, 2], [1])


def test_requests_whose_outputs_are_not_by_row_run_again_alone() -> None:
    version = Doubling()
    outcomes = run_together([request(version, np.ones((1, 2)), fetch=(3, 0)) for _ in range(2)])
    assert [len(cast(Array, o)) for o in outcomes] == [3, 3] and version.runs == [2, 1, 1]


def test_a_request_that_fails_before_its_run_affects_no_other() -> None:
    failed, good = run_together([refused(), request(Doubling(), np.ones(1))])
    assert isinstance(failed, ServingError) and list(cast(Array, good)) == [2]
    with pytest.raises(ServingError, match="no such signature"):
        run_alone(refused())


def test_a_large_response_is_encoded_by_a_worker() -> None:
    threads = []

    def large(version: Doubling) -> Steps[Array]:
        (fetched,) = yield Run(cast(Servable, version), [(X, np.ones((1, LARGE_BYTES)))], [Y])
        threads.append(threading.current_thread())
        return fetched

    (response,) = run_together([large(Doubling())])
    assert cast(Array, response).sum() == 2 * LARGE_BYTES and threads != [threading.main_thread()]


def test_a_cancelled_request_holds_its_version_until_its_run_ends() -> None:
    running, go_on = threading.Event(), threading.Event()

    class Slow(Doubling):
        def run(self, *arguments: Any) -> list[Array]:
            running.set()
            go_on.wait(5)
            return super().run(*arguments)

    async def cancel() -> None:
        closed: list[Array] = []
        batcher = Batcher(Workers(limit=1))
        task = asyncio.create_task(batcher.run(request(Slow(), np.ones(1), closed=closed)))
        await asyncio.to_thread(running.wait, 5)
        task.cancel()
        await asyncio.sleep(0.02)
        assert task.cancelled() and not closed
        go_on.set()
        while not closed:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(cancel(), 5))


def test_requests_beyond_a_full_queue_are_unavailable() -> None:
    version = Doubling(max_batch_size=1)
    outcomes = run_together([request(version, np.ones(1)) for _ in range(5)], max_enqueued=2)
    assert outcomes[:2] == [2.0, 2.0]
    assert [error.code for error in outcomes[2:] if isinstance(error, ServingError)] == [Code.UNAVAILABLE] * 3


def test_a_run_that_crashes_leaves_no_request_waiting() -> None:
    class Broken(Doubling):
        def run(self, *_: Any) -> list[Array]:
            raise MemoryError("no room")

    outcomes = run_together([request(Broken(), np.ones(1)) for _ in range(3)])
    assert [type(outcome) for outcome in outcomes] == [MemoryError] * 3


@pytest.mark.parametrize(
    ("text", "size"), [("", 1000), ("max_batch_size { value: 7 }", 7), ("num_batch_threads { value: 2 }", 1000)]
)
def test_the_size_comes_from_the_parameters_file(tmp_path: Path, text: str, size: int) -> None:
    (tmp_path / "batching.config").write_text(text)
    assert batch_limits(True, str(tmp_path / "batching.config")) == (size, 10)
    assert batch_limits(False, "") == (0, 0)


@pytest.mark.parametrize("text", ["max_batch_size { value: 0 }", "max_batch_sise { value: 7 }", "{", "\0"])
def test_a_bad_parameters_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(FlagError, match=r"batching\.config"):
        batch_limits(True, str(path))
