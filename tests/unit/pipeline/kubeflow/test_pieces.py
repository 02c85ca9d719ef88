"""The parts of pipeline/kubeflow that need neither TFX nor a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.common.errors import UsageError
from pipeline.kubeflow import api_client, runtime_parameters
from pipeline.kubeflow.artifact_paths import local_path, with_addresses
from pipeline.kubeflow.watch import last_words, tasks_of
from pipeline.kubeflow_settings import KubeflowSettings, Resources
from pipeline.settings import Settings
from tests.support.kfp_server import task


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("minio://mlpipeline/v2/x/model", "/minio/mlpipeline/v2/x/model"),
        ("s3://bucket/x", "/s3/bucket/x"),
        ("gs://bucket/x", "/gcs/bucket/x"),
        ("/local/x", "/local/x"),
        ("other://x", "other://x"),
    ],
)
def test_addresses_become_the_launcher_s_paths(address: str, path: str) -> None:
    assert local_path(address) == path


def test_paths_become_addresses_again_at_any_depth_and_nulls_go() -> None:
    addresses = {"/minio/b/model": "minio://b/model", "/minio/b/model_run": "minio://b/model_run"}
    value = {"uri": "/minio/b/model_run", "n": None, "l": ["/minio/b/model/x", 3, None], "d": {"m": "/elsewhere"}}
    expected = {"uri": "minio://b/model_run", "l": ["minio://b/model/x", 3], "d": {"m": "/elsewhere"}}
    assert with_addresses(value, addresses) == expected


def test_settings_survive_the_way_into_a_task() -> None:
    settings = runtime_parameters.changed(
        Settings(), {"train.steps": 7.0, "gate.min_accuracy": 0.5, "data.source": "/x"}
    )
    assert settings.train.steps == 7
    assert isinstance(settings.train.steps, int)  # KFP has only doubles
    back = runtime_parameters.from_json(runtime_parameters.to_json(settings))
    assert back == replace(settings, kubeflow=KubeflowSettings(volume_path=settings.kubeflow.volume_path))


@pytest.mark.parametrize(("setting", "value"), [("train.steps", 0), ("train.steps", 1.5), ("gate.min_accuracy", 2)])
def test_a_run_s_parameters_are_checked_like_settings(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=setting):
        runtime_parameters.changed(Settings(), {setting: value})


def test_every_runtime_setting_is_a_setting() -> None:
    for setting in runtime_parameters.RUNTIME_SETTINGS:
        assert runtime_parameters.value_of(Settings(), setting) is not None


def test_resources_fall_back_to_the_rest() -> None:
    settings = KubeflowSettings(resources=("*=500m,1Gi", "Trainer=2.5,8Gi"))
    assert settings.resources_of("Trainer") == Resources("2.5", "8Gi")
    assert settings.resources_of("Pusher") == Resources("500m", "1Gi")
    assert KubeflowSettings(resources=()).resources_of("Pusher") is None


def test_tasks_are_found_among_the_steps_of_a_workflow() -> None:
    steps = [*task("ExampleGen", "SUCCEEDED", cached=True), *task("Trainer", "FAILED", "killed", pod="pod-7")]
    found = tasks_of({"run_details": {"task_details": steps}}, ["ExampleGen", "Trainer", "Pusher"])
    assert set(found) == {"ExampleGen", "Trainer"}
    assert found["ExampleGen"].state == "cached"
    assert (found["Trainer"].state, found["Trainer"].message, found["Trainer"].pods[0]) == ("failed", "killed", "pod-7")
    assert tasks_of({}, ["Trainer"]) == {}


@pytest.mark.parametrize("log", ["", "mnist-tfx result: {half", "mnist-tfx result: 3", "something else"])
def test_a_log_without_a_result_says_nothing(log: str) -> None:
    assert last_words(log) == {}


def test_the_last_result_counts_whatever_is_printed_around_it() -> None:
    log = 'mnist-tfx result: {"exit_code": 1}\n2026-01-01 mnist-tfx result: {"exit_code": 0}\nI0101 launcher: done\n'
    assert last_words(log) == {"exit_code": 0}


def test_in_a_pod_the_server_and_the_token_are_those_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("of the service account")
    monkeypatch.setattr(api_client, "IN_CLUSTER_TOKEN", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    found = api_client.find(None, "team-a", None)
    assert (found.host, found.token()) == ("http://ml-pipeline.team-a.svc.cluster.local:8888", "of the service account")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert api_client.find("http://localhost:8888/", "", None) == api_client.Server("http://localhost:8888", None)
