"""Ask a server about many images over both transports, keep its answers and how long they took.

For those who hold a server to account: the InfraValidator before a model is pushed, `validate` afterwards.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from components.common import contract
from components.common.errors import InputError
from serving.client import Client, connect
from serving.protocol.tensors import Array

BATCH: Final = 500  # images a request, for those that are not asked about one by one


class Timed(NamedTuple):
    """Answers float32 [images, classes], milliseconds of each single-image request, and the versions that answered."""

    probabilities: Array
    latencies_ms: list[float]
    versions: set[int]


def load_images(path: Path) -> Array:
    """uint8 [n, height, width] from a .npy file. Raises InputError."""
    try:
        images: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be read as a .npy file ({e})") from e
    if images.dtype != np.uint8 or images.ndim != 3 or not len(images):
        raise InputError(f"{path}: {images.dtype} {list(images.shape)}, expected uint8 [n, height, width], n above 0")
    return images


def ask(client: Client, images: Array, singles: int, version: int | None = None, label: str | None = None) -> Timed:
    """The first `singles` images one by one, the rest in batches.

    Raises:
        InputError: a request failed, or was answered in another shape; names its images.
    """
    singles = min(singles, len(images))
    cuts = [*range(singles), *range(singles, len(images), BATCH), len(images)]
    answers, latencies, versions = [], [], set()
    for start, stop in itertools.pairwise(cuts):
        began = time.perf_counter()
        try:
            answer = client.predict(
                {contract.IMAGES: images[start:stop]}, model=contract.MODEL_NAME, version=version, label=label
            )
            probabilities = answer.outputs[contract.PROBABILITIES]
            if len(probabilities) != stop - start:
                raise ValueError(f"{len(probabilities)} answers for {stop - start} images")
        except Exception as e:
            raise InputError(f"{client.address}: the request for images {start} to {stop - 1} failed: {e}") from e
        if start < singles:
            latencies.append((time.perf_counter() - began) * 1e3)
        answers.append(probabilities)
        versions.add(answer.version)
    return Timed(np.concatenate(answers), latencies, versions)


def replay(
    images: Path, output: Path, grpc_address: str, rest_address: str, singles: int, label: str | None = None
) -> dict[str, Any]:
    """Ask about all images over gRPC, about the first `singles` over REST too; write the answers, return the report.

    The answers go to `output`, an .npz with `grpc` float32 [n, classes] and `rest` float32 [singles, classes].

    Raises:
        InputError: no such file, a request failed, or more than one version answered.
    """
    asked = load_images(images)
    with connect(grpc_address) as client:
        client.predict(
            {contract.IMAGES: asked[:1]}, model=contract.MODEL_NAME, label=label
        )  # the connection's own time
        grpc = ask(client, asked, singles, label=label)
    (version, *others) = sorted(grpc.versions)
    with connect(rest_address) as client:
        rest = ask(client, asked[:singles], singles, version=version)
    if others:
        raise InputError(f"versions {version}, {others} answered: the server changed in between", "Try again.")
    temporary = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(temporary, grpc=grpc.probabilities, rest=rest.probabilities)
    temporary.replace(output)
    return {"version": version, "images": len(asked), "grpc": _summary(grpc), "rest": _summary(rest)}


def _summary(timed: Timed) -> dict[str, float]:
    p50, p99 = np.percentile(timed.latencies_ms, [50, 99])
    return {"requests": len(timed.latencies_ms), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
