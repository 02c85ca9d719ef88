"""--enable_batching: concurrent requests each get their own response or error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.support.clients import refused
from tests.support.servers import Server, embedded_only, model_config

MAX_BATCH_SIZE = 8


@pytest.fixture(scope="module")
def batching(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("batching")
    (folder / "batching.config").write_text(
        f"max_batch_size {{ value: {MAX_BATCH_SIZE} }} max_enqueued_batches {{ value: 100 }}"
    )
    found = Server(folder, ("--enable_batching=true", f"--batching_parameters_file={folder / 'batching.config'}"))
    found.configure(*(model_config(name, models / name) for name in ("half", "pair", "scalar")))
    try:
        yield found.start()
    finally:
        found.stop()


def test_each_request_gets_its_own_response(batching: Server) -> None:
    def predict(n: int) -> None:
        rows = n % MAX_BATCH_SIZE + 1
        x = np.full((rows, 1), n, np.float32)
        if n % 5 == 0:
            response = batching.predict("pair", {"a": [float(n)] * rows, "b": [2.0] * rows})
            assert list(response.outputs["product"].float_val) == [2.0 * n] * rows
        elif n % 7 == 0:  # of another dtype than the input
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                batching.predict("half", {"x": x.astype(np.int64)})
        else:
            found = tf.make_ndarray(batching.predict("half", {"x": x}).outputs["y"])
            np.testing.assert_allclose(found, x / 2 + 2)

    with ThreadPoolExecutor(32) as clients:
        list(clients.map(predict, range(150)))


def test_a_request_larger_than_a_batch(batching: Server) -> None:
    x = {"x": [[1.0]] * (MAX_BATCH_SIZE + 1)}
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "Task size 9 is larger than maximum input batch size 8"):
        batching.predict("half", x)
    assert len(batching.predict("half", {"x": x["x"][1:]}).outputs["y"].float_val) == MAX_BATCH_SIZE


@embedded_only
def test_requests_that_cannot_be_batched_run_alone(batching: Server) -> None:
    with ThreadPoolExecutor(8) as clients:
        found = clients.map(lambda n: batching.predict("scalar", {"x": float(n)}).outputs["y"].float_val[0], range(40))
        assert list(found) == [n * n for n in range(40)]
