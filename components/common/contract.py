"""Names, shapes and dtypes that training and serving share.

A raw example (tf.Example, written by ExampleGen):
    image:          bytes, height * width uint8 pixels, row by row, 0 background .. 255 ink
    label:          int64, 0 .. classes-1
    mean_intensity: float32, mean pixel / 255, 0..1
    ink_fraction:   float32, fraction of pixels above 127, 0..1
TFDV cannot read image bytes; the last two let it detect blank, inverted or rescaled images. The model does not use
them.

After Transform:
    pixels: float32 [batch, height * width]
    label:  int64 [batch]
"""

from typing import Final

MODEL_NAME: Final = "mnist"  # in URLs, requests and the folder of pushed versions

IMAGE: Final = "image"
LABEL: Final = "label"
MEAN_INTENSITY: Final = "mean_intensity"
INK_FRACTION: Final = "ink_fraction"

PIXELS: Final = "pixels"

TRAIN_SPLIT: Final = "train"
EVAL_SPLIT: Final = "eval"
TEST_SPLIT: Final = "test"
SPLITS: Final = (TRAIN_SPLIT, EVAL_SPLIT, TEST_SPLIT)

# Signatures of the SavedModel, with their inputs ...
SERVING_DEFAULT: Final = "serving_default"
IMAGES: Final = "images"  # uint8 [batch, height, width], raw pixels 0..255
SERVING_EXAMPLES: Final = "serving_examples"
EXAMPLES: Final = "inputs"  # string [batch], serialized tf.Example with `image`; Classify requires this name
SERVING_ENCODED: Final = "serving_encoded"
ENCODED_IMAGES: Final = "encoded_images"  # string [batch], PNG or JPEG of any size

# ... and outputs. `serving_default` and `serving_encoded` return the first two. `serving_examples` returns what
# TensorFlow Serving's Classify requires: scores float32 and classes string, both [batch, classes].
PROBABILITIES: Final = "probabilities"  # float32 [batch, classes], rows sum to 1
CLASSES: Final = "classes"  # int64 [batch]
SCORES: Final = "scores"

MAX_PIXEL: Final = 255

# Files in the artifacts of our components, for readers that have neither TensorFlow nor TFMA.
HISTORY_FILE: Final = "history.json"  # in ModelRun: loss by step, accuracies, settings, seconds
MANIFEST_PROPERTY: Final = "manifest_sha256"  # of PushedModel: reveals later edits of the manifest
DRIFT_FILE: Final = "drift.json"  # in ExampleAnomalies: drift and skew of each feature with its bound, as a verdict
VERDICT_FILE: Final = "verdict.json"  # in ModelBlessing and InfraBlessing: blessed, checks, metrics
MODEL_CARD_FILE: Final = "model_card.json"  # in a pushed version, as the next one: the model card
README_FILE: Final = "README.md"
ABSENT_FILE: Final = "absent.txt"  # marks an artifact as absent; an optional input with this file is ignored
# Parameter of the Pusher, JSON {"tampered": [versions], "unrecorded": [versions]}: see pipeline/integrity.py.
UNVERIFIED_VERSIONS: Final = "unverified_versions"
