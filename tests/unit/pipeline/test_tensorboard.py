"""Names of trainings, on a home with a real metadata store; and TensorBoard itself, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from dataclasses import asdict
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.common.ports import free_port
from components.common.settings import DataSettings, TrainSettings
from pipeline.tensorboard import trainings
from tests.conftest import ROOT, environment, pipeline_command
from tests.support.command import in_process
from tests.support.recorded_home import RecordedHome


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> RecordedHome:
    """Two trainings, the second with other settings, and a run that took its model from the cache."""
    place = RecordedHome(tmp_path_factory.mktemp("home"))
    for name, version in (("run-a", 1), ("run-b", 2), ("run-c", 2)):
        place.run(name, version)
    settings = [TrainSettings(), TrainSettings(steps=100, checkpoint_folder="/a b/c")]
    executions = [
        e for e in place.store.get_executions_by_type("Trainer") if e.last_known_state == mlmd.Execution.COMPLETE
    ]
    for execution, train in zip(executions, settings, strict=True):
        config = {"train": asdict(train), "data": DataSettings().of_examples()}
        execution.properties["custom_config"].string_value = json.dumps(config)
        kind = mlmd.ExecutionType(name="Trainer", properties={"custom_config": mlmd.STRING})
        place.store.put_execution_type(kind, can_add_fields=True)
        place.store.put_executions([execution])
        (place.artifacts / "Trainer" / "model_run" / str(execution.id)).mkdir(parents=True)
    return place


def test_a_training_is_named_by_its_run_and_what_is_not_the_default(home: RecordedHome) -> None:
    assert list(trainings(home)) == ["run-a", "run-b steps=100 checkpoint_folder=_a b_c"]


def test_without_a_training_the_message_says_what_to_run(tmp_path: Path) -> None:
    done = in_process("tensorboard", "--home", tmp_path)
    assert done.code == 5 and "no training here" in done.stderr and "make pipeline" in done.stderr


def test_it_serves_until_it_is_interrupted_and_leaves_nothing(home: RecordedHome, tmp_path: Path) -> None:
    port = free_port()
    command = pipeline_command("tensorboard", "--home", home.root, "--port", str(port), "--json")
    variables = environment() | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        shown = json.loads(process.stdout.readline())
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/data/plugins_listing", timeout=10) as response:
            assert {"scalars", "timeseries"} <= json.load(response).keys()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    assert str(port) in shown["url"] and shown["runs"] == list(trainings(home))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mnist-tfx")]
