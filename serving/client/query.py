"""Ask the running server about digits and show what it says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from components.common import contract
from components.common.errors import InputError, UsageError

DRAWN_AT_MOST: Final = 10  # of more digits only the misread ones are drawn
DISAGREEMENT_EXIT_CODE: Final = 6
Answers = dict[str, "Answer"]
"""By transport, "grpc" and perhaps "rest"."""


class Answer(NamedTuple):
    """What one transport answered: float32 [digits, classes], int64 [digits], and how long it took."""

    probabilities: Any
    classes: Any
    version: int
    milliseconds: float


def query(
    files: Sequence[Path] = (),
    indices: Sequence[int] = (),
    *,
    home: Path,
    count: int = 5,
    seed: int | None = None,
    data: Path | None = None,
    invert: bool = False,
    model: str = contract.MODEL_NAME,
    version: int | None = None,
    label: str | None = None,
    grpc_address: str = "127.0.0.1:8500",
    rest_address: str | None = None,
    timeout_s: float = 10.0,
    as_json: bool = False,
) -> int:
    """Ask about image files and digits of the test set, print the answers on stdout, and return the exit code.

    Args:
        files: PNG or JPEG files.
        indices: of digits in the test set. With neither files nor indices, `count` random ones.
        seed: makes the random choice repeatable.
        home: holds the data that the pipeline fetched.
        data: folder of IDX files, if they are not the home's.
        invert: the files show dark ink on bright ground.
        version, label: which version to ask; the newest without them.
        rest_address: `http://host:port` to ask the same over REST and compare; None asks over gRPC only.
        timeout_s: for each request.
        as_json: print one JSON object instead of drawings.

    Returns:
        0, or 6 if gRPC and REST name different classes for the same version.

    Raises:
        UserError: InputError for files, UsageError for indices, ServingClientError from the server.
    """
    from serving.client import connect, digits

    if version is not None and label is not None:
        raise UsageError("both a version and a label", "Give one of --version and --label.")
    with connect(grpc_address, timeout_s=timeout_s) as client:
        asked: list[digits.Digit] = []
        if files:
            size = _input_size(client.metadata(model, version, label))
            asked += [digits.from_file(path, size, invert=invert) for path in files]
        if indices or not files:
            folder = data or home / "data" / contract.MODEL_NAME
            asked += digits.from_test_set(folder, indices, count=count, seed=seed)
        answers = {"grpc": _ask(client, asked, model, version, label)}
    if rest_address is not None:
        with connect(rest_address, timeout_s=timeout_s) as client:
            answers["rest"] = _ask(client, asked, model, version, label)
    summary = _summary(asked, answers, model)
    if as_json:
        print(json.dumps({**summary, "digits": _rows(asked, answers)}))
    else:
        _show(asked, answers, summary)
    return DISAGREEMENT_EXIT_CODE if summary.get("same_classes") is False else 0


def _input_size(metadata: Any) -> tuple[int, int] | None:
    """(height, width) in pixels that the model takes; None if it takes any. Raises InputError."""
    signature = metadata.signatures.get(contract.SERVING_DEFAULT)
    if signature is None or contract.IMAGES not in signature.inputs:
        raise InputError(
            f"model {metadata.model} version {metadata.version} has no input {contract.IMAGES!r} "
            f"in a signature {contract.SERVING_DEFAULT!r}",
            "It is not a model of this product.",
        )
    sizes = [dim.size for dim in signature.inputs[contract.IMAGES].tensor_shape.dim]
    return (sizes[1], sizes[2]) if len(sizes) == 3 and min(sizes[1:]) > 0 else None


def _ask(client: Any, asked: Sequence[Any], model: str, version: int | None, label: str | None) -> Answer:
    import numpy as np

    shapes = {digit.image.shape for digit in asked}
    if len(shapes) > 1:
        raise InputError(f"images of different sizes: {', '.join(f'{h} x {w}' for h, w in sorted(shapes))} pixels")
    images = np.stack([digit.image for digit in asked])
    started = time.perf_counter()
    outputs, answered = client.predict({contract.IMAGES: images}, model=model, version=version, label=label)
    milliseconds = (time.perf_counter() - started) * 1e3
    try:
        return Answer(outputs[contract.PROBABILITIES], outputs[contract.CLASSES], answered, milliseconds)
    except KeyError as e:
        raise InputError(
            f"model {model} answers {sorted(outputs)}, not {e}", "It is not a model of this product."
        ) from e


def _summary(asked: Sequence[Any], answers: Answers, model: str) -> dict[str, Any]:
    labels = {i: digit.label for i, digit in enumerate(asked) if digit.label is not None}
    summary: dict[str, Any] = {
        "model": model,
        "version": answers["grpc"].version,
        "asked": len(asked),
        "labelled": len(labels),
        "right": {name: sum(int(a.classes[i]) == label for i, label in labels.items()) for name, a in answers.items()},
        "milliseconds": {name: round(answer.milliseconds, 2) for name, answer in answers.items()},
    }
    if "rest" in answers:
        grpc, rest = answers["grpc"], answers["rest"]
        summary["versions"] = {"grpc": grpc.version, "rest": rest.version}
        # A version swapped in between the two requests is no disagreement.
        comparable = grpc.version == rest.version and grpc.probabilities.shape == rest.probabilities.shape
        difference = float(abs(grpc.probabilities - rest.probabilities).max()) if comparable else None
        summary["max_difference"] = difference
        summary["same_classes"] = bool((grpc.classes == rest.classes).all()) if comparable else None
        summary["identical"] = difference == 0 and summary["same_classes"]
    return summary


def _rows(asked: Sequence[Any], answers: Answers) -> list[dict[str, Any]]:
    return [
        {
            "name": digit.name,
            "index": digit.index,
            "label": digit.label,
            **{
                name: {"class": int(answer.classes[i]), "probabilities": answer.probabilities[i].tolist()}
                for name, answer in answers.items()
            },
        }
        for i, digit in enumerate(asked)
    ]


def _show(asked: Sequence[Any], answers: Answers, summary: dict[str, Any]) -> None:
    from serving.client import digits

    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    answer = answers["grpc"]
    for i, digit in enumerate(asked):
        predicted = int(answer.classes[i])
        if len(asked) > DRAWN_AT_MOST and digit.label in (None, predicted):
            continue
        verdict = "" if digit.label is None else f", {'right' if digit.label == predicted else f'is {digit.label}'}"
        print(f"{digit.name}: {predicted} ({answer.probabilities[i][predicted]:.1%}){verdict}")
        if digit.index is None and digits.looks_inverted(digit.image):
            print("  dark on bright? The model knows bright digits on dark: try --invert")
        drawing = digits.draw(digit.image, characters=digits.HALF_BLOCKS if unicode else digits.ASCII_HALF_BLOCKS)
        bars = digits.bars(answer.probabilities[i].tolist(), len(drawing), "█" if unicode else "#")
        print(*(f"  {line}" for line in digits.beside(drawing, bars)), sep="\n")
    parts = []
    for name, title in (("grpc", "gRPC"), ("rest", "REST")):
        if name in answers:
            right = f"{summary['right'][name]} of {summary['labelled']} right, " if summary["labelled"] else ""
            parts.append(f"{title}: {right}{answers[name].milliseconds:.1f} ms")
    print(f"{summary['model']} version {summary['version']}, {summary['asked']} asked. {'; '.join(parts)}")
    if "rest" in answers:
        print(_comparison(summary))


def _comparison(summary: dict[str, Any]) -> str:
    if summary["max_difference"] is None:
        return "gRPC and REST answered from versions {grpc} and {rest}".format(**summary["versions"])
    if summary["identical"]:
        return "gRPC and REST: identical"
    same = "the same classes" if summary["same_classes"] else "DIFFERENT CLASSES"
    return f"gRPC and REST: {same}, probabilities differ by up to {summary['max_difference']:.1e}"
