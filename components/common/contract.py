"""Names, shapes and dtypes that training and serving share. No TensorFlow import.

A raw example (tf.Example, written by ExampleGen):
    image:          bytes, height * width uint8 pixels, row by row, 0 background .. 255 ink
    label:          int64, 0 .. classes-1
    mean_intensity: float32, mean pixel / 255, 0..1
    ink_fraction:   float32, share of pixels brighter than half, 0..1
The two summaries exist for TFDV, which cannot look into image bytes: they make a blank, inverted or
rescaled image visible. The model does not read them.

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
EXAMPLES: Final = "inputs"  # string [batch], serialized tf.Example holding `image`; Classify looks for this name
SERVING_ENCODED: Final = "serving_encoded"
ENCODED_IMAGES: Final = "encoded_images"  # string [batch], PNG or JPEG of any size

# ... and outputs. `serving_default` and `serving_encoded` answer the first two; `serving_examples`
# answers what TensorFlow Serving's Classify looks for: scores float32 and classes string, both [batch, classes].
PROBABILITIES: Final = "probabilities"  # float32 [batch, classes], rows sum to 1
CLASSES: Final = "classes"  # int64 [batch]
SCORES: Final = "scores"

MAX_PIXEL: Final = 255

# Files that our components leave in their artifacts, for readers that have neither TensorFlow nor TFMA.
HISTORY_FILE: Final = "history.json"  # in ModelRun: loss by step, accuracies, settings, seconds
TAKES_FILE: Final = "takes.json"  # in Model, beside the SavedModel: image size and number of classes
MANIFEST_PROPERTY: Final = "manifest_sha256"  # of PushedModel: a manifest edited later is noticed
VERDICT_FILE: Final = "verdict.json"  # in ModelBlessing and InfraBlessing: blessed, checks, metrics
ABSENT_FILE: Final = "absent.txt"  # in an artifact that stands for none; an optional input holding it is left out
# Parameter of the Pusher, JSON {"untrue": [versions that it must not take for its own push], "unrecorded": [...]}.
DOUBTFUL_VERSIONS: Final = "doubtful_versions"
