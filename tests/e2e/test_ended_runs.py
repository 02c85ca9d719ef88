"""Runs in homes of their own that end early: anomalies in the data, a second run at the same time, kill -9."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from components.versions import publish
from tests.conftest import ROOT, Pipeline, environment, pipeline_command, quick
from tests.support.synthetic import NAMES, digits, write_data_set, write_idx


def test_anomalies_stop_the_run_before_training(pipeline: Pipeline, tmp_path: Path) -> None:
    spoiled = write_data_set(tmp_path / "data", train=300, test=100)
    images, _ = digits(300, seed=0)
    write_idx(spoiled / NAMES[0], 255 - images)
    _, labels = digits(100, seed=1)
    write_idx(spoiled / NAMES[3], np.where(np.isin(labels, [3, 7]), 1, labels).astype(np.uint8))
    home = tmp_path / "home"
    done = pipeline(*quick(spoiled, home))
    assert done.code == 4
    assert done.json["status"] == "anomalies"
    assert "train: mean_intensity" in done.stderr
    assert "test: label: no example of class 3, 7: its recall is unknown" in done.json["error"]
    assert done.states["ExampleValidator"] == "failed"
    assert {done.states[node] for node in ("Transform", "Trainer", "Pusher")} == {"skipped"}
    assert publish.versions(home / "serving_model" / "mnist") == []
    assert not list(home.glob("artifacts/Trainer/model/*"))
    assert pipeline(*quick(spoiled, home)).code == 4  # a failed validation is never reused from the cache


def test_a_second_run_in_the_same_home_is_refused_and_kill_9_needs_no_clean_up(
    pipeline: Pipeline, data: Path, tmp_path: Path
) -> None:
    arguments = quick(data, tmp_path, "--set", "train.steps=500", "--set", "train.checkpoint_every_steps=20")
    command = pipeline_command(*arguments)
    running = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("Transform"):
                break  # the Trainer is next
        refused = pipeline(*arguments)
        assert refused.code == 5
        assert f"process {running.pid}" in refused.stderr
        while running.poll() is None and not list(tmp_path.glob("artifacts/Trainer/checkpoints/*")):
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    after = pipeline(*arguments)
    assert after.code == 0, after.stderr
    assert after.states["ExampleGen"] == "cached"
    assert "resumed at step" in after.stderr
    assert after.json["status"] == "pushed"
    assert publish.versions(tmp_path / "serving_model" / "mnist") == [int(after.json["pushed_version"])]
    executions = {path.name for path in (tmp_path / "artifacts" / "Trainer" / "model").iterdir()}
    assert len(executions) == 1  # the folder of the killed execution is deleted
