"""Predicts digits over gRPC and optionally REST, and compares the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.common import contract
from components.common.errors import InputError
from serving.client import Client, connect
from serving.client.base import Metadata
from serving.client.digits import Digit, Selection
from serving.protocol.tensors import Array


class Predictions(NamedTuple):
    """Response over one transport: float32 [digits, classes], int64 [digits], and the duration of the request."""

    probabilities: Array
    classes: Array
    version: int
    milliseconds: float


@dataclass(frozen=True)
class Result:
    """Digits and their predictions by transport: "grpc" and, if requested, "rest"."""

    digits: Sequence[Digit]
    by_transport: Mapping[str, Predictions]

    def summary(self) -> dict[str, Any]:
        """Return counts, durations and, with REST, a comparison of the transports, as a JSON object."""
        grpc, rest = self.by_transport["grpc"], self.by_transport.get("rest")
        labels = {i: digit.label for i, digit in enumerate(self.digits) if digit.label is not None}
        summary: dict[str, Any] = {
            "model": contract.MODEL_NAME,
            "version": grpc.version,
            "asked": len(self.digits),
            "labelled": len(labels),
            "right": {
                name: sum(int(found.classes[i]) == label for i, label in labels.items())
                for name, found in self.by_transport.items()
            },
            "milliseconds": {name: round(found.milliseconds, 2) for name, found in self.by_transport.items()},
        }
        if rest is not None:
            summary["versions"] = {"grpc": grpc.version, "rest": rest.version}
            difference = float(abs(grpc.probabilities - rest.probabilities).max())
            summary["max_difference"] = difference
            summary["same_classes"] = bool((grpc.classes == rest.classes).all())
            summary["identical"] = difference == 0 and summary["same_classes"]
        return summary

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON object per digit."""
        return [
            {
                "name": digit.name,
                "index": digit.index,
                "label": digit.label,
                **{
                    name: {"class": int(found.classes[i]), "probabilities": found.probabilities[i].tolist()}
                    for name, found in self.by_transport.items()
                },
            }
            for i, digit in enumerate(self.digits)
        ]


def query(
    select: Callable[[int], Selection],
    grpc_address: str,
    rest_address: str | None = None,
    *,
    version: int | None = None,
    label: str | None = None,
) -> Result:
    """Read the digits and predict them over gRPC and, with `rest_address`, over REST; all with the same version.

    Args:
        select: returns the digits to read for the version that is served.
        version, label: the version to use; by default the newest.

    Raises:
        UserError: InputError for files, and if the served version changes in two attempts; UsageError for indices;
            ServingClientError for failed requests.
    """
    for _ in range(2):
        with connect(grpc_address) as client:
            metadata = client.metadata(contract.MODEL_NAME, version, label)
            selection = select(metadata.version)
            digits = selection.read(input_size(metadata) if selection.files else None)
            by_transport = {"grpc": predict(client, digits, version, label)}
        if rest_address is not None:
            with connect(rest_address) as client:
                by_transport["rest"] = predict(client, digits, version, label)
        versions = {metadata.version, *(found.version for found in by_transport.values())}
        if len(versions) == 1:
            return Result(digits, by_transport)
    raise InputError(
        f"versions {sorted(versions)} answered: the served version changes", "Try again, or name one: --version N"
    )


def input_size(metadata: Metadata) -> tuple[int, int] | None:
    """Return the (height, width) in pixels that the model requires; None if it accepts any. Raises InputError."""
    signature = metadata.signatures.get(contract.SERVING_DEFAULT)
    if signature is None or contract.IMAGES not in signature.inputs:
        raise InputError(
            f"model {metadata.model} version {metadata.version} has no signature {contract.SERVING_DEFAULT!r} "
            f"with an input {contract.IMAGES!r}",
            "The model was not trained by this product.",
        )
    sizes = [dim.size for dim in signature.inputs[contract.IMAGES].tensor_shape.dim]
    return (sizes[1], sizes[2]) if len(sizes) == 3 and min(sizes[1:]) > 0 else None


def predict(client: Client, digits: Sequence[Digit], version: int | None, label: str | None) -> Predictions:
    """Predict all digits in one request. Raises InputError, ServingClientError."""
    shapes = {digit.image.shape for digit in digits}
    if len(shapes) > 1:
        raise InputError(f"images of different sizes: {', '.join(f'{h} x {w}' for h, w in sorted(shapes))} pixels")
    images = np.stack([digit.image for digit in digits])
    started = time.perf_counter()
    outputs, served = client.predict({contract.IMAGES: images}, model=contract.MODEL_NAME, version=version, label=label)
    milliseconds = (time.perf_counter() - started) * 1e3
    try:
        return Predictions(outputs[contract.PROBABILITIES], outputs[contract.CLASSES], served, milliseconds)
    except KeyError as e:
        raise InputError(
            f"model {contract.MODEL_NAME} returns {sorted(outputs)}, not {e}",
            "The model was not trained by this product.",
        ) from e
