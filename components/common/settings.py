"""The components' settings, validated on creation. Light imports, so invalid values fail at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from components.common.errors import UsageError

REAL_MNIST: Final = "mnist"
MAX_WHOLE: Final = 2**31 - 1  # TensorFlow's int32
MAX_REPEAT: Final = 10_000
BACKENDS: Final = ("auto", "container", "binary", "embedded")
SCALINGS: Final = ("unit", "symmetric", "standard")
ON_DRIFT: Final = ("warn", "stop")
UNBOUNDED_AUGMENTATIONS: Final = ("shift_pixels", "rotation_degrees", "shear", "elastic_pixels")
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {  # the values that TrainSettings allows
    "optimizer": ("adamw", "momentum", "sgd"),
    "schedule": ("cosine", "constant"),
    "loss_reduction": ("mean", "sum"),
    "activation": ("sigmoid", "relu", "tanh", "gelu"),
    "keep": ("last", "best"),
    "strategy": ("none", "mirrored", "multi_worker"),
}


@dataclass(frozen=True)
class DataSettings:
    """The data set, and the bounds of the schema.

    Attributes:
        source: "mnist" for the real 60,000 + 10,000 images, or a folder with IDX files (plain or gzip).
        image_height, image_width: size of every image, in pixels.
        classes: number of classes; labels are 0 .. classes-1.
        class_names: what the labels mean, in their order, for people to read; empty for the labels themselves.
        eval_examples: size of the eval split, taken from the end of the training file; 0: a tenth of the file, at most
            5,000.
        repeat: how many times the train split is written, for measurements with more data.
        min_mean_intensity, max_mean_intensity: bounds of an image's mean pixel / 255 in the schema, 0..1.
        on_drift: whether data that differs more from the train split, or from the data before, than the schema allows
            is reported ("warn") or ends the run ("stop").
    """

    source: str = REAL_MNIST
    image_height: int = 28
    image_width: int = 28
    classes: int = 10
    class_names: tuple[str, ...] = ()
    eval_examples: int = 0
    repeat: int = 1
    # The 70,000 MNIST images have 0.025 to 0.398; inverted, they have at least 0.602.
    min_mean_intensity: float = 0.01
    max_mean_intensity: float = 0.5
    on_drift: str = "warn"

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise UsageError("data.source is empty", 'Use "mnist", or name a folder with four IDX files.')
        for key in ("image_height", "image_width", "classes"):
            _check_whole(f"data.{key}", getattr(self, key), 1)
        object.__setattr__(self, "class_names", tuple(self.class_names))  # JSON has only lists
        _check_class_names(self.class_names, self.classes)
        _check_whole("data.eval_examples", self.eval_examples, 0)
        _check_whole("data.repeat", self.repeat, 1, MAX_REPEAT)
        if self.classes > 256:
            raise UsageError(f"data.classes is {self.classes}; it must be at most 256: an IDX label is one byte")
        if not 0 <= self.min_mean_intensity < self.max_mean_intensity <= 1:
            raise UsageError("data.min_mean_intensity and data.max_mean_intensity must satisfy 0 <= min < max <= 1")
        _check_one_of("data.on_drift", self.on_drift, ON_DRIFT)

    @property
    def pixels(self) -> int:
        return self.image_height * self.image_width

    def of_examples(self) -> dict[str, int]:
        """The settings that the examples depend on. Only these belong in the cache keys of nodes that use examples."""
        names = ("image_height", "image_width", "classes", "eval_examples", "repeat")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class TransformSettings:
    """The preprocessing that training and serving share.

    Attributes:
        scaling: range of the pixels: "unit" is 0..1, "symmetric" -1..1, "standard" mean 0 and variance 1 over all
            pixels of the train split (one more pass over the data).
    """

    scaling: str = "standard"

    def __post_init__(self) -> None:
        _check_one_of("transform.scaling", self.scaling, SCALINGS)


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        steps: optimizer steps.
        batch_size: examples per step, over all workers.
        optimizer: "adamw", "momentum" or "sgd".
        learning_rate: peak rate, reached after `warmup_steps`.
        schedule: after the warm-up, "cosine" down to 0, or "constant".
        warmup_steps: steps of linear warm-up.
        momentum: for optimizer "momentum".
        weight_decay: decoupled decay of the weight matrices (adamw).
        loss_reduction: "mean" or "sum" of the cross-entropy over the batch; "sum" equals "mean" with batch_size times
            the learning rate.
        hidden_layers: units of each hidden layer.
        activation: for the hidden layers: "sigmoid", "relu", "tanh" or "gelu".
        augment_shift_pixels, augment_rotation_degrees, augment_scale, augment_shear: largest random shift, rotation,
            change of size and shear of a training image, uniform in both directions; 0 disables it.
        augment_elastic_pixels: standard deviation of a smooth random displacement of the pixels; 0 disables it.
        eval_every_steps: steps between evaluations on the eval split; the last step is always evaluated.
        keep: the weights to export, from the "last" step or from the "best" evaluation.
        checkpoint_every_steps: steps between checkpoints; SIGTERM writes one, too. 0 disables checkpoints.
        checkpoint_folder: empty for `checkpoints` in the Trainer's artifact folder.
        resident_max_mb: a train split of at most this size as uint8, and of at most an eighth of the memory, is kept in
            memory; a larger one is streamed.
        shards: slices of a batch that are computed in parallel, each on an equal share of the cores. Their number
            affects the rounding of sums, and so the weights.
        strategy: "none" (one device), "mirrored" (all GPUs of this machine) or "multi_worker" (by TF_CONFIG).
        allow_missing_classes: whether a class may have no example in the train split.
        seed: for initial weights, batch order and augmentation; the same seed, data and machine give the same weights.
    """

    steps: int = 3000
    batch_size: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 0.005
    schedule: str = "cosine"
    warmup_steps: int = 100
    momentum: float = 0.9
    weight_decay: float = 0.2
    loss_reduction: str = "mean"
    hidden_layers: tuple[int, ...] = (128, 256)
    activation: str = "sigmoid"
    augment_shift_pixels: float = 1.0
    augment_rotation_degrees: float = 7.0
    augment_scale: float = 0.07
    augment_shear: float = 0.07
    augment_elastic_pixels: float = 0.6
    eval_every_steps: int = 500
    keep: str = "last"
    checkpoint_every_steps: int = 500
    checkpoint_folder: str = ""
    resident_max_mb: int = 1024
    shards: int = 2
    strategy: str = "none"
    allow_missing_classes: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_layers", tuple(self.hidden_layers))  # JSON has only lists
        for key in ("steps", "batch_size", "eval_every_steps", "shards"):
            _check_whole(f"train.{key}", getattr(self, key), 1)
        for key in ("warmup_steps", "checkpoint_every_steps", "resident_max_mb", "seed"):
            _check_whole(f"train.{key}", getattr(self, key), 0)
        for units in self.hidden_layers:
            _check_whole("train.hidden_layers", units, 1)
        for key, allowed in CHOICES.items():
            _check_one_of(f"train.{key}", getattr(self, key), allowed)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"train.learning_rate is {self.learning_rate}; it must be above 0")
        for key in ("momentum", "augment_scale"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"train.{key} is {getattr(self, key)}; it must be at least 0 and below 1")
        for key in ("weight_decay", *(f"augment_{kind}" for kind in UNBOUNDED_AUGMENTATIONS)):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) >= 0):
                raise UsageError(f"train.{key} is {getattr(self, key)}; it must be 0 or above")


