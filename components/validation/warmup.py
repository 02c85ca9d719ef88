"""Warm-up requests: a model server replays them when it loads a version, so that the first request is not slow."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from components.common import contract

FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")  # where TensorFlow Serving looks
BATCHES: Final = (1, 32)  # images per request: matrix products of one row run different code from those of several


def requests(images: npt.NDArray[np.uint8]) -> list[prediction_log_pb2.PredictionLog]:
    """One request per signature and batch size.

    Args:
        images: real images, uint8 [n, height, width], n at least 1; repeated to fill a batch.
    """
    logs = []
    for batch in BATCHES:
        some = np.resize(images, (batch, *images.shape[1:]))
        pngs = [tf.io.encode_png(image[..., np.newaxis]).numpy() for image in some]
        logs.append(_predict(contract.SERVING_DEFAULT, contract.IMAGES, some))
        logs.append(_predict(contract.SERVING_ENCODED, contract.ENCODED_IMAGES, np.array(pngs, np.object_)))
        logs.append(_classify(some))
    return logs


def write(saved_model: Path, logs: list[prediction_log_pb2.PredictionLog]) -> None:
    """Write the requests to assets.extra/tf_serving_warmup_requests of a SavedModel."""
    path = saved_model / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def _predict(signature: str, name: str, values: npt.NDArray[np.generic]) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _classify(images: npt.NDArray[np.uint8]) -> prediction_log_pb2.PredictionLog:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, contract.SERVING_EXAMPLES
    for image in images:
        example = request.input.example_list.examples.add()
        example.features.feature[contract.IMAGE].bytes_list.value.append(image.tobytes())
    return prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=request))
