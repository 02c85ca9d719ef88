"""--enable_batching: requests that wait at the same time share a run of the session.

TensorFlow Serving's batching has its own queues and threads, and can wait for more requests and pad. Here, a request
joins the batch that is waiting for a worker. A request that cannot share a run is run alone, and so are all requests of
a failed batch, so that each request gets its own response or error. The event loop decodes requests and encodes
responses, because a second thread would only compete with it for the GIL (docs/decisions/0018); workers convert large
ones.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf import text_format

from serving.model_server.errors import Code, ServingError
from serving.model_server.flags import FlagError
from serving.model_server.limits import LARGE_BYTES, Ticket
from serving.model_server.servable import Servable
from serving.model_server.workers import TOO_LATE, Workers
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

DEFAULT_MAX_BATCH_SIZE: Final = 1000  # rows; TensorFlow Serving's default
DEFAULT_MAX_ENQUEUED: Final = 10  # batches; TensorFlow Serving's default
FULL: Final = (
    "The batch scheduling queue to which this task was submitted is full; currently {} batches enqueued and "
    "max_enqueued_batches is {}"
)
SPACING_S: Final = 0.00025  # time between two batches, per concurrent request, ...
MAX_SPACING_S: Final = 0.004  # ... but at most this (docs/decisions/0018)
Response = TypeVar("Response")
Place = tuple[int, int]


class Run(NamedTuple):
    """A run of the session that a request needs. The fields are the arguments of Servable.run."""

    servable: Servable
    feeds: Sequence[tuple[Place, Array]]
    fetches: Sequence[Place]
    timeout_ms: int = 0

    def alone(self) -> list[Array]:
        """Run without batching. Raises ServingError."""
        return self.servable.run(self.feeds, self.fetches, self.timeout_ms)

    def rows(self) -> int:
        """Return the number of input rows; 0 if it cannot be batched: scalars, inputs of different lengths, no rows."""
        lengths = {array.shape[0] if array.ndim else 0 for _, array in self.feeds}
        return lengths.pop() if len(lengths) == 1 else 0

    def kind(self) -> object:
        """Return a key that is equal for runs that can be merged: same version, tensors, dtypes and row shapes."""
        feeds = tuple((place, array.dtype, array.shape[1:]) for place, array in self.feeds)
        return id(self.servable), feeds, tuple(self.fetches)


Steps = Generator[Run, list[Array], Response]
"""A request in two steps: it yields its Run, is sent the fetched arrays, and returns the response."""


def run_alone(steps: Steps[Response]) -> Response:
    """Execute one request without batching. Raises ServingError and anything that `steps` raises."""
    run = next(steps)
    return _finish(steps, _outcome(run))


@dataclass
class _Batch(Generic[Response]):
    """Requests of one kind that wait for a worker."""

    requests: list[Steps[Response]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    waiting: list[asyncio.Future[Response]] = field(default_factory=list)
    tickets: list[Ticket | None] = field(default_factory=list)
    rows: int = 0


class Batcher:
    """Merges the requests of one event loop into batches, which `workers` run.

    Args:
        max_enqueued: maximum number of batches of a version that wait for a worker (max_enqueued_batches).
    """

    def __init__(self, workers: Workers, max_enqueued: int = DEFAULT_MAX_ENQUEUED) -> None:
        self._workers, self._max_enqueued = workers, max_enqueued
        self._enqueued: Counter[int] = Counter()  # batches by id of their version; guarded by _lock
        self._lock = threading.Lock()  # guards _open: a worker closes a batch while the loop may add to it
        self._open: dict[object, _Batch[Any]] = {}
        self._leading: set[asyncio.Task[None]] = set()  # the loop holds only weak references to tasks
        self._inside = 0  # requests without a response yet
        self._recent = 0.0  # decaying maximum of _inside
        self._left_at = 0.0  # loop time at which the last batch was submitted

    async def run(self, steps: Steps[Response], ticket: Ticket | None = None) -> Response:
        """Return one request's response. Raises ServingError and anything that `steps` raises."""
        run = next(steps)
        rows, limit = run.rows(), run.servable.max_batch_size
        kind = run.kind() if 0 < rows < limit else object()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        with self._lock:
            batch = self._open.get(kind)
            if batch is None or batch.rows + rows > limit:
                if (enqueued := self._enqueued[id(run.servable)]) >= self._max_enqueued:
                    steps.close()
                    message = FULL.format(enqueued, self._max_enqueued)
                    raise ticket.refuse("batches", message) if ticket else ServingError(Code.UNAVAILABLE, message)
                batch = self._open[kind] = _Batch()
                self._enqueued[id(run.servable)] += 1
                task = loop.create_task(self._lead(kind, batch))
                self._leading.add(task)
                task.add_done_callback(self._leading.discard)
            batch.requests.append(steps)
            batch.runs.append(run)
            batch.waiting.append(future)
            batch.tickets.append(ticket)
            batch.rows += rows
        self._inside += 1
        self._recent = max(self._recent, self._inside)
        try:
            return await future
        finally:
            del future, batch  # see Workers.run

    async def _lead(self, kind: object, batch: _Batch[Any]) -> None:
        """Submit a batch and deliver its responses. A cancelled request keeps its version loaded until the run ends."""
        loop = asyncio.get_running_loop()
        if self._recent > 1:  # running a request alone costs more than waiting for a few more
            await asyncio.sleep(self._left_at + min(self._recent * SPACING_S, MAX_SPACING_S) - loop.time())
        self._left_at = loop.time()
        self._recent = max(self._inside, self._recent * 0.9)
        results: Sequence[list[Array] | BaseException]
        try:
            results = await self._workers.run(partial(self._execute, kind, batch))
        except BaseException as e:  # no request may wait forever
            results = [e] * len(batch.requests)
        self._inside -= len(batch.requests)
        finish = partial(_finish_all, batch.requests, results)
        sizes = [array.nbytes for arrays in results if not isinstance(arrays, BaseException) for array in arrays]
        outcomes = await self._workers.run(finish) if sum(sizes) > LARGE_BYTES else finish()
        for future, outcome in zip(batch.waiting, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _execute(self, kind: object, batch: _Batch[Any]) -> Sequence[list[Array] | BaseException]:
        with self._lock:  # close the batch: no further requests can join
            self._enqueued[id(batch.runs[0].servable)] -= 1
            if self._open.get(kind) is batch:
                del self._open[kind]
        # A request whose client has gone, or whose deadline has passed, is left out.
        alive = [
            not future.cancelled() and (ticket is None or ticket.start())
            for future, ticket in zip(batch.waiting, batch.tickets, strict=True)
        ]
        if all(alive):
            return together(batch.runs)
        results = iter(together([run for run, wanted in zip(batch.runs, alive, strict=True) if wanted]))
        return [next(results) if wanted else ServingError(Code.DEADLINE_EXCEEDED, TOO_LATE) for wanted in alive]


def together(runs: Sequence[Run]) -> Sequence[list[Array] | BaseException]:
    """Execute runs of one kind as a single run; return the arrays or the exception of each."""
    if not runs:
        return []
    first = runs[0]
    if len(runs) == 1:
        return [_outcome(first)]
    feeds = [(place, np.concatenate([run.feeds[k][1] for run in runs])) for k, (place, _) in enumerate(first.feeds)]
    timeouts_ms = [run.timeout_ms for run in runs]
    ends = list(itertools.accumulate(run.rows() for run in runs))
    try:
        arrays = first.servable.run(feeds, first.fetches, max(timeouts_ms) if all(timeouts_ms) else 0)
    except ServingError:
        return [_outcome(run) for run in runs]
    if any(not array.ndim or len(array) != ends[-1] for array in arrays):  # outputs do not have one row per input row
        return [_outcome(run) for run in runs]
    return [[array[start:stop] for array in arrays] for start, stop in itertools.pairwise([0, *ends])]


def _outcome(run: Run) -> list[Array] | BaseException:
    try:
        return run.alone()
    except BaseException as e:  # raised again in the request's own task
        return e


def batch_limits(enabled: bool, parameters_file: str) -> tuple[int, int]:
    """Return the maximum number of rows in a batch (0 without batching), and of batches that wait for a worker.

    Raises:
        FlagError, OSError: the parameters file is invalid or cannot be read.
    """
    if not enabled:
        return 0, 0
    parameters = pb.BatchingParameters()
    if parameters_file:
        try:
            text_format.Parse(Path(parameters_file).read_text(), parameters)
        except text_format.ParseError as e:
            raise FlagError(f"--batching_parameters_file={parameters_file}: {e}") from None
    size: int = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else DEFAULT_MAX_BATCH_SIZE
    if size < 1:
        raise FlagError(f"--batching_parameters_file={parameters_file}: max_batch_size is {size}, must be at least 1")
    enqueued: int = parameters.max_enqueued_batches.value or DEFAULT_MAX_ENQUEUED
    return size, enqueued


def _finish(steps: Steps[Response], result: list[Array] | BaseException) -> Response:
    """Pass the result of its run to a request, and return the response."""
    try:
        if isinstance(result, BaseException):
            steps.throw(result)
        else:
            steps.send(result)
    except StopIteration as stop:
        response: Response = stop.value
        return response
    raise AssertionError("a request yielded more than one Run")


def _finish_all(
    requests: Sequence[Steps[Response]], results: Sequence[list[Array] | BaseException]
) -> Sequence[Response | BaseException]:
    """Return each request's response or exception."""
    outcomes: list[Response | BaseException] = []
    for steps, result in zip(requests, results, strict=True):
        try:
            outcomes.append(_finish(steps, result))
        except BaseException as e:
            outcomes.append(e)
    return outcomes
