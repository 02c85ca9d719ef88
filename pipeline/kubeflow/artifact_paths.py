"""Map object-store URIs of artifacts to the local copies that KFP's launcher makes, and back.

The launcher downloads a task's inputs before the task starts and uploads its outputs after it ends, so TensorFlow and
Beam need no access to the store. `minio://bucket/key` is at `/minio/bucket/key`, `gs://` at `/gcs`, `s3://` at `/s3`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

MOUNTS: Final = {"gs://": "gcs", "minio://": "minio", "s3://": "s3"}
RUN_ID_VARIABLE: Final = "KFP_RUN_ID"  # set in the pod's environment by the platform spec
ROOT_VARIABLE: Final = "MNIST_TFX_LAUNCHER_ROOT"  # for tests, which cannot write to /; unset in a pod


def local_path(uri: str) -> str:
    """The path of the launcher's copy of an artifact; a URI without a known scheme is returned unchanged."""
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return str(Path(os.environ.get(ROOT_VARIABLE, "/"), mount, uri.removeprefix(scheme)))
    return uri


def with_uris(value: Any, uris: Mapping[str, str]) -> Any:
    """`value` with each local path in its strings, at any depth, replaced by the URI; nulls are dropped.

    KFP's launcher rejects metadata that is null, and other pods cannot use a path of this pod.

    Args:
        uris: URI by local path.
    """
    if isinstance(value, str):
        for path in sorted(uris, key=len, reverse=True):  # one path may be a prefix of another
            value = value.replace(path, uris[path])
        return value
    if isinstance(value, Mapping):
        return {key: with_uris(item, uris) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [with_uris(item, uris) for item in value if item is not None]
    return value
