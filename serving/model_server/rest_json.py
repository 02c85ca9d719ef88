"""REST bodies to arrays and back, with TensorFlow Serving's rules and error texts."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.servable import Signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, TensorError, numpy_dtype

MAX_SHOWN_CHARS: Final = 200  # of a value in an error text
MAX_DEPTH: Final = 64  # of lists: as many dimensions as numpy has
_BLANKS: Final = b" \t\r\n"
_PARSE_ERRORS: Final = {  # Python's words -> rapidjson's, which are TensorFlow Serving's
    "Expecting value": "Invalid value.",
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':'": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid \\u": "Incorrect hex digit after \\u escape in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character": "Invalid encoding in string.",
}


@dataclass(frozen=True)
class PredictBody:
    """A parsed predict request. `row`: it came as "instances" and is answered as "predictions"."""

    inputs: dict[str, Array]
    row: bool


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. NaN and Infinity may stand bare, as TensorFlow Serving writes them."""
    if not body.strip(_BLANKS):
        raise invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode()
        document = json.loads(text)
        if "\\u" in text:  # a lone surrogate has no UTF-8 form
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as e:
        message = next((ours for theirs, ours in _PARSE_ERRORS.items() if e.msg.startswith(theirs)), e.msg)
        if e.msg.startswith("Expecting ','"):
            in_object = _innermost_bracket(text[: e.pos]) == "{"
            message = f"Missing a comma or {'} after an object member' if in_object else '] after an array element'}."
        raise invalid(f"JSON Parse error: {message} at offset: {len(text[: e.pos].encode())}") from None
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid. at offset: 0") from None
    except UnicodeDecodeError as e:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {e.start}") from None
    except (ValueError, RecursionError) as e:  # a number of thousands of digits, thousands of brackets
        raise invalid(f"JSON Parse error: {type(e).__name__} at offset: 0") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def _innermost_bracket(text: str) -> str:
    """The last bracket that is still open."""
    brackets: list[str] = []
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        if found[0] in "[{":
            brackets.append(found[0])
        elif found[0] in "]}" and brackets:
            brackets.pop()
    return brackets[-1] if brackets else ""


def predict_body(document: Mapping[str, Any], signature: Signature) -> PredictBody:
    """Inputs of a predict request. Raises ServingError."""
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return PredictBody(_from_rows(document["instances"], signature), row=True)
    if "inputs" in document:
        return PredictBody(_from_columns(document["inputs"], signature), row=False)
    raise invalid("Missing 'inputs' or 'instances' key")


