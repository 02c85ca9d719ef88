"""Describes the signatures of a served model as JSON."""

from __future__ import annotations

from typing import Any

from serving.client.base import Metadata
from serving.protocol import serving_pb2 as pb


def describe(metadata: Metadata) -> dict[str, Any]:
    """Return {signature: {"inputs" | "outputs": {name: {"dtype", "shape"}}}}; "shape" is None for an unknown rank."""
    return {
        name: {
            direction: {
                alias: {
                    "dtype": pb.DataType.Name(info.dtype),
                    "shape": None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim],
                }
                for alias, info in sorted(getattr(signature, direction).items())
            }
            for direction in ("inputs", "outputs")
        }
        for name, signature in sorted(metadata.signatures.items())
    }
