"""The model card (Mitchell et al. 2019) of a version, as JSON in Model Card Toolkit's schema and as a README.

The README has the form of Hugging Face's model cards. Both are written from the same numbers as the verdict.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common import contract
from components.common.settings import REAL_MNIST
from components.validation import significance
from components.validation.verdict import OVERALL

SCHEMA_VERSION: Final = "0.0.2"
TEMPLATE: Final = "model_card.md.j2"
ACCURACY: Final = "sparse_categorical_accuracy"
COUNT: Final = "example_count"
PAPER: Final = "https://arxiv.org/abs/1810.03993"  # Mitchell et al., Model Cards for Model Reporting
MNIST_PAGE: Final = "https://huggingface.co/datasets/ylecun/mnist"

USERS: Final = ("Developers who try, teach or test a production pipeline with a small image classifier.",)
USES: Final = (
    "Classify single, centred, grey images of the size and kind that the model was trained on.",
    "Serve as a known model in tests of training, validation, serving and monitoring.",
)
OUT_OF_SCOPE: Final = (
    "Any decision about people or money, such as reading cheques, forms, postcodes or exams, without a human check.",
    "Images with several objects, colour, a photographed background, other sizes or other alphabets.",
)
FACTORS: Final = (
    "Results are given by class. The data do not record who made an image, or how: differences between groups of "
    "people or devices cannot be measured.",
    "Ink and background: the model expects light ink on a dark background, as in the data (0 background, 255 ink).",
)
LIMITATIONS: Final = (
    "Every image gets a class: there is no answer for an image that shows none of them.",
    "The probabilities are calibrated on the test split only; on other images a wrong answer can be confident.",
    "Intervals cover chance in the choice of the test images, not the change from this data to that of a user.",
)
TRADEOFFS: Final = ("A small fully connected network answers in microseconds; convolutional networks err less.",)
RISKS: Final = (
    (
        "The people behind the data do not represent all users: accuracy for other groups is unknown.",
        "Measure on images of your own users before relying on the model, and watch the drift of what is asked.",
    ),
    (
        "Handwriting can identify a person.",  # of MNIST only: the last one
        "The pipeline stores no requests unless their logging is switched on; treat logged images as personal data.",
    ),
)


@dataclass(frozen=True)
class Subject:
    """What the card describes.

    Attributes:
        version: the pushed version; "" if nothing was pushed.
        date: of the push or the run, ISO.
        commit: of the code, if known.
        settings: of the run, by section.
        slices: metrics by slice, "overall" or a class, as in the verdict.
        class_names: by class number; may be longer or shorter than the classes.
    """

    version: str
    run_id: str
    date: str
    commit: str | None
    settings: Mapping[str, Mapping[str, Any]]
    data_sha256: Mapping[str, str]
    slices: Mapping[str, Mapping[str, float]]
    class_names: Sequence[str] = ()


def card(subject: Subject) -> dict[str, Any]:
    """The card in Model Card Toolkit's schema: details, parameters, quantitative analysis, considerations."""
    data, train = subject.settings.get("data", {}), subject.settings.get("train", {})
    height, width = _size(data)
    hidden = " and ".join(str(units) for units in train.get("hidden_layers", ())) or "no"
    layers = f"Multilayer perceptron with {hidden} hidden units, {train.get('activation', 'unknown activation')}"
    steps = f"{train.get('steps', '?')} steps of {train.get('batch_size', '?')} images"
    risks = RISKS if _is_mnist(data) else RISKS[:1]
    return {
        "schema_version": SCHEMA_VERSION,
        "model_details": {
            "name": f"{contract.MODEL_NAME} {subject.version}".strip(),
            "overview": f"Classifies {_kind(data)} of {height} x {width} pixels in {data.get('classes', 10)} classes.",
            "documentation": "A TFX pipeline trained, evaluated and published it. The run, the settings, the checks "
            "and the hash of every file are in manifest.json beside this file.",
            "version": {
                "name": subject.version or "not pushed",
                "date": subject.date[:10],
                "diff": f"run {subject.run_id}" + (f", commit {subject.commit}" if subject.commit else ""),
            },
            "references": [{"reference": PAPER}],
        },
        "model_parameters": {
            "model_architecture": f"{layers}; trained by {train.get('optimizer', 'an unknown optimizer')}, {steps}.",
            "data": [_dataset("train", data, subject.data_sha256), _dataset("test", data, subject.data_sha256)],
            "input_format": f"uint8 or float [batch, {height}, {width}], raw pixels 0 (background) to 255 (ink)",
            "output_format": "probabilities float32 [batch, classes], each row sums to 1; classes int64 [batch]",
        },
        "quantitative_analysis": {"performance_metrics": metrics(subject.slices, subject.class_names)},
        "considerations": {
            "users": [{"description": text} for text in USERS],
            "use_cases": [{"description": text} for text in USES],
            "limitations": [{"description": text} for text in (*OUT_OF_SCOPE, *FACTORS, *LIMITATIONS)],
            "tradeoffs": [{"description": text} for text in TRADEOFFS],
            "ethical_considerations": [{"name": risk, "mitigation_strategy": answer} for risk, answer in risks],
        },
    }