def predict_answer(outputs: Mapping[str, Array], row: bool) -> dict[str, Any]:
    """The body that answers a predict request: by row as it was asked by row, else by output."""
    if not row:
        if len(outputs) == 1:
            ((name, array),) = outputs.items()
            return {"outputs": _to_json(name, array)}
        return {"outputs": {name: _to_json(name, array) for name, array in outputs.items()}}
    for name, array in outputs.items():
        if array.ndim < 1:
            raise invalid(f"Tensor name: {name} has no shape information ")
    sizes = {name: len(array) for name, array in outputs.items()}
    if len(set(sizes.values())) > 1:
        name, size = next((n, s) for n, s in sizes.items() if s != next(iter(sizes.values())))
        raise invalid(
            f"Tensor name: {name} has inconsistent batch size: {size} expecting: {next(iter(sizes.values()))}"
        )
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    names = list(columns)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def examples_body(document: Mapping[str, Any]) -> pb.Input:
    """Input of a classify or regress request: {"context"?: {...}, "examples": [{feature: value | [values]}]}."""
    if "examples" not in document:
        raise _malformed(document, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(document["examples"], list):
        raise _malformed(document, "Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise _malformed(document, "'examples' value is an empty array")
    given = pb.Input()
    if "context" in document:
        target = given.example_list_with_context.examples
        given.example_list_with_context.context.CopyFrom(_example(document["context"]))
    else:
        target = given.example_list.examples
    for example in document["examples"]:
        target.add().CopyFrom(_example(example))
    return given


def _malformed(value: Any, message: str) -> ServingError:
    return invalid(f"JSON Value: {_shown(value)} {message}")


def _from_rows(instances: Any, signature: Signature) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {_shown(instances)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid("JSON Value: [] No values in 'instances' array")
    wanted = signature.inputs
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not named:
        if len(wanted) != 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        (alias,) = wanted
        return {alias: _to_array(instances, wanted[alias].info, alias)}
    for index, element in enumerate(instances):
        if not isinstance(element, dict):
            raise invalid(
                f"JSON Value: {_shown(element)} Encountered a non-object element {index} in 'instances' array"
            )
        for key in element:
            if key not in wanted:
                raise invalid(
                    f"Failed to process element: {index} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f"JSON object: does not have named input: {key}"
                )
        if element.keys() != wanted.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON Value: {_shown(element)} "
                f"keys must be equal to: {','.join(sorted(wanted))}"
            )
    return {a: _to_array([element[a] for element in instances], e.info, a) for a, e in wanted.items()}


def _from_columns(inputs: Any, signature: Signature) -> dict[str, Array]:
    wanted = signature.inputs
    if isinstance(inputs, dict) and not _is_base64(inputs):
        arrays = {}
        for alias, endpoint in wanted.items():
            if alias in inputs:
                arrays[alias] = _to_array(inputs[alias], endpoint.info, alias)
            elif alias not in signature.defaults:
                raise invalid(f"Missing named input: {alias} in 'inputs' object.")
        return arrays
    if len(wanted) != 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input "
            "tensors required as per tensorinfo_map"
        )
    (alias,) = wanted
    return {alias: _to_array(inputs, wanted[alias].info, alias)}


def _to_array(value: Any, info: pb.TensorInfo, alias: str) -> Array:
    """A nested JSON list as an array of the input's dtype; nothing is rounded, cut or guessed."""
    name = pb.DataType.Name(info.dtype).removeprefix("DT_").lower()
    if info.dtype == pb.DT_STRING:
        return _strings(value, alias)
    try:
        dtype = numpy_dtype(info.dtype)
    except TensorError:
        raise _unimplemented(name) from None
    if dtype.kind == "c" or info.dtype == pb.DT_HALF:
        raise _unimplemented(name)
    try:
        array = np.array(value)
        if array.dtype == np.object_:
            np.array(value, np.float64)  # numbers beyond 64 bits pass; OverflowError beyond a double
    except TypeError:
        pass  # a null or an object: named below
    except (ValueError, OverflowError):
        raise invalid(f"Encountered list of unequal lengths in input {alias}: {_shown(value)}") from None
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    fits = array.dtype.kind in kinds or array.size == 0
    if fits and dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        fits = int(array.min()) >= limits.min and int(array.max()) <= limits.max
    if not fits:
        for culprit in _wrong_leaves(value, dtype):
            raise invalid(f"JSON Value: {_shown(culprit)} Type: {_json_type(culprit)} is not of expected type: {name}")
        array = np.array(value, np.float64 if dtype.kind == "f" else dtype)  # of numbers that numpy found no type for
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind == "f" and (np.isinf(converted) & np.isfinite(array)).any():
        raise invalid(f"Cannot convert JSON value: {_shown(array.flat[0].item())} to {name} without loss of precision.")
    return converted


def _unimplemented(name: str) -> ServingError:
    return ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value to type: {name}")


def _strings(value: Any, alias: str) -> Array:
    """Strings, or {"b64": ...} wherever a string may stand."""
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) > MAX_DEPTH:
        raise invalid(f"Encountered list at unexpected level: {len(shape)} in input {alias}")
    leaves = list(_leaves(value, shape, alias))  # not allocated by shape: that is the client's word
    flat = np.empty(len(leaves), np.object_)
    flat[:] = leaves
    return flat.reshape(shape)


def _leaves(value: Any, shape: Sequence[int], alias: str) -> Any:
    if not shape:
        yield _bytes(value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise invalid(f"Encountered list of unequal lengths in input {alias}: {_shown(value)}")
    for element in value:
        yield from _leaves(element, shape[1:], alias)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and _is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"JSON Value: {_shown(value)} Unable to base64 decode") from None
    raise invalid(f"JSON Value: {_shown(value)} Type: {_json_type(value)} is not of expected type: string")


def _to_json(name: str, array: Array) -> Any:
    """Lists of an output; bytes become {"b64"} only where the output's name ends in _bytes."""
    if array.dtype.kind == "c" or array.dtype == np.float16:
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of tensor {name} of {array.dtype} to JSON")
    if array.dtype == np.float32:  # in the fewest digits that tell it from its neighbours: 0.1, not 0.10000000149
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype != np.object_:
        return array.tolist()
    as_base64 = name.endswith("_bytes")

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(element) for element in value]
        return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode(errors="replace")

    return convert(array.tolist())


def _example(features: Any) -> pb.Example:
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {_json_type(features)}")
    example = pb.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if all(isinstance(v, (bool, int)) for v in values):
            if any(not -(2**63) <= v < 2**63 for v in values):
                raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
            feature.int64_list.value.extend(int(v) for v in values)
        elif all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            feature.float_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(_bytes(v) for v in values)
    return example


def _is_base64(value: Mapping[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _wrong_leaves(value: Any, dtype: np.dtype[Any]) -> Iterator[Any]:
    """Leaves that are not of the type, for the error text."""
    if isinstance(value, list):
        for element in value:
            yield from _wrong_leaves(element, dtype)
        return
    if dtype.kind == "b":
        good = isinstance(value, bool)
    elif dtype.kind == "f":
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        good = isinstance(value, int) and not isinstance(value, bool)
        good = good and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    if not good:
        yield value


def _json_type(value: Any) -> str:
    return {str: "String", bool: str(value), dict: "Object", list: "Array", type(None): "Null"}.get(
        type(value), "Number"
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."
