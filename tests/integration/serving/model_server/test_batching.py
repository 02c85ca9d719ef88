"""--enable_batching: many requests at a time, each with the answer or the error of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.integration.serving.conftest import Start
from tests.support.servers import Server, embedded_only, model_config, refused

MAX_BATCH_SIZE = 8


@pytest.fixture
def batching(models: Path, start: Start, tmp_path: Path) -> Server:
    (tmp_path / "batching.config").write_text(f"max_batch_size {{ value: {MAX_BATCH_SIZE} }}")
    flags = ("--enable_batching=true", f"--batching_parameters_file={tmp_path / 'batching.config'}")
    names = ("half", "pair", "text", "scalar")
    return start(*(model_config(name, models / name) for name in names), flags=flags)


def test_each_gets_its_own(batching: Server) -> None:
    def ask(n: int) -> None:
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
        list(clients.map(ask, range(400)))


def test_more_rows_than_a_batch_may_have(batching: Server) -> None:
    x = {"x": [[1.0]] * (MAX_BATCH_SIZE + 1)}
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "Task size 9 is larger than maximum input batch size 8"):
        batching.predict("half", x)
    assert len(batching.predict("half", {"x": x["x"][1:]}).outputs["y"].float_val) == MAX_BATCH_SIZE


@embedded_only
def test_what_cannot_be_batched_runs_alone(batching: Server) -> None:
    with ThreadPoolExecutor(8) as clients:
        found = clients.map(lambda n: batching.predict("scalar", {"x": float(n)}).outputs["y"].float_val[0], range(40))
        assert list(found) == [n * n for n in range(40)]
