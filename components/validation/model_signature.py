"""The image size and the number of classes of a SavedModel, read from its serving signature."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from components.common import contract


class ModelSignature(NamedTuple):
    """What a model can be evaluated on: images uint8 [batch, image_height, image_width], labels 0 .. classes-1."""

    image_height: int
    image_width: int
    classes: int

    def __str__(self) -> str:
        return f"{self.image_height}x{self.image_width} pixels and {self.classes} classes"


def read(saved_model: Path) -> ModelSignature | None:
    """The shapes of `serving_default`; None if the files are missing or damaged, or it has no such signature."""
    parsed = saved_model_pb2.SavedModel()
    try:
        parsed.ParseFromString((saved_model / "saved_model.pb").read_bytes())
        signature = parsed.meta_graphs[0].signature_def[contract.SERVING_DEFAULT]
    except (OSError, DecodeError, IndexError):
        return None
    images = [dim.size for dim in signature.inputs[contract.IMAGES].tensor_shape.dim]
    probabilities = [dim.size for dim in signature.outputs[contract.PROBABILITIES].tensor_shape.dim]
    if len(images) != 3 or len(probabilities) != 2:
        return None
    return ModelSignature(images[1], images[2], probabilities[1])
