"""Decodes REST request bodies to arrays and tf.Examples, with TensorFlow Serving's rules and error texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from serving.model_server.errors import ServingError, invalid
from serving.model_server.rest_values import MAX_DEPTH, is_base64, json_type, shown, to_array, to_bytes
from serving.model_server.servable import Signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

DECODER: Final = json.JSONDecoder()
MARKS: Final = re.compile(r'\\.|["\[\]{}]', re.DOTALL)  # an escaped character, a quote or a bracket
KINDS: Final = {bool: "int64", int: "int64", float: "float", str: "bytes", dict: "bytes"}  # of features
MAX_DEEP_CHARS: Final = 2**22  # the marks of a longer body take seconds


@dataclass(frozen=True)
class PredictBody:
    """A decoded predict request. `row`: whether the inputs were sent as "instances" (row format)."""

    inputs: dict[str, Array]
    row: bool


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object at the start of a body; accepts unquoted NaN and Infinity. Raises ServingError."""
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8-sig").lstrip(" \t\r\n")
        try:
            document, _ = DECODER.raw_decode(text)
        except RecursionError:
            document, _ = DECODER.raw_decode(_without_deep_values(text))
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # fails for a lone surrogate
    except (ValueError, RecursionError) as e:  # also for numbers with thousands of digits
        raise invalid(f"JSON Parse error: {e}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature that a request names; "" for the default one. Raises ServingError."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("JSON Value not formatted correctly. 'signature_name' key must be a string value.")
    return name


def predict_body(document: Mapping[str, Any], signature: Signature) -> PredictBody:
    """Return the inputs of a predict request. Raises ServingError."""
    if "instances" in document and "inputs" in document:
        raise _malformed(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return PredictBody(_from_rows(document["instances"], signature), row=True)
    if "inputs" in document:
        return PredictBody(_from_columns(document["inputs"], signature), row=False)
    raise invalid("Missing 'inputs' or 'instances' key")


def examples_body(document: Mapping[str, Any]) -> pb.Input:
    """Return the examples of {"context"?: {...}, "examples": [{feature: value | [values]}]}. Raises ServingError."""
    if "examples" not in document:
        raise _malformed(document, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(document["examples"], list):
        raise _malformed(document, "Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise _malformed(document, "'examples' value is an empty array")
    decoded = pb.Input()
    if "context" in document:
        target = decoded.example_list_with_context.examples
        decoded.example_list_with_context.context.CopyFrom(_example(document["context"]))
    else:
        target = decoded.example_list.examples
    for example in document["examples"]:
        target.add().CopyFrom(_example(example))
    return decoded


def _without_deep_values(text: str) -> str:
    """Return a JSON document with null in place of all values nested deeper than MAX_DEPTH. Raises ValueError.

    No input has such values, but keys that the server ignores may, and Python's decoder refuses them.
    """
    if len(text) > MAX_DEEP_CHARS:
        raise ValueError("nested too deeply")
    kept, depth, start, quoted = [], 0, 0, False
    for mark in MARKS.finditer(text):
        character = mark[0]
        if character == '"':
            quoted = not quoted
        elif quoted or len(character) == 2:
            continue
        elif character in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[start : mark.start()])
        else:
            depth -= 1
            if depth == MAX_DEPTH:
                kept.append("null")
                start = mark.end()
    if depth > MAX_DEPTH:
        raise ValueError("missing a closing bracket")
    return "".join(kept) + text[start:]


def _malformed(value: Any, message: str) -> ServingError:
    return invalid(f"JSON Value: {shown(value)} {message}")


def _from_rows(instances: Any, signature: Signature) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise _malformed(instances, "Expecting 'instances' to be an list/array")
    if not instances:
        raise _malformed(instances, "No values in 'instances' array")
    wanted = signature.inputs
    named = isinstance(instances[0], dict) and not is_base64(instances[0])
    if not named:
        if len(wanted) != 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        (alias,) = wanted
        return {alias: to_array(instances, wanted[alias].info, alias)}
    for index, element in enumerate(instances):
        if not isinstance(element, dict):
            raise _malformed(element, f"Encountered a non-object element {index} in 'instances' array")
        for key in element:
            if key not in wanted:
                raise invalid(
                    f"Failed to process element: {index} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f"JSON object: does not have named input: {key}"
                )
        if element.keys() != wanted.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON Value: {shown(element)} "
                f"keys must be equal to: {','.join(sorted(wanted))}"
            )
    return {a: to_array([element[a] for element in instances], e.info, a) for a, e in wanted.items()}


def _from_columns(inputs: Any, signature: Signature) -> dict[str, Array]:
    wanted = signature.inputs
    if isinstance(inputs, dict) and not is_base64(inputs):
        arrays = {}
        for alias, endpoint in wanted.items():
            if alias not in inputs:  # over REST, the signature's defaults are not used
                raise invalid(f"Missing named input: {alias} in 'inputs' object.")
            arrays[alias] = to_array(inputs[alias], endpoint.info, alias)
        return arrays
    if len(wanted) != 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input "
            "tensors required as per tensorinfo_map"
        )
    (alias,) = wanted
    return {alias: to_array(inputs, wanted[alias].info, alias)}


def _example(features: Any) -> pb.Example:
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(features)}")
    example = pb.Example()
    for name, value in features.items():
        _fill_feature(example.features.feature[name], name, value if isinstance(value, list) else [value])
    return example


def _fill_feature(feature: pb.Feature, name: str, values: list[Any]) -> None:
    """Put values of one kind into a feature; the first value decides the kind. Raises ServingError."""
    kinds = {KINDS.get(kind) for kind in set(map(type, values))}
    if kinds == {"int64"} and not -(2**63) <= min(values) <= max(values) < 2**64:
        try:  # larger integers are floats, as in TensorFlow Serving
            values = [v if -(2**63) <= v < 2**64 else float(v) for v in values]
        except OverflowError:
            raise invalid(f"JSON Value: {shown(values)} Type: Number is not of expected type: float") from None
        kinds = {KINDS[type(v)] for v in values}
    if None in kinds:
        wrong = next(v for v in values if type(v) not in KINDS)
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(wrong)}")
    if len(kinds) > 1:
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {KINDS[type(values[0])]}")
    if kinds == {"int64"}:
        if max(values) >= 2**63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        feature.int64_list.value.extend(map(int, values))
    elif kinds == {"float"}:
        feature.float_list.value.extend(values)
    elif kinds:
        feature.bytes_list.value.extend(map(to_bytes, values))
