"""The SavedModel: a tf.Module with three signatures, each of which applies the Transform graph."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

from components.common import contract
from components.training.model import MLP

Tensors = dict[str, tf.Tensor]


class ServingModel(tf.Module):
    """Raw images in, probabilities out.

    Args:
        model: the trained network.
        transform_output: the Transform graph; loaded here, so that the export contains it.
        image_size: (height, width) of an image in pixels.
    """

    def __init__(self, model: MLP, transform_output: tft.TFTransformOutput, image_size: tuple[int, int]) -> None:
        super().__init__(name="serving_model")
        self.model = model
        self.transform = tf.saved_model.load(transform_output.transform_savedmodel_dir)
        self._raw_dtypes = {name: spec.dtype for name, spec in transform_output.raw_feature_spec().items()}
        self._image_size = image_size

    def _probabilities(self, raw_images: tf.Tensor) -> tf.Tensor:
        """string [batch], height * width uint8 pixels each -> float32 [batch, classes]"""
        batch = tf.size(raw_images)
        # The graph needs every raw feature as an input; the pixels do not depend on the others.
        features = {name: tf.zeros([batch, 1], dtype) for name, dtype in self._raw_dtypes.items()}
        features[contract.IMAGE] = tf.reshape(raw_images, [batch, 1])
        transformed = self.transform.transform_fn(features)
        return tf.nn.softmax(self.model(transformed[contract.PIXELS]))

    def serve_images(self, images: tf.Tensor) -> Tensors:
        """images: uint8 [batch, height, width], 0..255 -> probabilities, classes"""
        return _outputs(self._probabilities(_pack_pixels(images, self._image_size)))

    def serve_encoded(self, encoded_images: tf.Tensor) -> Tensors:
        """encoded_images: string [batch], PNG or JPEG of any size -> probabilities, classes"""
        images = tf.map_fn(self._decode, encoded_images, fn_output_signature=tf.uint8)
        return _outputs(self._probabilities(_pack_pixels(images, self._image_size)))

    def serve_examples(self, inputs: tf.Tensor) -> Tensors:
        """inputs: string [batch], serialized tf.Example -> scores float32, classes string, both [batch, classes]"""
        parsed = tf.io.parse_example(inputs, {contract.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        scores = self._probabilities(parsed[contract.IMAGE])
        labels = tf.strings.as_string(tf.range(tf.shape(scores)[1]))
        return {contract.SCORES: scores, contract.CLASSES: tf.broadcast_to(labels, tf.shape(scores))}

    def _decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """string scalar -> uint8 [height, width]"""
        image = tf.io.decode_image(encoded, channels=1, expand_animations=False)  # uint8 [h, w, 1]
        resized = tf.image.resize(image, self._image_size, antialias=True)  # float32, exact at the same size
        return tf.reshape(tf.cast(tf.round(resized), tf.uint8), self._image_size)


def _outputs(probabilities: tf.Tensor) -> Tensors:
    """float32 [batch, classes] -> probabilities, and classes int64 [batch]"""
    return {contract.PROBABILITIES: probabilities, contract.CLASSES: tf.argmax(probabilities, axis=1)}


def _pack_pixels(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """uint8 [batch, height, width] -> string [batch]: the inverse of tf.io.decode_raw, which TensorFlow lacks.

    A serialized TensorProto ends with its tensor_content (field 4, the last one set), which is the rows, all of equal
    length. This needs one memory copy; joining 784 one-byte strings takes five times longer.
    """
    pixels = image_size[0] * image_size[1]
    batch = tf.shape(images)[0]
    serialized = tf.io.serialize_tensor(tf.reshape(images, [batch, pixels]))
    starts = tf.strings.length(serialized) - (batch - tf.range(batch)) * pixels
    return tf.strings.substr(serialized, starts, tf.fill([batch], pixels))


def save(model: MLP, transform_output: tft.TFTransformOutput, image_size: tuple[int, int], folder: str) -> None:
    """Write the SavedModel with the signatures of contract.py into `folder`."""
    module = ServingModel(model, transform_output, image_size)
    inputs = {
        contract.SERVING_DEFAULT: (module.serve_images, tf.TensorSpec([None, *image_size], tf.uint8, contract.IMAGES)),
        contract.SERVING_ENCODED: (module.serve_encoded, tf.TensorSpec([None], tf.string, contract.ENCODED_IMAGES)),
        contract.SERVING_EXAMPLES: (module.serve_examples, tf.TensorSpec([None], tf.string, contract.EXAMPLES)),
    }
    signatures = {name: tf.function(method, input_signature=[spec]) for name, (method, spec) in inputs.items()}
    tf.saved_model.save(module, folder, signatures={n: f.get_concrete_function() for n, f in signatures.items()})
