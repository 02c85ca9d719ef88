"""What `run --plan` says about a home with recorded runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.common.errors import UsageError
from components.common.settings import TrainSettings
from pipeline.node_keys import NodeKey, node_keys
from pipeline.plan import NODES, data_sha256, forced, plan
from pipeline.settings import Settings
from tests.support.recorded_home import RecordedHome

SETTINGS = Settings()
SLOWER = replace(SETTINGS, train=TrainSettings(learning_rate=0.001))
RECORDED = ("ExampleGen", "Trainer", "Evaluator", "InfraValidator", "Pusher")


def keys(home: RecordedHome, settings: Settings = SETTINGS) -> dict[str, NodeKey]:
    return node_keys(settings, home, data_sha256(settings))


@pytest.fixture
def home(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path)


def reasons(home: RecordedHome, settings: Settings = SETTINGS, **why: str) -> dict[str, str]:
    """By node; a leading "=" marks a cached one. Nodes that the recorded runs do not have are left out."""
    decisions = plan(settings, home, why)
    assert [decision.node for decision in decisions] == list(NODES)
    return {one.node: f"{'=' if one.cached else ''}{one.reason}" for one in decisions if one.node in RECORDED}


def test_a_plan_for_an_empty_home_writes_nothing(home: RecordedHome, tmp_path: Path) -> None:
    assert set(reasons(home).values()) == {"not run before"}
    assert list(tmp_path.iterdir()) == []


def test_the_same_settings_are_cached_from_the_run_that_wrote_the_results(home: RecordedHome) -> None:
    for name in ("run-1", "run-2"):
        home.run(name, 1, keys=keys(home))
    assert reasons(home) == dict.fromkeys(RECORDED, "=same as run run-1")


def test_a_change_names_the_setting_then_the_new_inputs(home: RecordedHome) -> None:
    home.run("run-1", 1, keys=keys(home))
    assert reasons(home, SLOWER) == {
        "ExampleGen": "=same as run run-1",
        "Trainer": "train.learning_rate 0.005 -> 0.001",
        "Evaluator": "=same as run run-1",  # in these homes only the Pusher has inputs
        "InfraValidator": "=same as run run-1",
        "Pusher": "train.learning_rate 0.005 -> 0.001, input Model is new",
    }
    home.run("run-2", 2, keys=keys(home, SLOWER))
    assert reasons(home)["Trainer"] == "=same as run run-1"  # the settings before: not only the last run counts


def test_changed_code_and_data_are_named(home: RecordedHome) -> None:
    before = keys(home)
    path, gone = "components/trainer.py", "components/old.py"
    trainer = before["Trainer"]
    assert path in trainer.sources
    before["Trainer"] = replace(trainer, sources=trainer.sources | {path: "0" * 16, gone: "1" * 16})
    before["ExampleGen"] = replace(before["ExampleGen"], data={**before["ExampleGen"].data, "test_labels": "0" * 64})
    home.run("run-1", 1, keys=before)
    assert reasons(home)["Trainer"] == f"{gone} and 1 more changed"
    assert reasons(home)["ExampleGen"] == "test_labels changed"


def test_a_run_of_an_older_version_has_no_record_to_compare_with(home: RecordedHome) -> None:
    home.run("run-1", 1)
    assert reasons(home)["Trainer"] == "no record of run run-1"


def test_results_that_are_gone_or_changed_are_not_cached(home: RecordedHome) -> None:
    made = home.run("run-1", 1, keys=keys(home))
    shutil.rmtree(made["Trainer/model"])
    assert reasons(home)["Trainer"] == "output Model is gone"
    assert reasons(home)["Pusher"] == "input Model is new"
    version = home.serving_model / "1"
    (version / "saved_model.pb").write_bytes(b"another model")
    home.run("run-2", 2, keys=keys(home))
    shutil.rmtree(home.serving_model / "2")
    assert reasons(home)["Pusher"] == "version 2 is gone"


def test_an_execution_that_failed_is_named(home: RecordedHome) -> None:
    home.run("run-1", 1, keys=keys(home))
    home.run("run-2", 2, keys=keys(home, SLOWER), last="Trainer")
    last = max(home.store.get_executions(), key=lambda execution: execution.id)
    last.last_known_state = mlmd.Execution.FAILED
    home.store.put_executions([last])
    assert reasons(home, SLOWER)["Trainer"] == "train.learning_rate 0.005 -> 0.001, did not finish in run run-2"


def test_from_and_no_cache_run_nodes_that_are_cached(home: RecordedHome) -> None:
    home.run("run-1", 1, keys=keys(home))
    assert forced("Evaluator", []) == dict.fromkeys(NODES[7:], "--from Evaluator")
    found = reasons(home, **forced(None, ["Trainer"]))
    assert (found["ExampleGen"], found["Trainer"]) == ("=same as run run-1", "--no-cache Trainer")
    assert found["Pusher"] == "input Model is new"
    with pytest.raises(UsageError, match=r"no node 'trainer'\nThe nearest is Trainer"):
        forced("trainer", [])
