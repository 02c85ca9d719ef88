from __future__ import annotations

from dataclasses import replace

import pytest

from components.common.errors import UsageError
from pipeline.kubeflow import runtime_parameters
from pipeline.kubeflow_settings import KubeflowSettings
from pipeline.settings import Settings


def test_settings_are_equal_after_the_round_trip_through_json() -> None:
    settings = runtime_parameters.changed(
        Settings(), {"train.steps": 7.0, "gate.min_accuracy": 0.5, "data.source": "/x"}
    )
    assert settings.train.steps == 7
    assert isinstance(settings.train.steps, int)  # KFP has only doubles
    back = runtime_parameters.from_json(runtime_parameters.to_json(settings))
    assert back == replace(settings, kubeflow=KubeflowSettings(volume_path=settings.kubeflow.volume_path))


@pytest.mark.parametrize(("setting", "value"), [("train.steps", 0), ("train.steps", 1.5), ("gate.min_accuracy", 2)])
def test_run_parameters_are_checked_like_settings(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=setting):
        runtime_parameters.changed(Settings(), {setting: value})
