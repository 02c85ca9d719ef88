"""--enable_batching: requests that wait at the same time run as one.

TensorFlow Serving's batching has queues and threads of its own, may wait for company, and pads. Here requests join the
batch that waits for a worker, and what cannot share a run, or spoils it, runs alone: a request's answer or error is its
own. The event loop does what comes before and after the run, because a second thread would only compete with it for the
interpreter (docs/decisions/0018); large requests are left to the workers.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf import text_format

from serving.model_server.errors import ServingError
from serving.model_server.flags import FlagError
from serving.model_server.servable import Servable
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

DEFAULT_MAX_BATCH_SIZE: Final = 1000  # TensorFlow Serving's
LARGE_BYTES: Final = 2**18  # of a request or of answers: more takes too long to convert on the event loop
SPACING_S: Final = 0.00025  # between two batches for each request that is about, ...
MAX_SPACING_S: Final = 0.004  # ... and at most (docs/decisions/0018)
Response = TypeVar("Response")
Place = tuple[int, int]


class Run(NamedTuple):
    """The run of the session that a request needs; arguments as those of Servable.run."""

    servable: Servable
    feeds: Sequence[tuple[Place, Array]]
    fetches: Sequence[Place]
    timeout_ms: int = 0

    def alone(self) -> list[Array]:
        """Raises ServingError."""
        return self.servable.run(self.feeds, self.fetches, self.timeout_ms)

    def rows(self) -> int:
        """Examples in it; 0 if it cannot share a run: a scalar input, inputs of different lengths, no example."""
        lengths = {array.shape[0] if array.ndim else 0 for _, array in self.feeds}
        return lengths.pop() if len(lengths) == 1 else 0

    def kind(self) -> object:
        """Equal for runs that may be one: same version, same tensors, same dtypes and shapes but for the rows."""
        feeds = tuple((place, array.dtype, array.shape[1:]) for place, array in self.feeds)
        return id(self.servable), feeds, tuple(self.fetches)


Steps = Generator[Run, list[Array], Response]
"""A request in two halves: yields its run, is sent what that answered, returns the response."""


def run_alone(steps: Steps[Response]) -> Response:
    """One request by itself. Raises what its halves raise, and ServingError."""
    run = next(steps)
    return _second_half(steps, _outcome(run))


@dataclass
class _Batch(Generic[Response]):
    """Requests of one kind on their way to a worker."""

    requests: list[Steps[Response]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    waiting: list[asyncio.Future[Response]] = field(default_factory=list)
    rows: int = 0


class Batcher:
    """Runs requests together, for one event loop.

    Args:
        workers: who call the session, each batch in its turn.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = threading.Lock()  # guards the batches: a worker closes one while the loop may be adding to it
        self._open: dict[object, _Batch[Any]] = {}
        self._leading: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly
        self._inside = 0  # requests that have come in and are not answered
        self._about = 0.0  # how many there were of late
        self._left = 0.0  # when a batch last left, in the loop's time

    async def run(self, steps: Steps[Response]) -> Response:
        """One request's response. Raises what its halves raise, and ServingError."""
        run = next(steps)
        rows, limit = run.rows(), run.servable.max_batch_size
        kind = run.kind() if 0 < rows < limit else object()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        self._inside += 1
        self._about = max(self._about, self._inside)
        with self._lock:
            batch = self._open.get(kind)
            if batch is None or batch.rows + rows > limit:
                batch = self._open[kind] = _Batch()
                task = loop.create_task(self._lead(kind, batch))
                self._leading.add(task)
                task.add_done_callback(self._leading.discard)
            batch.requests.append(steps)
            batch.runs.append(run)
            batch.waiting.append(future)
            batch.rows += rows
        return await future

    async def _lead(self, kind: object, batch: _Batch[Any]) -> None:
        """See a batch through. A request whose client has gone keeps its version loaded until the run is over."""
        loop = asyncio.get_running_loop()
        if self._about > 1:  # each request costs more on its own than it loses by waiting for those about to come
            await asyncio.sleep(self._left + min(self._about * SPACING_S, MAX_SPACING_S) - loop.time())
        self._left = loop.time()
        self._about = max(self._inside, self._about * 0.9)
        answers: Sequence[list[Array] | BaseException]
        try:
            answers = await self._workers.run(partial(self._execute, kind, batch))
        except BaseException as e:  # nobody may wait for ever
            answers = [e] * len(batch.requests)
        self._inside -= len(batch.requests)
        second_halves = partial(_second_halves, batch.requests, answers)
        large = sum(array.nbytes for answer in answers if not isinstance(answer, BaseException) for array in answer)
        outcomes = await self._workers.run(second_halves) if large > LARGE_BYTES else second_halves()
        for future, outcome in zip(batch.waiting, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _execute(self, kind: object, batch: _Batch[Any]) -> Sequence[list[Array] | BaseException]:
        with self._lock:  # from here on nobody joins
            if self._open.get(kind) is batch:
                del self._open[kind]
        return together(batch.runs)


def together(runs: Sequence[Run]) -> Sequence[list[Array] | BaseException]:
    """What each of several runs of one kind answers or raises."""
    first = runs[0]
    if len(runs) == 1:
        return [_outcome(first)]
    feeds = [(place, np.concatenate([run.feeds[k][1] for run in runs])) for k, (place, _) in enumerate(first.feeds)]
    timeouts_ms = [run.timeout_ms for run in runs]
    ends = list(itertools.accumulate(run.rows() for run in runs))
    try:
        answers = first.servable.run(feeds, first.fetches, max(timeouts_ms) if all(timeouts_ms) else 0)
    except ServingError:
        return [_outcome(run) for run in runs]
    if any(not array.ndim or len(array) != ends[-1] for array in answers):  # not a row for each row
        return [_outcome(run) for run in runs]
    return [[array[start:stop] for array in answers] for start, stop in itertools.pairwise([0, *ends])]


def _outcome(run: Run) -> list[Array] | BaseException:
    try:
        return run.alone()
    except BaseException as e:  # the caller's to handle, in its own task
        return e


def max_batch_size(enabled: bool, parameters_file: str) -> int:
    """Rows of a batch at most, from the flags; 0 is no batching. Raises FlagError, OSError."""
    if not enabled:
        return 0
    parameters = pb.BatchingParameters()
    if parameters_file:
        try:
            text_format.Parse(Path(parameters_file).read_text(), parameters)
        except text_format.ParseError as e:
            raise FlagError(f"--batching_parameters_file={parameters_file}: {e}") from None
    size: int = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else DEFAULT_MAX_BATCH_SIZE
    if size < 1:
        raise FlagError(f"--batching_parameters_file={parameters_file}: max_batch_size must be at least 1, is {size}")
    return size


def _second_half(steps: Steps[Response], answer: list[Array] | BaseException) -> Response:
    try:
        if isinstance(answer, BaseException):
            steps.throw(answer)
        else:
            steps.send(answer)
    except StopIteration as stop:
        response: Response = stop.value
        return response
    raise AssertionError("a request has one run")


def _second_halves(
    requests: Sequence[Steps[Response]], answers: Sequence[list[Array] | BaseException]
) -> Sequence[Response | BaseException]:
    """Each request's response, or what it raises."""
    outcomes: list[Response | BaseException] = []
    for steps, answer in zip(requests, answers, strict=True):
        try:
            outcomes.append(_second_half(steps, answer))
        except BaseException as e:
            outcomes.append(e)
    return outcomes
