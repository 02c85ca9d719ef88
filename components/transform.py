"""The preprocessing that training and serving share: image bytes become normalised, flat pixels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.transform.component import Transform as TfxTransform
from tfx.types.channel import BaseChannel

from components.common import contract
from components.common.settings import DataSettings, TransformSettings


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """tf.Transform entry point; the exported model contains its graph.

    Args:
        inputs: image: string [batch, 1], `pixels` uint8 each; label: int64 [batch, 1].
        custom_config: {"pixels": height * width of an image, "scaling": TransformSettings.scaling ("unit" if absent)}

    Returns:
        pixels: float32 [batch, height * width], in the range of the scaling; label: int64 [batch]
    """
    raw = tf.io.decode_raw(tf.reshape(inputs[contract.IMAGE], [-1]), tf.uint8)  # uint8 [batch, pixels]
    raw = tf.reshape(raw, [-1, custom_config["pixels"]])
    return {
        contract.PIXELS: _scaled(raw, custom_config.get("scaling", "unit")),
        contract.LABEL: tf.reshape(inputs[contract.LABEL], [-1]),
    }


def _scaled(raw: tf.Tensor, scaling: str) -> tf.Tensor:
    """uint8 [batch, pixels] -> float32 [batch, pixels]; one scale and one offset for all pixels.

    The Trainer relies on that: it augments raw pixels and then scales them (see components/training/input_pipeline.py).
    """
    unit = tf.cast(raw, tf.float32) / contract.MAX_PIXEL  # 0..1
    if scaling == "unit":
        return unit
    if scaling == "symmetric":
        return 2.0 * unit - 1.0
    mean, deviation = _moments(raw)
    return (unit - mean) / deviation


def _moments(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation of all pixels of the train split, on the scale 0..1: float32 scalars.

    Sums of whole numbers do not depend on the order in which Beam adds them up, so equal data gives equal weights. The
    analyzer reads three numbers per image instead of all pixels.
    """
    whole = tf.cast(raw, tf.int64)
    per_image = tf.stack(
        [tf.reduce_sum(whole, axis=1), tf.reduce_sum(whole * whole, axis=1), tf.ones_like(whole[:, 0])], axis=1
    )  # int64 [batch, 3]
    total, squares, images = tf.unstack(tf.cast(tft.sum(per_image, reduce_instance_dims=False), tf.float64), num=3)
    count = images * raw.shape[1]
    mean = total / count
    variance = squares / count - mean * mean
    deviation = tf.where(variance > 0, tf.sqrt(variance), float(contract.MAX_PIXEL))  # if all pixels are equal
    return tf.cast(mean / contract.MAX_PIXEL, tf.float32), tf.cast(deviation / contract.MAX_PIXEL, tf.float32)


class Transform(TfxTransform):
    """TFX component: Examples and Schema in, TransformGraph out. Runs `preprocessing_fn` over the train split."""

    def __init__(
        self, examples: BaseChannel, schema: BaseChannel, data: DataSettings, settings: TransformSettings
    ) -> None:
        super().__init__(
            examples=examples,
            schema=schema,
            preprocessing_fn="components.transform.preprocessing_fn",
            materialize=False,  # the Trainer applies the graph in memory: docs/decisions/0002
            disable_statistics=True,
            custom_config={"pixels": data.pixels, "scaling": settings.scaling},
        )
