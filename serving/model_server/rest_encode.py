"""Encodes arrays as REST response bodies, with TensorFlow Serving's rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.model_server.errors import invalid
from serving.model_server.rest_values import NOT_IN_JSON, type_name
from serving.protocol.tensors import Array, data_type_of


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return JSON as TensorFlow Serving prints it: outer level indented by four, NaN and Infinity unquoted."""
    lines = [f'    "{key}": {json.dumps(value)}' for key, value in document.items()]
    return ("{\n" + ",\n".join(lines) + "\n}").encode()


def predict_response(outputs: Mapping[str, Array], row: bool) -> dict[str, Any]:
    """Return the JSON object of a predict response.

    Args:
        outputs: alias -> array. A single output is returned without its name.
        row: whether to return "predictions", one element per row, or "outputs", one element per output.

    Raises:
        ServingError: a dtype without a JSON equivalent or, with `row`, outputs with different numbers of rows.
    """
    if row:
        return {"predictions": _rows(outputs)}
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return {"outputs": _to_json(name, array)}
    return {"outputs": {name: _to_json(name, array) for name, array in outputs.items()}}


def shortest(values: npt.ArrayLike) -> Any:
    """Return float32 values as (nested) lists of the fewest digits that identify them: 0.1, not 0.10000000149."""
    return np.asarray(values, np.float32).astype(str).astype(np.float64).tolist()


def _rows(outputs: Mapping[str, Array]) -> Any:
    for name, array in outputs.items():
        if array.ndim < 1:
            raise invalid(f"Tensor name: {name} has no shape information ")
    expected = len(next(iter(outputs.values())))
    for name, array in outputs.items():
        if len(array) != expected:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {expected}")
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _to_json(name: str, array: Array) -> Any:
    """Return an output as nested lists; bytes become {"b64": ...} only if the output's name ends in _bytes."""
    data_type = data_type_of(array)
    if data_type in NOT_IN_JSON:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(data_type)}")
    if array.dtype == np.float32:
        return shortest(array)
    if array.dtype != np.object_:
        return array.tolist()
    as_base64 = name.endswith("_bytes")

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(element) for element in value]
        return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode(errors="replace")

    return convert(array.tolist())
