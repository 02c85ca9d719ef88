"""A home with one finished run whose report has errors to show, without running a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.common import contract
from components.common.home import RESULT_FILE, Home
from components.validation import reference_predictions
from components.validation.reference_predictions import ReferencePredictions
from components.validation.verdict import Check, Verdict
from tests.support.recorded_home import RecordedHome

RUN = "20260101-000000-000"
HOSTILE = "<script>alert(1)</script>"  # as a class name: it must be shown as text
NODES = [
    {"id": "ExampleGen", "state": "cached", "seconds": 0.1, "reason": "same as run 20251231-000000-000"},
    {"id": "Trainer", "state": "ran", "seconds": 12.5, "reason": "train.steps 100 -> 200", "peak_mb": 900},
    {"id": "Evaluator", "state": "ran", "seconds": 3.0, "reason": "input Model is new", "peak_mb": 1200},
    {"id": "InfraValidator", "state": "ran", "seconds": 3.0},
    {"id": "Pusher", "state": "ran", "seconds": 0.2},
]


def predictions(classes: int = 3, count: int = 300, wrong: int = 40) -> ReferencePredictions:
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    answers = labels.copy()
    answers[:wrong] = (answers[:wrong] + 1) % classes
    probabilities = np.full((count, classes), 0.1, np.float32)
    probabilities[np.arange(count), answers] = random.uniform(0.5, 0.9, count)
    return ReferencePredictions(random.integers(0, 256, (count, 28, 28), np.uint8), labels, probabilities)


def only_result(root: Path, **changes: Any) -> Home:
    """A home that has nothing but the run's result, as for a run on Kubeflow or one that failed early."""
    home = Home(root)
    home.logs(RUN).mkdir(parents=True)
    result = {"run_id": RUN, "status": "failed", "seconds": 1.0} | changes
    (home.logs(RUN) / RESULT_FILE).write_text(json.dumps(result))
    return home


def with_evaluation(root: Path, class_names: tuple[str, ...] = ("zero", "one", HOSTILE)) -> Home:
    """A home with a pushed version and its evaluation."""
    home = RecordedHome(root)
    folders = home.run(RUN, version=7)
    answers = predictions(len(class_names))
    reference_predictions.write(answers, folders["Evaluator/evaluation"])
    checks = [Check("accuracy", "overall", answers.accuracy, 0.8, True, low=0.82, high=0.9)]
    slices = {"overall": {"sparse_categorical_accuracy": answers.accuracy, "example_count": float(len(answers.labels))}}
    Verdict(True, checks, metrics={"slices": slices}).write(folders["Evaluator/blessing"] / contract.VERDICT_FILE)
    load = Check("load_s", "overall", 1.5, 60.0, True, at_most=True)
    Verdict(True, [load]).write(folders["InfraValidator/blessing"] / contract.VERDICT_FILE)
    settings = {"data": {"source": "mnist", "classes": len(class_names), "class_names": list(class_names)}}
    result = {
        "run_id": RUN,
        "status": "pushed",
        "pushed_version": "7",
        "blessed": True,
        "infra_blessed": True,
        "metrics": {"test_accuracy": answers.accuracy},
        "nodes": NODES,
        "seconds": 20.0,
        "settings": settings,
        "data_sha256": {"train_images": "ab" * 32},
    }
    (home.logs(RUN) / RESULT_FILE).write_text(json.dumps(result))
    return home
