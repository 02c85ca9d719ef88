from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kubeflow import api_client


def test_in_a_pod_the_server_and_token_default_to_the_clusters_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("of the service account")
    monkeypatch.setattr(api_client, "IN_CLUSTER_TOKEN", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    client = api_client.from_options(None, "team-a", None)
    assert client.host == "http://ml-pipeline.team-a.svc.cluster.local:8888"
    assert client.token() == "of the service account"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    client = api_client.from_options("http://localhost:8888/", "", None)
    assert client == api_client.ApiClient("http://localhost:8888", None)
