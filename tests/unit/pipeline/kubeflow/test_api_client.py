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


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        ("http://localhost:8888", None),
        ("http://127.0.0.2:8888", None),
        ("http://[::1]:8888", None),
        ("http://kfp.internal.example", None),
        ("http://kfp.example", "http://proxy.example:3128"),
        ("https://kfp.example", "http://secure.example:3128"),
    ],
)
def test_the_proxy_is_the_environments_except_on_loopback(
    monkeypatch: pytest.MonkeyPatch, host: str, proxy: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure.example:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", ".internal.example")
    assert api_client.ApiClient(host).proxy() == proxy
