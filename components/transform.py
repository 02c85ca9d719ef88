"""The preprocessing that training and serving share: image bytes become normalised, flat pixels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components import contract


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """tf.Transform entry point; its graph travels inside the exported model.

    Args:
        inputs: image: string [batch, 1], `pixels` uint8 each; label: int64 [batch, 1].
        custom_config: {"pixels": height * width of an image, "scaling": TransformSettings.scaling ("unit" if absent)}

    Returns:
        pixels: float32 [batch, height * width], range as the scaling says; label: int64 [batch]
    """
    raw = tf.io.decode_raw(tf.reshape(inputs[contract.IMAGE], [-1]), tf.uint8)  # uint8 [batch, pixels]
    unit = tf.cast(tf.reshape(raw, [-1, custom_config["pixels"]]), tf.float32) / contract.MAX_PIXEL  # 0..1
    return {
        contract.PIXELS: _scaled(unit, custom_config.get("scaling", "unit")),
        contract.LABEL: tf.reshape(inputs[contract.LABEL], [-1]),
    }


def _scaled(unit: tf.Tensor, scaling: str) -> tf.Tensor:
    """float32 [batch, pixels], 0..1 -> the same shape; one scale and one offset for all pixels.

    The Trainer relies on that: it augments raw pixels and then scales them (see training_data.pixel_scale).
    """
    if scaling == "unit":
        return unit
    if scaling == "symmetric":
        return 2.0 * unit - 1.0
    # Two numbers per image reach the analyzer, not all its pixels: mean and mean square, [batch, 2].
    per_image = tf.stack([tf.reduce_mean(unit, axis=1), tf.reduce_mean(tf.square(unit), axis=1)], axis=1)
    moments = tft.mean(per_image, reduce_instance_dims=False)  # [2], over the train split
    variance = moments[1] - tf.square(moments[0])
    deviation = tf.where(variance > 0, tf.sqrt(variance), 1.0)  # 1 if all pixels of all images are equal
    return (unit - moments[0]) / deviation
