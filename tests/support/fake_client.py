"""A serving client without a server: a model that recognises the bars of tests/support/synthetic.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.common import contract
from serving.client.base import Client, Metadata, Prediction, VersionStatus
from serving.protocol import serving_pb2 as pb


class FakeClient(Client):
    """Classifies images by their brightest row; `size` is the model's input size in pixels.

    Attributes:
        specs: the model specs of all requests so far.
        shift: added to each predicted class, to make it wrong.
    """

    def __init__(self, address: str = "fake", *, version: int = 7, size: int = 8, shift: int = 0) -> None:
        super().__init__(address)
        self.version, self.size, self.shift = version, size, shift
        self.specs: list[pb.ModelSpec] = []

    def close(self) -> None:
        pass

    def _predict(self, spec: pb.ModelSpec, inputs: Mapping[str, Any], timeout_s: float) -> Prediction:
        self.specs.append(spec)
        rows = np.asarray(inputs[contract.IMAGES]).mean(axis=2, dtype=np.float32) / 255
        rows = np.roll(rows, self.shift, axis=1)
        probabilities = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
        outputs = {contract.PROBABILITIES: probabilities, contract.CLASSES: probabilities.argmax(axis=1)}
        return Prediction(outputs, self.version)

    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]:
        return [VersionStatus(self.version, "AVAILABLE", "OK", "")]

    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata:
        self.specs.append(spec)
        signature = pb.SignatureDef()
        info = signature.inputs[contract.IMAGES]
        info.dtype = pb.DT_UINT8
        for size in (-1, self.size, self.size):
            info.tensor_shape.dim.add(size=size)
        return Metadata(spec.name, self.version, {contract.SERVING_DEFAULT: signature})
