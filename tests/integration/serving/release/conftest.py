"""One running server with four pushed versions. Each test gets it without labels and in its original state."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.versions.release import RELEASE_FILE
from serving.launch import backends, server
from serving.release import decisions, history
from tests.integration.serving.release.home import Home
from tests.support import servers
from tests.support.pushed import folder, push


class _Bars(tf.Module):
    """Classifies the synthetic digits, which have a bright bar at the height of their class; or always returns 0."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        rows = np.zeros((28, 10), np.float32)
        for digit in range(10):
            top = digit * 28 // 10
            rows[top : top + 2, digit if right else 0] = 1.0
        self.rows = tf.Variable(rows)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "images")])
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        ink = tf.reduce_mean(tf.cast(images, tf.float32), axis=2)
        probabilities = tf.nn.softmax(tf.linalg.matmul(ink, self.rows))
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=1)}


def _fast_command(real: Callable[..., list[str]]) -> Callable[..., list[str]]:
    return lambda *arguments: [
        "tests.support.fast_model_server" if word == "serving.model_server" else word for word in real(*arguments)
    ]


@pytest.fixture(scope="session")
def running(backend: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Versions 1 to 3 classify the synthetic digits correctly; version 4 is always wrong."""
    models, path = tmp_path_factory.mktemp("exported"), tmp_path_factory.mktemp("home")
    for name, right in (("right", True), ("wrong", False)):
        model = _Bars(right)
        tf.saved_model.save(model, str(models / name), signatures={"serving_default": model.serve})
    for version in (1, 2, 3):
        push(path, version, models / "right")
    push(path, 4, models / "wrong")
    (path / "data").mkdir()
    (path / "data" / "mnist").symlink_to(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "command", _fast_command(backends.command))
        home = Home(path, backend, models / "right")
        home.start()
        yield home
        home.stop()


@pytest.fixture
def home(running: Home) -> Iterator[Home]:
    yield running
    if server.find(running.path) is None:
        running.start()
    decisions.promote(running.path, 4)
    shutil.rmtree(folder(running.path, 5), ignore_errors=True)
    decisions.unpin(running.path)
    shutil.rmtree(folder(running.path, 2))  # a test may have tampered with it
    push(running.path, 2, running.model)
    for file in (RELEASE_FILE, history.HISTORY_FILE):
        (running.path / file).unlink(missing_ok=True)
    servers.wait_for(lambda: running.newest() == 4)
