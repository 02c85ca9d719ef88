from __future__ import annotations

import itertools
import shlex
from dataclasses import asdict, replace

import pytest

from components.common.settings import DataSettings, TrainSettings
from pipeline import settings as settings_module
from pipeline.report import training
from pipeline.settings import Settings
from tests.conftest import ROOT

HISTORY = {"history": [{"step": 1, "loss": 2.0, "eval_accuracy": None}, {"step": 2, "loss": 1.0, "eval_accuracy": 0.5}]}


def test_the_learning_curves_have_the_baselines_behind_them() -> None:
    loss, accuracy = training.curves(HISTORY, {"history": [{"step": 2, "loss": 3.0, "eval_accuracy": 0.4}]})
    assert [line.name for line in loss.lines] == ["baseline", "this run"]
    assert [len(line.dots) for line in loss.lines] == [1, 2]
    assert [len(line.dots) for line in accuracy.lines] == [1, 1]
    assert [len(chart.lines) for chart in training.curves(HISTORY, None)] == [1, 1]
    assert training.curves(None, HISTORY) == []
    assert training.curves({}, None) == []


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(
            data=DataSettings(source="/data/it's here", classes=3, class_names=("T-shirt/top", "Bag", 'quote"')),
            train=TrainSettings(hidden_layers=(7, 8), learning_rate=1e-05, allow_missing_classes=True, keep="best"),
        ),
        replace(Settings(), train=TrainSettings(hidden_layers=())),
    ],
)
def test_the_command_runs_with_the_same_settings_again(settings: Settings) -> None:
    words = shlex.split(training.reproduce(asdict(settings)))
    if words[0] == "make":
        words = [word for word in words if word.startswith("ARGS=")]
        words = shlex.split(words[0].removeprefix("ARGS=").replace("$$", "$")) if words else []
    overrides = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    assert settings_module.load(ROOT / "configs" / "default.toml", overrides) == settings


def test_settings_that_were_not_recorded_do_not_count_as_different() -> None:
    assert training.not_default({"train": {"steps": 5, "seed": 1}, "gone": {"key": 1}}) == {"train.steps": (3000, 5)}
    assert training.not_default(None) == {}
