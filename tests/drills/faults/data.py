"""Wrong training labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.data import idx
from tests.drills.faults.checks import NEWEST, expect, expect_exit, not_blessed
from tests.drills.probe import Probe
from tests.drills.product import Product, settings
from tests.support.synthetic import write_idx

DIGIT: Final = 3
EVAL_EXAMPLES: Final = 100  # data.eval_examples of configs/quick.toml


def poisoned_labels(product: Product, _: Probe) -> str:
    def shift_most(labels: Any) -> Any:
        return np.where(np.random.default_rng(0).random(len(labels)) < 0.6, (labels + 1) % 10, labels)

    return not_blessed(product, "accuracy[overall]", *NEWEST, data=_relabelled(product, shift_most))


def blind_to_one_digit(product: Product, _: Probe) -> str:
    data = _relabelled(product, lambda labels: np.where(labels == DIGIT, 5, labels))
    loose = ("gate.min_accuracy=0.8", "gate.max_accuracy_drop=0.2", "train.allow_missing_classes=true")
    happened = not_blessed(product, f"recall[{DIGIT}]", *settings("train.seed=2", *loose), data=data)
    expect("accuracy[" not in happened, f"the average should have passed: {happened}")
    expect_exit(product.validate(), 0, "validate")
    return f"{happened}; `validate`: exit 0 (of the version that answers)"


def _relabelled(product: Product, change: Callable[[Any], Any]) -> Path:
    """Return a copy of the data with wrong labels in the train split; the eval split and test set are unchanged."""
    folder = product.home.parent / "poisoned"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(product.data, folder)
    path = idx.locate(folder).train_labels
    labels = idx.read_labels(path)
    labels = np.concatenate([change(labels[:-EVAL_EXAMPLES]), labels[-EVAL_EXAMPLES:]])
    write_idx(path, labels.astype(np.uint8))
    return folder
