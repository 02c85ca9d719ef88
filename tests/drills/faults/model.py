"""Training runs that go wrong."""

from __future__ import annotations

import shutil
from typing import Final

from components.common import ROOT
from tests.drills.faults.checks import expect, expect_exit, not_blessed
from tests.drills.probe import Probe
from tests.drills.product import Product, settings

EXPORT_LINE: Final = '    log.info("exporting the SavedModel")\n'  # of components/trainer.py
MAKE_NAN: Final = "    trained.model.weights[0].assign(trained.model.weights[0] * float('nan'))\n"


def diverging_training(product: Product, _: Probe) -> str:
    def exported() -> int:
        return len(list(product.home.glob("artifacts/Trainer/model/*/Format-Serving/saved_model.pb")))

    before = exported()
    done = product.run(*settings("train.seed=2", "train.optimizer=sgd", "train.learning_rate=1e39"))
    expect_exit(done, 1)
    expect("diverged" in done.json["error"], done.json["error"])
    expect(exported() == before, "a model was exported")
    return f"`run`: exit 1, {done.json['error'].splitlines()[0]}; nothing exported"


def nan_weights(product: Product, _: Probe) -> str:
    """The Trainer exports NaN (its source is changed in a copy), and all models pass the thresholds."""
    checkout = product.home.parent / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    for package in ("components", "pipeline", "serving", "configs"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    trainer = checkout / "components" / "trainer.py"
    source = trainer.read_text()
    expect(EXPORT_LINE in source, "components/trainer.py has changed: update EXPORT_LINE")
    trainer.write_text(source.replace(EXPORT_LINE, EXPORT_LINE + MAKE_NAN))
    no_thresholds = ("gate.min_accuracy=0", "gate.min_class_recall=0", "gate.max_accuracy_drop=1")
    return not_blessed(product, "finite answers", *settings("train.seed=2", *no_thresholds), checkout=checkout)
