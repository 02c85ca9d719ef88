"""Predicts many images over both transports, and saves the predictions and latencies.

InfraValidator uses this before a model is pushed, `validate` afterwards.
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

BATCH: Final = 500  # images per request, for images that are not sent one at a time


class Timed(NamedTuple):
    """Probabilities float32 [images, classes], milliseconds of each single-image request, and the versions served."""

    probabilities: Array
    latencies_ms: list[float]
    versions: set[int]


def load_images(path: Path) -> Array:
    """Read uint8 [n, height, width] from a .npy file. Raises InputError."""
    try:
        images: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"{path}: cannot be read as a .npy file ({e})") from e
    if images.dtype != np.uint8 or images.ndim != 3 or not len(images):
        raise InputError(f"{path}: {images.dtype} {list(images.shape)}, expected uint8 [n, height, width] with n > 0")
    return images


def predict_timed(
    client: Client, images: Array, singles: int, version: int | None = None, label: str | None = None
) -> Timed:
    """Predict the first `singles` images one at a time, the rest in batches.

    Raises:
        InputError: a request failed, or a response has the wrong shape; the message names the images.
    """
    singles = min(singles, len(images))
    cuts = [*range(singles), *range(singles, len(images), BATCH), len(images)]
    predicted, latencies, versions = [], [], set()
    for start, stop in itertools.pairwise(cuts):
        began = time.perf_counter()
        try:
            outputs, served = client.predict(
                {contract.IMAGES: images[start:stop]}, model=contract.MODEL_NAME, version=version, label=label
            )
            probabilities = outputs[contract.PROBABILITIES]
            if len(probabilities) != stop - start:
                raise ValueError(f"{len(probabilities)} predictions for {stop - start} images")
        except Exception as e:
            raise InputError(f"{client.address}: the request for images {start} to {stop - 1} failed: {e}") from e
        if start < singles:
            latencies.append((time.perf_counter() - began) * 1e3)
        predicted.append(probabilities)
        versions.add(served)
    return Timed(np.concatenate(predicted), latencies, versions)


def replay(
    images: Path,
    output: Path,
    grpc_address: str,
    rest_address: str,
    singles: int,
    label: str | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """Predict all images over gRPC, and the first `singles` also over REST; return a report.

    Writes the probabilities to `output`, an .npz: `grpc` float32 [n, classes] and `rest` float32 [singles, classes].

    Raises:
        InputError: no such file, a request failed, or the server switched versions.
    """
    pixels = load_images(images)
    with connect(grpc_address) as client:
        # Connect before the first timed request.
        client.predict({contract.IMAGES: pixels[:1]}, model=contract.MODEL_NAME, version=version, label=label)
        grpc = predict_timed(client, pixels, singles, version, label)
    (served, *others) = sorted(grpc.versions)
    if others:
        raise InputError(f"the server switched versions during the replay: {[served, *others]}", "Try again.")
    with connect(rest_address) as client:
        rest = predict_timed(client, pixels[:singles], singles, version=served)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(temporary, grpc=grpc.probabilities, rest=rest.probabilities)
    temporary.replace(output)
    return {"version": served, "images": len(pixels), "grpc": _summary(grpc), "rest": _summary(rest)}


def _summary(timed: Timed) -> dict[str, float]:
    p50, p99 = np.percentile(timed.latencies_ms, [50, 99])
    return {"requests": len(timed.latencies_ms), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
