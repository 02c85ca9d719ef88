"""A known-good model: if a server fails with it too, the fault is the server's or the machine's, not the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tensorflow as tf

from components.common import contract
from components.validation.model_signature import ModelSignature

# p99 of single images in ms on two idle cores; a slower answer means that the machine is busy.
REFERENCE_P99_MS: Final = {"grpc": 2.0, "rest": 3.0}


class ControlModel(tf.Module):
    """Returns the same probability for every class."""

    def __init__(self, signature: ModelSignature) -> None:
        super().__init__()
        self.probabilities = tf.Variable(tf.fill([1, signature.classes], 1.0 / signature.classes), trainable=False)
        images = tf.TensorSpec([None, signature.image_height, signature.image_width], tf.uint8, contract.IMAGES)
        self.serve = tf.function(self._serve, input_signature=[images])

    def _serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.repeat(self.probabilities, tf.shape(images)[0], axis=0)  # float32 [batch, classes]
        return {contract.PROBABILITIES: probabilities, contract.CLASSES: tf.argmax(probabilities, axis=1)}


def save(folder: Path, signature: ModelSignature) -> None:
    """Write the model for this image size and number of classes as a SavedModel."""
    model = ControlModel(signature)
    tf.saved_model.save(model, str(folder), signatures={contract.SERVING_DEFAULT: model.serve})
