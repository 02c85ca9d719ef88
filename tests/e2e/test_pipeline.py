"""The real DAG on a small data set, run as a user runs it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.common import contract, resources
from components.common.settings import TrainSettings
from components.versions import manifest
from tests.conftest import ROOT, Pipeline, environment, pipeline_command, quick
from tests.support.done import Done
from tests.support.synthetic import digits, write_data_set

NODES = [
    "ExampleGen",
    "Schema",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Baseline",
    "Evaluator",
    "InfraValidator",
    "Pusher",
]
MAX_REPORT_BYTES = 1_500_000
BEFORE_TRANSFORM = set(NODES[:4])


def reasons(done: Done) -> dict[str, str]:
    return {node["id"]: node["reason"] for node in done.json["nodes"]}


def versions(home: Path) -> list[str]:
    base = home / "serving_model" / "mnist"
    return sorted(path.name for path in base.iterdir() if path.name.isdecimal()) if base.is_dir() else []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(pipeline: Pipeline, data: Path, home: Path) -> Done:
    done = pipeline(*quick(data, home))
    assert done.code == 0, done.stderr
    return done


def test_the_first_run_pushes_a_version(first: Done, home: Path) -> None:
    result = first.json
    assert set(first.states.values()) == {"ran"}
    assert set(first.states) == set(NODES)
    assert result["status"] == "pushed"
    assert result["blessed"] is True
    assert result["infra_blessed"] is True
    assert {(check["metric"], check["slice"]) for check in result["checks"]} >= {
        ("accuracy", "overall"),
        ("recall", "9"),
    }
    assert versions(home) == [result["pushed_version"]]
    assert result["metrics"]["test_accuracy"] > 0.9
    assert result["metrics"]["train_accuracy"] > 0.9
    assert sum(node["seconds"] for node in result["nodes"]) <= result["seconds"]


def test_the_first_run_writes_its_report_and_a_model_card(first: Done, home: Path) -> None:
    text = (home / "reports" / f"{first.json['run_id']}.html").read_text()
    assert len(text) < MAX_REPORT_BYTES
    for words in (
        "Blessed and pushed",
        "Training loss",
        "Classes by split",
        "Drift and skew, with",
        "execution 1",
        "tfx",
    ):
        assert words in text
    assert "What this page lacks" not in text
    assert all(node["peak_mb"] > 0 for node in first.json["nodes"])
    version = home / "serving_model" / "mnist" / first.json["pushed_version"]
    assert manifest.verify(version).files.keys() > {"README.md", "model_card.json"}


def test_the_trainer_divides_the_cores_although_other_nodes_used_tensorflow_before(first: Done, home: Path) -> None:
    (history,) = (home / "artifacts" / "Trainer" / "model").glob(f"*/{contract.HISTORY_FILE}")
    shards = TrainSettings().shards
    assert json.loads(history.read_text())["intra_op_threads"] == max(1, resources.cores() // shards)


def test_every_node_has_a_log_and_the_terminal_shows_none_of_it(first: Done, home: Path) -> None:
    logs = home / "logs" / first.json["run_id"]
    assert {path.stem for path in logs.glob("*.log")} == {*NODES, "startup"}
    assert "INFO" in (logs / "Trainer.log").read_text()
    lines = [line for line in first.stderr.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines[1:]] == list(first.states)
    assert lines[-1].endswith(f" s  version {first.json['pushed_version']}; not run before")


def test_the_pushed_model_predicts_as_in_its_evaluation(first: Done, home: Path) -> None:
    (version,) = versions(home)
    serve = tf.saved_model.load(str(home / "serving_model" / "mnist" / version)).signatures["serving_default"]
    images, labels = digits(300, seed=1)  # the test split
    right = np.mean(serve(images=tf.constant(images))["classes"].numpy() == labels)
    assert right == pytest.approx(first.json["metrics"]["test_accuracy"], abs=1e-6)


def test_the_second_run_is_all_cached(pipeline: Pipeline, first: Done, data: Path, home: Path) -> None:
    planned = pipeline(*quick(data, home, "--plan"))
    second = pipeline(*quick(data, home))
    assert second.code == 0
    assert set(second.states.values()) == {"cached"}
    assert reasons(second) == dict.fromkeys(NODES, f"same as run {first.json['run_id']}")
    assert planned.json["plan"] == [
        {key: node[key] for key in ("id", "state", "reason")} for node in second.json["nodes"]
    ]
    assert second.json["pushed_version"] == first.json["pushed_version"]
    assert second.json["metrics"] == first.json["metrics"]
    assert versions(home) == [first.json["pushed_version"]]


def test_a_bad_model_is_never_pushed(pipeline: Pipeline, first: Done, data: Path, home: Path) -> None:
    before = versions(home)
    bounds = ("gate.min_accuracy=0.99", "gate.min_class_recall=0.5", "gate.max_accuracy_drop=0.01")
    settings = [word for bound in bounds for word in ("--set", bound)]
    arguments = quick(data, home, "--set", "train.steps=1", *settings)
    planned = pipeline(*arguments, "--plan")
    bad = pipeline(*arguments)
    assert bad.code == 3
    assert reasons(bad)["Trainer"].startswith("train.steps ")
    assert reasons(bad)["Trainer"].endswith(" -> 1")
    assert {node["id"]: node["reason"] for node in planned.json["plan"]} == reasons(bad)
    assert {node["id"] for node in planned.json["plan"] if node["state"] == "run"} == set(NODES[5:])
    assert bad.json["status"] == "not_blessed"
    assert bad.json["pushed_version"] is None
    assert "accuracy[overall]" in bad.stderr
    assert "< 0.9900" in bad.stderr
    report = (home / "reports" / f"{bad.json['run_id']}.html").read_text()
    assert "Not blessed" in report
    assert "Newly wrong" in report
    failed = {check["metric"] for check in bad.json["checks"] if not check["passed"]}
    assert failed == {"accuracy", "accuracy against baseline", "recall"}
    assert versions(home) == before


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source that a test may edit."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("components", "pipeline", "serving", "configs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_model_that_predicts_nan_is_not_pushed_even_if_it_passes_all_thresholds(
    pipeline: Pipeline, first: Done, data: Path, home: Path, checkout: Path
) -> None:
    before = versions(home)
    trainer = checkout / "components" / "trainer.py"
    source = trainer.read_text()
    line = '    log.info("exporting the SavedModel")\n'
    assert line in source
    weights = "trained.model.weights[0]"
    trainer.write_text(source.replace(line, f"{line}    {weights}.assign({weights} * float('nan'))\n"))
    arguments = quick(data, home, "--set", "gate.min_accuracy=0.0")
    done, again = (pipeline(*arguments, cwd=checkout) for _ in range(2))
    trainer.write_text(source)
    assert {check["metric"] for check in done.json["checks"] if not check["passed"]} == {"finite answers"}
    assert set(again.states.values()) == {"cached"}
    assert (done.code, again.code) == (3, 3)
    assert versions(home) == before


def test_an_edit_reruns_exactly_the_nodes_that_use_it(
    pipeline: Pipeline, first: Done, data: Path, home: Path, checkout: Path
) -> None:
    with open(checkout / "components" / "transform.py", "a") as file:
        file.write("\n# an edit\n")
    planned = pipeline(*quick(data, home, "--plan"), cwd=checkout)
    edited = pipeline(*quick(data, home), cwd=checkout)
    assert reasons(edited)["Transform"] == "components/transform.py changed"
    assert {node["id"]: node["reason"] for node in planned.json["plan"]} == reasons(edited)
    assert {node for node, state in edited.states.items() if state == "cached"} == BEFORE_TRANSFORM
    assert {state for node, state in edited.states.items() if node not in BEFORE_TRANSFORM} == {"ran"}


def test_an_exception_names_node_cause_line_and_log(
    pipeline: Pipeline, first: Done, data: Path, home: Path, checkout: Path
) -> None:
    model = checkout / "components" / "training" / "model.py"
    model.write_text(model.read_text().replace("limit = (6.0", 'raise KeyError("spoon")\n            limit = (6.0'))
    line = next(i for i, text in enumerate(model.read_text().splitlines(), 1) if "spoon" in text)
    done = pipeline(*quick(data, home), cwd=checkout)
    assert done.code == 1
    assert "Trainer failed: KeyError: 'spoon'" in done.stderr
    assert f"At: components/training/model.py:{line}" in done.stderr
    (log,) = [text.removeprefix("Log: ") for text in done.stderr.splitlines() if text.startswith("Log: ")]
    assert "spoon" in Path(log).read_text()
    assert done.json["status"] == "failed"


def test_deleted_and_damaged_files_make_their_nodes_run_again(
    pipeline: Pipeline, first: Done, data: Path, home: Path
) -> None:
    arguments = quick(data, home)
    shutil.rmtree(home / "serving_model")
    planned = pipeline(*arguments, "--plan")
    deleted = pipeline(*arguments, "--no-cache", "ExampleValidator")
    assert [node for node, state in deleted.states.items() if state == "ran"] == ["ExampleValidator", "Pusher"]
    assert reasons(deleted)["ExampleValidator"] == "--no-cache ExampleValidator"
    assert [(node["id"], node["reason"]) for node in planned.json["plan"] if node["state"] == "run"] == [
        ("Pusher", f"version {first.json['pushed_version']} is gone")
    ]

    served = home / "serving_model" / "mnist" / deleted.json["pushed_version"]
    (served / "saved_model.pb").write_bytes(b"")
    damaged = pipeline(*arguments)
    assert [node for node, state in damaged.states.items() if state == "ran"] == ["Pusher"]
    assert int(damaged.json["pushed_version"]) > int(deleted.json["pushed_version"])

    model = min((home / "artifacts" / "Trainer" / "model").glob("[0-9]*"), key=lambda path: int(path.name))
    next(model.rglob("variables.data*")).unlink()
    retrained = pipeline(*arguments)
    assert retrained.code == 0, retrained.stderr
    assert "variables.data" in retrained.stderr  # the file is named
    assert retrained.states["Transform"] == "cached"
    assert retrained.states["Trainer"] == "ran"
    assert retrained.json["metrics"] == first.json["metrics"]


def test_an_interrupted_run_pushes_nothing_and_the_next_one_continues(
    pipeline: Pipeline, first: Done, data: Path, home: Path
) -> None:
    before = versions(home)
    arguments = quick(data, home, "--set", "gate.min_accuracy=0.02")  # the Evaluator and the nodes after it run
    command = pipeline_command(*arguments)
    running = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("Baseline"):
                break  # the Evaluator is next
        time.sleep(1)  # in TFMA, on Beam's threads
        running.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert running.stderr.readline() == "stopping...\n"
        assert time.monotonic() - sent < 2  # the drill measures it
        assert running.wait(timeout=30) == 130
        assert "interrupted" in running.stderr.read()
    assert versions(home) == before
    after = pipeline(*arguments)
    assert after.code == 0, after.stderr
    assert after.states["Trainer"] == "cached"


def test_after_a_removal_of_old_runs_the_cache_has_what_is_kept_and_nothing_else(
    pipeline: Pipeline, first: Done, data: Path, home: Path
) -> None:
    changed = pipeline(*quick(data, home, "--set", "gate.min_accuracy=0.01", "--set", "home.keep_runs=1"))
    assert changed.code == 0, changed.stderr
    assert "home.keep_runs is 1" in changed.stderr
    assert [path.name for path in home.glob("logs/*/run.json")] == ["run.json"]
    status = pipeline("status", "--home", home, "--json").json
    assert status["home_size"]["bytes"]["artifacts"] > 0
    reverted = pipeline(*quick(data, home))  # its Evaluator had run before: those outputs are removed
    assert reverted.code == 0, reverted.stderr
    ran = {node for node, state in reverted.states.items() if state == "ran"}
    assert ran == {"Evaluator", "InfraValidator", "Pusher"}
    assert {state for node, state in reverted.states.items() if node not in ran} == {"cached"}


def test_other_data_runs_by_configuration_alone_in_a_used_home(
    pipeline: Pipeline, first: Done, home: Path, tmp_path: Path
) -> None:
    folder = write_data_set(tmp_path / "data", train=600, test=100, size=16, suffix=".gz")
    sizes = ("--set", "data.image_height=16", "--set", "data.image_width=16", "--set", "train.hidden_layers=[32]")
    done = pipeline(*quick(folder, home, *sizes))
    assert done.code == 0, done.stderr
    assert all(check["baseline"] is None for check in done.json["checks"])  # the versions before have other sizes
    (line,) = (line for line in done.json["drift"] if line.startswith("mean_intensity[train against the data before]"))
    assert f"drift: {line}" in done.stderr  # and the run goes on
    version = done.json["pushed_version"]
    loaded = tf.saved_model.load(str(home / "serving_model" / "mnist" / version))
    images, labels = digits(100, seed=1, size=16)
    classes = loaded.signatures["serving_default"](images=tf.constant(images))["classes"].numpy()
    assert np.mean(classes == labels) == pytest.approx(done.json["metrics"]["test_accuracy"], abs=1e-6)