def metrics(slices: Mapping[str, Mapping[str, float]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy, and recall and precision by class, with 95 % Wilson intervals where they are proportions."""
    found: list[dict[str, Any]] = []
    for name, values in slices.items():
        overall, count = name == OVERALL, int(values.get(COUNT, 0))
        label = name
        if name.isdecimal() and int(name) < len(class_names):
            label = class_names[int(name)]
        where = {} if overall else {"slice": label}
        if ACCURACY in values:
            one = {"type": "accuracy" if overall else "recall", "value": f"{values[ACCURACY]:.6f}"}
            low, high = significance.wilson(round(values[ACCURACY] * count), count)
            interval = {"lower_bound": f"{low:.6f}", "upper_bound": f"{high:.6f}"}
            found.append(one | where | ({"confidence_interval": interval} if count else {}))
        others = [key for key in ("precision", "calibration_error") if key in values]
        found += [{"type": key, "value": f"{values[key]:.6f}"} | where for key in others]
    return found


def documents(subject: Subject) -> dict[str, str]:
    """The card's files by name, for the folder of a version."""
    content = card(subject)
    return {
        contract.MODEL_CARD_FILE: json.dumps(content, indent=1) + "\n",
        contract.README_FILE: readme(subject, content),
    }


def readme(subject: Subject, content: Mapping[str, Any]) -> str:
    """The card as Markdown with the metadata that Hugging Face reads. JSON is YAML."""
    found = content["quantitative_analysis"]["performance_metrics"]
    accuracy = [one for one in found if one["type"] == "accuracy"]
    mnist = _is_mnist(subject.settings.get("data", {}))
    dataset = {"name": "MNIST" if mnist else _source(subject.settings.get("data", {})), "split": "test"}
    dataset["type"] = "ylecun/mnist" if mnist else "image-folder"
    head = {
        "library_name": "tensorflow",
        "pipeline_tag": "image-classification",
        "tags": ["tensorflow", "tfx", "image-classification"],
        **({"datasets": ["ylecun/mnist"]} if mnist else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": content["model_details"]["name"],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": dataset,
                        "metrics": [{"type": "accuracy", "value": float(one["value"])} for one in accuracy],
                    }
                ],
            }
        ],
    }
    template = _templates().get_template(TEMPLATE)
    return template.render(
        head=head,
        card=content,
        settings=subject.settings.get("train", {}),
        size=_size(subject.settings.get("data", {})),
        out_of_scope=OUT_OF_SCOPE,
        factors=FACTORS,
        limitations=LIMITATIONS,
    )


def _dataset(split: str, data: Mapping[str, Any], sha256: Mapping[str, str]) -> dict[str, Any]:
    files = ", ".join(f"{role} {value}" for role, value in sorted(sha256.items()) if role.startswith(split))
    link = {"link": MNIST_PAGE} if _is_mnist(data) else {}
    name = f"{_source(data)}, {'training' if split == 'train' else 'test'} files"
    return {"name": name} | link | {"description": f"SHA-256 of the IDX files: {files or 'unknown'}"}


def _size(data: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images, in pixels."""
    return data.get("image_height", 28), data.get("image_width", 28)


def _kind(data: Mapping[str, Any]) -> str:
    return "handwritten digits" if _is_mnist(data) else f"grey images from {_source(data)}"


def _source(data: Mapping[str, Any]) -> str:
    """The data set's name: not the whole path, which is of the machine."""
    return "MNIST" if _is_mnist(data) else Path(str(data.get("source", "an unknown source"))).name


def _is_mnist(data: Mapping[str, Any]) -> bool:
    return data.get("source") == REAL_MNIST


@functools.cache
def _templates() -> Environment:
    folder = Path(__file__).parent
    return Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
