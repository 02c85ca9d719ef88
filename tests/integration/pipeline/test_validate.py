"""`validate` while the served version changes: all rows are about one version."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tensorflow as tf

from components.common.errors import InputError
from components.common.ports import free_port
from pipeline import validate
from serving.launch import server
from serving.launch.backends import Setup
from serving.release import decisions
from tests.support.pushed import push
from tests.support.recorded_home import RecordedHome
from tests.support.servers import wait_for


class _Uniform(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.fill([tf.shape(images)[0], 10], 0.1)
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=1)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedHome]:
    """A server on two versions that are recorded in MLMD."""
    home, model = RecordedHome(tmp_path_factory.mktemp("home")), _Uniform()
    exported = tmp_path_factory.mktemp("exported")
    tf.saved_model.save(model, str(exported), signatures={"serving_default": model.serve})
    for version in (1, 2):
        push(home.root, version, exported)
        home.run(f"run {version}", version)
    server.start(Setup(home.root, free_port(), free_port()), "embedded")
    yield home
    server.shut_down(home.root)


@pytest.mark.parametrize("moves", [[2], [2, 1]])
def test_the_rows_are_all_about_one_version(
    served: RecordedHome, moves: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label moves as soon as a round of checks has got the first answer of the server."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # each round keeps the server's answers in a folder there
    decisions.promote(served.root, 1)
    decisions.canary(served.root, 2)  # loaded, so that its promotion takes no time

    def move() -> None:
        for rounds, version in enumerate(moves, 1):
            wait_for(lambda rounds=rounds: len({*tmp_path.glob("*/predictions.npz")} | seen) == rounds, 60)
            seen.update(tmp_path.glob("*/predictions.npz"))
            decisions.promote(served.root, version)

    seen: set[Path] = set()
    mover = threading.Thread(target=move)
    mover.start()
    try:
        if moves == [2, 1]:
            with pytest.raises(InputError, match="changed from 2 to 1"):
                validate.validate(served, "stable", print)
            return
        version, rows = validate.validate(served, "stable", print)
    finally:
        mover.join()
    assert version == 2
    assert [row.name for row in rows] == ["server", "manifest", "files", "record", "blessing"]
    assert rows[0].found.endswith("from version 2")
    assert [row.passed for row in rows] == [True] * 4 + [False]  # no Evaluator has blessed this model