@dataclass(frozen=True)
class GateSettings:
    """Thresholds on the test split for blessing a model.

    Attributes:
        min_accuracy: lowest allowed overall accuracy, 0..1.
        min_class_recall: lowest allowed recall of any class, 0..1.
        max_accuracy_drop: largest allowed drop in overall accuracy from the baseline, 0..1.
        significance: above 0, it replaces max_accuracy_drop: a model is refused if it is worse than the baseline beyond
            chance, and a model as good as the baseline is refused with at most this probability, 0..1.
    """

    min_accuracy: float = 0.97
    min_class_recall: float = 0.95
    max_accuracy_drop: float = 0.005
    significance: float = 0.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise UsageError(f"gate.{key} is {value}; it must be between 0 and 1")


@dataclass(frozen=True)
class InfraSettings:
    """Thresholds of infra validation: a real server loads the exported model and predicts the test split.

    Attributes:
        requests: number of single-image requests over gRPC, and again over REST, that measure the latency.
        max_p99_ms: largest allowed 99th percentile of their latency, in milliseconds.
        max_load_s: longest allowed time from the start of the server until the model is AVAILABLE, in seconds.
        max_size_bytes: largest allowed size of the SavedModel.
    """

    requests: int = 200
    max_p99_ms: float = 250.0
    max_load_s: float = 60.0
    max_size_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        for key in ("requests", "max_size_bytes"):
            _check_whole(f"infra.{key}", getattr(self, key), 1)
        for key in ("max_p99_ms", "max_load_s"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise UsageError(f"infra.{key} is {getattr(self, key)}; it must be above 0")


@dataclass(frozen=True)
class ServingSettings:
    """The model server.

    Attributes:
        backend: "container", "binary" (tensorflow_model_server), "embedded", or "auto": the first available of these.
    """

    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UsageError(f"serving.backend is '{self.backend}'; it must be one of {', '.join(BACKENDS)}")


@dataclass(frozen=True)
class PushSettings:
    """Retention of pushed versions.

    Attributes:
        keep_versions: number of newest versions to keep; older ones are deleted unless a label uses them.
    """

    keep_versions: int = 5

    def __post_init__(self) -> None:
        _check_whole("push.keep_versions", self.keep_versions, 1)


@dataclass(frozen=True)
class HomeSettings:
    """Retention of local runs.

    Attributes:
        keep_runs: number of newest runs whose artifacts and logs are kept; 0 keeps all. Of an older run, its record in
            MLMD and what a pushed version needs are kept.
    """

    keep_runs: int = 10

    def __post_init__(self) -> None:
        _check_whole("home.keep_runs", self.keep_runs, 0)


def _check_whole(key: str, value: int, least: int, most: int = MAX_WHOLE) -> None:
    if not least <= value <= most:
        raise UsageError(f"{key} is {value}; it must be between {least:,} and {most:,}")


def _check_class_names(names: Sequence[str], classes: int) -> None:
    if not names:
        return
    if len(names) != classes:
        raise UsageError(
            f"data.class_names has {len(names)} names, but data.classes is {classes}",
            "Give one name for each label, in the order of the labels.",
        )
    for name in names:
        if not name.strip() or not name.isprintable() or names.count(name) > 1:
            raise UsageError(
                f"data.class_names contains {name!r}; names must be printable, not empty, and all different"
            )


def _check_one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{key} is '{value}'; it must be one of {', '.join(allowed)}")
