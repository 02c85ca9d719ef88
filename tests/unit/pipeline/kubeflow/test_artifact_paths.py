from __future__ import annotations

import pytest

from pipeline.kubeflow.artifact_paths import local_path, with_uris


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://mlpipeline/v2/x/model", "/minio/mlpipeline/v2/x/model"),
        ("s3://bucket/x", "/s3/bucket/x"),
        ("gs://bucket/x", "/gcs/bucket/x"),
        ("/local/x", "/local/x"),
        ("other://x", "other://x"),
    ],
)
def test_uris_become_paths_of_the_launcher(uri: str, path: str) -> None:
    assert local_path(uri) == path


def test_paths_become_uris_again_at_any_depth_and_nulls_are_dropped() -> None:
    uris = {"/minio/b/model": "minio://b/model", "/minio/b/model_run": "minio://b/model_run"}
    value = {"uri": "/minio/b/model_run", "n": None, "l": ["/minio/b/model/x", 3, None], "d": {"m": "/elsewhere"}}
    expected = {"uri": "minio://b/model_run", "l": ["minio://b/model/x", 3], "d": {"m": "/elsewhere"}}
    assert with_uris(value, uris) == expected
