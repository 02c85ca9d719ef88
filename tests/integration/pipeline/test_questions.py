"""runs, compare and lineage on homes with recorded runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.common.errors import InputError, UsageError
from components.validation import reference_predictions
from components.validation.reference_predictions import ReferencePredictions
from pipeline import compare, records
from pipeline.provenance import provenance
from tests.support.command import in_process
from tests.support.recorded_home import RecordedHome

DATA = {"train_images": "a" * 64, "test_images": "b" * 64}


def settings(rate: float) -> dict[str, dict[str, object]]:
    return {"train": {"learning_rate": rate, "steps": 10}, "data": {"classes": 2}}


@pytest.fixture
def home(tmp_path: Path) -> RecordedHome:
    """Runs of versions 1 and 2; then one that took everything from the cache."""
    home, made = RecordedHome(tmp_path), {}
    for name, version, rate in (("20260101-1", 1, 0.1), ("20260102-2", 2, 0.2), ("20260103-3", 2, 0.2)):
        made[name] = home.run(
            name,
            version,
            status="pushed",
            pushed_version=str(version),
            metrics={"test_accuracy": 0.5},
            settings=settings(rate),
            data_sha256=DATA,
            nodes=[{"id": "Trainer", "state": "ran", "seconds": rate, "reason": "not run before"}],
        )
    labels = np.tile([0, 1], 50)
    for name, wrong in (("20260101-1", 30), ("20260102-2", 10)):
        probabilities = np.eye(2, dtype=np.float32)[np.where(np.arange(100) < wrong, 1 - labels, labels)]
        predictions = ReferencePredictions(np.zeros((100, 2, 2), np.uint8), labels, probabilities)
        reference_predictions.write(predictions, made[name]["Evaluator/evaluation"])
    return home


def test_runs_says_what_differed_from_the_run_before(home: RecordedHome) -> None:
    done = in_process("runs", "--home", home.root, "--json")
    assert [(run["run_id"], run["version"], run["changed"]) for run in json.loads(done.stdout)["runs"]] == [
        ("20260101-1", "1", []),
        ("20260102-2", "2", ["train.learning_rate 0.1 -> 0.2"]),
        ("20260103-3", "2", []),
    ]
    shutil.rmtree(home.logs("20260101-1"))
    damaged = [
        "{",
        '{"run_id": 1, "metrics": {"a": "x"}}',
        '{"run_id": 1, "settings": [1]}',
        '{"run_id": 1, "nodes": [1]}',
    ]
    for number, content in enumerate(damaged):
        home.logs(f"damaged-{number}").mkdir()
        (home.logs(f"damaged-{number}") / "run.json").write_text(content)
    text = in_process("runs", "--home", home.root).stdout
    assert "damaged" not in text
    assert "train.learning_rate" not in text  # there is no record to compare with
    assert text.splitlines()[-2].startswith("1 more have no record")


def test_a_run_is_found_by_id_beginning_version_and_word(home: RecordedHome) -> None:
    names = {"20260101-1": 1, "20260102": 2, "1": 1, "2": 2, "latest": 3, "previous": 2}
    assert {name: records.find(home, name).run_id[-1] for name in names} == {k: str(v) for k, v in names.items()}
    with pytest.raises(UsageError, match="the beginning of 3 runs"):
        records.find(home, "202601")
    with pytest.raises(UsageError, match=r"no run or version '20260102-3'(.|\n)*The nearest: 2026010"):
        records.find(home, "20260102-3")
    with pytest.raises(InputError, match="no finished run"):
        records.find(RecordedHome(home.root / "empty"), "latest")


def test_compare_shows_differences_only_and_whether_they_are_more_than_chance(home: RecordedHome) -> None:
    done = in_process("compare", "1", "2", "--home", home.root, "--json")
    found = json.loads(done.stdout)
    assert found["runs"] == ["20260101-1", "20260102-2"]
    assert found["settings"] == {"train.learning_rate": [0.1, 0.2]}
    assert found["data"] == {}
    accuracy = found["metrics"]["test_accuracy"]
    assert (accuracy["a"], accuracy["b"]) == (0.7, 0.9)
    assert accuracy["interval"]["a"] == pytest.approx([0.604, 0.781], abs=0.001)  # Wilson, 70 of 100
    assert accuracy["significant"] is True
    assert accuracy["p"] == pytest.approx(2 * 0.5**20)  # all 20 images that changed are better
    assert set(found["metrics"]) >= {"recall[0]", "recall[1]", "precision[0]"}
    text = in_process("compare", "1", "2", "--home", home.root).stdout
    assert "train.learning_rate        0.1 -> 0.2" in text
    assert "more than chance" in text
    assert "code: not recorded" in text
    same = json.loads(in_process("compare", "previous", "latest", "--home", home.root, "--json").stdout)
    assert (same["settings"], same["metrics"]) == ({}, {})


def test_compare_says_what_a_run_lost(home: RecordedHome) -> None:
    shutil.rmtree(home.artifacts / "Evaluator")
    found = compare.compare(*(records.find(home, name) for name in ("1", "2")))
    assert found["missing"] == [
        f"run {run} has no evaluation any more: its intervals are not known" for run in found["runs"]
    ]


def test_lineage_goes_from_a_version_to_the_data(home: RecordedHome) -> None:
    found = provenance(home, "2")
    assert (found.version, found.run_id) == ("2", "20260102-2")
    assert {execution.node for execution in found.executions} == {"Pusher", "InfraValidator", "Evaluator", "Trainer"}
    assert provenance(home, "served").version == "2"
    assert provenance(home, "latest").executions[0].run_id == "20260102-2"  # of a cached run: what wrote its results
    nodes = found.to_json()["nodes"]
    assert {artifact["type"] for artifact in nodes[0]["inputs"]} == {"Model", "ModelBlessing", "InfraBlessing"}
    done = in_process("lineage", "2", "--home", home.root)
    assert done.stdout.splitlines()[0] == "version 2, of run 20260102-2"
    unknown = in_process("lineage", "7", "--home", home.root)
    assert (unknown.code, "no run or version '7'" in unknown.stderr) == (2, True)


def test_lineage_of_a_version_that_ml_metadata_does_not_know(home: RecordedHome) -> None:
    home.metadata.unlink()
    found = provenance(home, "2")
    assert found.executions == []
    assert "only its manifest says" in found.missing[0]
