"""Object-store addresses of artifacts and where KFP's launcher keeps its local copies of them.

The launcher downloads a task's inputs before it starts and uploads its outputs when it has ended; neither TensorFlow
nor Beam needs to reach the store. `minio://bucket/key` is at `/minio/bucket/key`, `gs://` at `/gcs`, `s3://` at `/s3`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

MOUNTS: Final = {"gs://": "gcs", "minio://": "minio", "s3://": "s3"}
RUN_ID_VARIABLE: Final = "KFP_RUN_ID"  # the pod's environment names the run, by the platform spec
ROOT_VARIABLE: Final = "MNIST_TFX_LAUNCHER_ROOT"  # for tests, which cannot write to /; unset in a pod


def local_path(address: str) -> str:
    """Where the launcher keeps an artifact; a path that is local already, or unknown to it, stays as it is."""
    for scheme, mount in MOUNTS.items():
        if address.startswith(scheme):
            return str(Path(os.environ.get(ROOT_VARIABLE, "/"), mount, address.removeprefix(scheme)))
    return address


def with_addresses(value: Any, addresses: Mapping[str, str]) -> Any:
    """`value` with every local path replaced by its address, in strings at any depth; nulls are dropped.

    KFP's launcher refuses metadata that is null, and a path of a pod means nothing to the next one.

    Args:
        addresses: remote address by local path.
    """
    if isinstance(value, str):
        for path in sorted(addresses, key=len, reverse=True):  # a path may be the beginning of another
            value = value.replace(path, addresses[path])
        return value
    if isinstance(value, Mapping):
        return {key: with_addresses(item, addresses) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [with_addresses(item, addresses) for item in value if item is not None]
    return value
