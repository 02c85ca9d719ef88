"""Decodes REST request bodies to arrays and tf.Examples, with TensorFlow Serving's rules and error texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.model_server.errors import ServingError, invalid
from serving.model_server.rest_values import is_base64, json_type, shown, to_array, to_bytes
from serving.model_server.servable import Signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array


@dataclass(frozen=True)
class PredictBody:
    """A decoded predict request. `row`: whether the inputs were sent as "instances" (row format)."""

    inputs: dict[str, Array]
    row: bool


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; accepts unquoted NaN and Infinity. Raises ServingError."""
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode()
        document = json.loads(text)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # fails for a lone surrogate
    except (ValueError, RecursionError) as e:  # also for numbers with thousands of digits, or deeply nested lists
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
            if alias in inputs:
                arrays[alias] = to_array(inputs[alias], endpoint.info, alias)
            elif alias not in signature.defaults:
                raise invalid(f"Missing named input: {alias} in 'inputs' object.")
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
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if all(isinstance(v, (bool, int)) for v in values):
            if any(not -(2**63) <= v < 2**63 for v in values):
                raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
            feature.int64_list.value.extend(int(v) for v in values)
        elif all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            try:
                feature.float_list.value.extend(values)
            except OverflowError:  # an integer too large for a double
                raise invalid(f"JSON Value: {shown(values)} Type: Number is not of expected type: float") from None
        else:
            feature.bytes_list.value.extend(to_bytes(v) for v in values)
    return example
