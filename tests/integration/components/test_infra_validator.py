"""The exported model in a real server: blessed if it predicts as evaluated, otherwise rejected with a reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf

from components import infra_validator
from components.common import contract
from components.common.container_engine import IMAGE
from components.common.errors import InputError
from components.common.settings import InfraSettings
from components.infra_validator import checks
from components.validation import control_model
from components.validation.reference_predictions import ReferencePredictions
from components.validation.trial_server import ServerError
from tests.conftest import ROOT
from tests.support.synthetic import digits

SETTINGS = InfraSettings(requests=5, max_p99_ms=10_000)


class Linear(tf.Module):
    """A small model with the same signature as the product's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.random.stateless_normal([784, 10], [1, 2]) / 784)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name=contract.IMAGES)])
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(tf.reshape(tf.cast(images, tf.float32), [-1, 784]) @ self.weight)
        return {contract.PROBABILITIES: probabilities, contract.CLASSES: tf.argmax(probabilities, axis=1)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "saved_model"
    module = Linear()
    tf.saved_model.save(module, str(folder), signatures={contract.SERVING_DEFAULT: module.serve})
    return folder


@pytest.fixture(scope="module")
def expected(model: Path) -> ReferencePredictions:
    images, labels = digits(600, seed=1)
    serve = tf.saved_model.load(str(model)).signatures[contract.SERVING_DEFAULT]
    return ReferencePredictions(images, labels, serve(images=tf.constant(images))[contract.PROBABILITIES].numpy())


def test_a_good_model_is_blessed_and_its_server_is_gone(
    model: Path, expected: ReferencePredictions, tmp_path: Path
) -> None:
    verdict = infra_validator.validate(model, expected, tmp_path / "server", SETTINGS, "embedded")
    assert verdict.blessed, verdict.failures
    assert verdict.metrics["misread"] == 0
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def test_predictions_that_differ_from_the_evaluation_are_rejected(
    model: Path, expected: ReferencePredictions, tmp_path: Path
) -> None:
    off = expected.probabilities.copy()
    off[-1] = np.roll(off[-1], 1)  # one image of 600, and not one that is sent singly
    changed = expected._replace(probabilities=off)
    verdict = infra_validator.validate(model, changed, tmp_path / "server", SETTINGS, "embedded")
    assert not verdict.blessed
    assert {check.metric for check in verdict.checks if not check.passed} == {"grpc_difference", "misread"}


def test_a_model_that_loads_but_cannot_predict_is_rejected_with_request_and_log(
    model: Path, expected: ReferencePredictions, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    shutil.rmtree(broken / "variables")
    verdict = infra_validator.validate(broken, expected, tmp_path / "server", SETTINGS, "embedded")
    assert not verdict.blessed
    assert verdict.error is not None
    assert "127.0.0.1" in verdict.error
    assert "The end of the server's log" in verdict.error


def test_a_model_that_does_not_load_is_refused(expected: ReferencePredictions, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff" * 100)
    settings = replace(SETTINGS, max_load_s=8)
    verdict = infra_validator.validate(tmp_path / "broken", expected, tmp_path / "server", settings, "embedded")
    assert not verdict.blessed
    assert "the server" in str(verdict.error)


@pytest.mark.parametrize(
    ("backend", "says"),
    [("binary", "no tensorflow_model_server on PATH"), ("container", f"podman pull {IMAGE}")],
)
def test_a_missing_server_is_no_verdict_on_the_model(
    model: Path,
    expected: ReferencePredictions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    says: str,
) -> None:
    engine = tmp_path / "bin" / "podman"
    engine.parent.mkdir()
    engine.write_text(f'#!/bin/sh\n[ "$1" = info ] && exit\n[ "$1" = pull ] && : > {tmp_path}/pulled\nexit 1\n')
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(engine.parent))
    with pytest.raises(InputError, match="no server could be started") as caught:
        infra_validator.validate(model, expected, tmp_path / "server", SETTINGS, backend)
    assert caught.value.exit_code == 5
    assert says in str(caught.value)
    assert not (tmp_path / "pulled").exists()


def test_a_server_that_fails_with_a_good_model_is_no_verdict_on_the_model(
    model: Path, expected: ReferencePredictions, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="known-good model") as caught:
        infra_validator.validate(model, expected, tmp_path / "server", replace(SETTINGS, max_load_s=0.001), "embedded")
    assert caught.value.exit_code == 5
    assert "run again" in caught.value.remedy


def test_a_slow_machine_does_not_refuse_a_good_model(
    model: Path, expected: ReferencePredictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = replace(SETTINGS, max_p99_ms=0.001)
    refused = infra_validator.validate(model, expected, tmp_path / "idle", tight, "embedded")
    assert {check.metric for check in refused.checks if not check.passed} == {"grpc_p99_ms", "rest_p99_ms"}
    reference = {name: p99_ms / 1e6 for name, p99_ms in control_model.REFERENCE_P99_MS.items()}
    monkeypatch.setattr(control_model, "REFERENCE_P99_MS", reference)  # as if the machine were 10^6 times slower
    assert infra_validator.validate(model, expected, tmp_path / "busy", tight, "embedded").blessed


MEASURED = {
    "size_bytes": 1e6, "load_s": 1.0, "grpc_p99_ms": 2.0, "rest_p99_ms": 2.0, "grpc_difference": 0.0,
    "rest_difference": 0.0, "misread": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        *(("size_bytes", 1e9), ("load_s", 61.0), ("grpc_p99_ms", 251.0), ("rest_p99_ms", 251.0)),
        *(("grpc_difference", 1e-4), ("rest_difference", float("nan")), ("misread", 1)),
    ],
)
def test_each_bound_is_enforced(figure: str, value: float) -> None:
    assert all(check.passed for check in checks(InfraSettings(), MEASURED))
    failed = [c.metric for c in checks(InfraSettings(), MEASURED | {figure: value}) if not c.passed]
    assert failed == [figure]


SERVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from components.validation import trial_server
with trial_server.running_server(Path(sys.argv[1]), Path(sys.argv[2]), "embedded", 60) as (port, _, _):
    print(port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's PR_SET_PDEATHSIG")
def test_kill_9_leaves_no_server_behind(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE_AND_DIE, str(model), str(tmp_path / "server")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0  # it was AVAILABLE
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        servers = [
            p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])
        ]
        if not servers:
            return
        time.sleep(0.1)
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    pytest.fail(f"still there: {servers}")
