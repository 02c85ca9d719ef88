"""The preprocessing that training and serving share: image bytes become normalised, flat pixels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components import contract


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """tf.Transform entry point; its graph travels inside the exported model.

    Args:
        inputs: image: string [batch, 1], `pixels` uint8 each; label: int64 [batch, 1].
        custom_config: {"pixels": height * width of an image}

    Returns:
        pixels: float32 [batch, height * width], 0..1; label: int64 [batch]
    """
    raw = tf.io.decode_raw(tf.reshape(inputs[contract.IMAGE], [-1]), tf.uint8)  # uint8 [batch, pixels]
    flat = tf.reshape(raw, [-1, custom_config["pixels"]])
    return {
        contract.PIXELS: tf.cast(flat, tf.float32) / contract.MAX_PIXEL,
        contract.LABEL: tf.reshape(inputs[contract.LABEL], [-1]),
    }
