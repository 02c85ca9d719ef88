"""Executes RPCs on a loaded version, for the gRPC layer, the REST layer and warm-up.

Each function returns a response or raises ServingError with TensorFlow Serving's code and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from serving.model_server.batching import Run, Steps, run_alone
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.servable import Endpoint, Servable, Signature, no_such_signature
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import (
    STRING_BYTES,
    Array,
    TensorError,
    data_type_of,
    fill_proto,
    filled_bytes,
    from_proto,
)

CLASSIFY_METHOD: Final = "tensorflow/serving/classify"
REGRESS_METHOD: Final = "tensorflow/serving/regress"
METADATA_FIELD: Final = "signature_def"
METADATA_TYPE_URL: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def predict(servable: Servable, request: pb.PredictRequest, timeout_ms: int = 0) -> pb.PredictResponse:
    """Predict without batching."""
    return run_alone(predict_steps(servable, request, timeout_ms))


def predict_steps(
    servable: Servable,
    request: pb.PredictRequest,
    timeout_ms: int = 0,
    as_content: bool = False,
    inputs: Mapping[str, Array] | None = None,
) -> Steps[pb.PredictResponse]:
    """Predict in two steps (see Steps).

    Args:
        as_content: put the values into tensor_content instead of the typed fields.
        inputs: replaces the request's inputs.
    """
    signature = servable.signature(request.model_spec.signature_name)
    if signature is None:
        raise no_such_signature(request.model_spec.signature_name)
    if inputs is None:
        inputs = decoded_inputs(request)
    response = pb.PredictResponse()
    names, feeds, fetches = servable.plan(signature, inputs, list(request.output_filter))
    for alias, array in zip(names, (yield Run(servable, feeds, fetches, timeout_ms)), strict=True):
        fill_proto(response.outputs[alias], array, content=as_content)
    fill_spec(response.model_spec, servable, signature.name)
    return response


def classify(
    servable: Servable, request: pb.ClassificationRequest, timeout_ms: int = 0, examples: Array | None = None
) -> pb.ClassificationResponse:
    """Run one signature on the request's examples, or on `examples` instead."""
    signature = _inference_signature(servable, request.model_spec)
    place, outputs = _classify_plan(signature)
    examples = serialized_examples(request.input) if examples is None else examples
    arrays = servable.run([(place, examples)], [endpoint.place for endpoint in outputs.values()], timeout_ms)
    response = pb.ClassificationResponse()
    _put_classes(response.result, dict(zip(outputs, arrays, strict=True)), len(examples))
    fill_spec(response.model_spec, servable, signature.name)
    return response


def regress(
    servable: Servable, request: pb.RegressionRequest, timeout_ms: int = 0, examples: Array | None = None
) -> pb.RegressionResponse:
    """Run one signature on the request's examples, or on `examples` instead."""
    signature = _inference_signature(servable, request.model_spec)
    place, output = _regress_plan(signature)
    examples = serialized_examples(request.input) if examples is None else examples
    (values,) = servable.run([(place, examples)], [output.place], timeout_ms)
    response = pb.RegressionResponse()
    _put_values(response.result, values, len(examples))
    fill_spec(response.model_spec, servable, signature.name)
    return response


def multi_inference(
    servable: Servable, request: pb.MultiInferenceRequest, timeout_ms: int = 0, examples: Array | None = None
) -> pb.MultiInferenceResponse:
    """Run several signatures on the same examples in one run of the session."""
    plans: list[tuple[str, Signature, dict[str, Endpoint]]] = []
    places: dict[tuple[int, int], None] = {}  # the examples are fed to each of these
    for task in request.tasks:
        if task.model_spec.name != servable.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name. "
                f"Expected model: {servable.name}. Found: {task.model_spec.name}"
            )
        signature = _inference_signature(servable, task.model_spec)
        if signature.name in {known.name for _, known, _ in plans}:
            raise invalid(f"Duplicate evaluation of signature: {signature.name}")
        if task.method_name == CLASSIFY_METHOD:
            place, outputs = _classify_plan(signature)
        elif task.method_name == REGRESS_METHOD:
            place, output = _regress_plan(signature)
            outputs = {"outputs": output}
        else:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        plans.append((task.method_name, signature, outputs))
        places[place] = None
    examples = serialized_examples(request.input) if examples is None else examples
    fetches = [endpoint.place for _, _, outputs in plans for endpoint in outputs.values()]
    fetched = iter(servable.run([(place, examples) for place in places], fetches, timeout_ms))
    response = pb.MultiInferenceResponse()
    for method, signature, outputs in plans:
        arrays = {alias: next(fetched) for alias in outputs}
        result = response.results.add()
        fill_spec(result.model_spec, servable, signature.name)
        if method == CLASSIFY_METHOD:
            _put_classes(result.classification_result, arrays, len(examples))
        else:
            _put_values(result.regression_result, arrays["outputs"], len(examples))
    return response


def metadata(servable: Servable, request: pb.GetModelMetadataRequest) -> pb.GetModelMetadataResponse:
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != METADATA_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    response = pb.GetModelMetadataResponse()
    response.metadata[METADATA_FIELD].type_url = METADATA_TYPE_URL
    response.metadata[METADATA_FIELD].value = signature_map(servable).SerializeToString()
    fill_spec(response.model_spec, servable, "")
    return response


def signature_map(servable: Servable) -> pb.SignatureDefMap:
    found = pb.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        found.signature_def[name].CopyFrom(definition)
    return found


def fill_spec(spec: pb.ModelSpec, servable: Servable, signature_name: str) -> None:
    """Fill the model_spec of a response with the version that ran; a label is not echoed."""
    spec.name, spec.signature_name = servable.name, signature_name
    spec.version.value = servable.version


def tensor_bytes(request: Any) -> int:
    """Return the memory that the tensors of a request need, about: a context is merged into each example."""
    if isinstance(request, pb.PredictRequest):
        return sum(filled_bytes(proto) for proto in request.inputs.values())
    given = request.input
    listed = given.example_list_with_context
    count = len(given.example_list.examples) + len(listed.examples)
    return int(given.ByteSize() + count * (STRING_BYTES + listed.context.ByteSize()))


def check_size(request: Any, max_bytes: int) -> int:
    """Return the memory of a request's tensors. Raises ServingError if it is too large."""
    size_bytes = tensor_bytes(request)
    if size_bytes > max_bytes:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED, f"The tensors of the request need {size_bytes} bytes, more than {max_bytes}"
        )
    return size_bytes


def decoded_inputs(request: pb.PredictRequest) -> dict[str, Array]:
    """Return the inputs of a request by alias. Raises ServingError."""
    inputs = {}
    for alias, proto in request.inputs.items():
        try:
            inputs[alias] = from_proto(proto)
        except TensorError:
            raise invalid(f"tensor parsing error: {alias}") from None
    return inputs


def serialized_examples(given: pb.Input) -> Array:
    """Return the request's examples as an object array of bytes; a context is merged into each."""
    kind = given.WhichOneof("kind")
    if kind == "example_list_with_context":
        listed: Sequence[pb.Example] = given.example_list_with_context.examples
        # Concatenated messages are merged: the example's own features override the context's.
        context = given.example_list_with_context.context.SerializeToString()
    else:
        listed, context = given.example_list.examples, b""
    if not listed:
        raise invalid("Input is empty.")
    examples = np.empty(len(listed), np.object_)
    examples[:] = [context + example.SerializeToString() for example in listed]
    return examples


def _inference_signature(servable: Servable, spec: pb.ModelSpec) -> Signature:
    signature = servable.signature(spec.signature_name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {spec.signature_name}")
    return signature


def _classify_plan(signature: Signature) -> tuple[tuple[int, int], dict[str, Endpoint]]:
    """Return the input for the examples, and whichever of the outputs `classes` and `scores` exist."""
    place = _examples_place(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    found = {alias: signature.outputs[alias] for alias in ("classes", "scores") if alias in signature.outputs}
    if not found:
        raise invalid("Expected classification signature outputs to contain at least one of classes or scores.")
    return place, found


def _regress_plan(signature: Signature) -> tuple[tuple[int, int], Endpoint]:
    place = _examples_place(signature, "regression")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise invalid("No regression outputs found in SignatureDef: " + signature.name)
    return place, signature.outputs["outputs"]


def _examples_place(signature: Signature, kind: str) -> tuple[int, int]:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature.name}")
    return signature.inputs["inputs"].place


def _put_classes(result: pb.ClassificationResult, arrays: Mapping[str, Array], count: int) -> None:
    for alias, array in arrays.items():
        if array.ndim != 2 or len(array) != count:
            raise invalid(f"Expected Tensor shape: [{count} num_classes] but got {list(array.shape)} for {alias}")
        _check_dtype(array, pb.DT_STRING if alias == "classes" else pb.DT_FLOAT, f"{alias} Tensor", " Got")
    classes, scores = arrays.get("classes"), arrays.get("scores")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(iter(arrays.values())).shape[1]
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(width):
            found = classifications.classes.add()
            if classes is not None:
                found.label = classes[row, column].decode(errors="replace")
            if scores is not None:
                found.score = scores[row, column]


def _put_values(result: pb.RegressionResult, values: Array, count: int) -> None:
    if values.ndim not in (1, 2) or len(values) != count or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    _check_dtype(values, pb.DT_FLOAT, "output Tensor", "  Got")
    for value in values.ravel().tolist():
        result.regressions.add(value=value)


def _check_dtype(array: Array, expected: int, what: str, got: str) -> None:
    found = data_type_of(array)
    if found != expected:
        names = [pb.DataType.Name(data_type) for data_type in (expected, found)]
        raise invalid(f"Expected {what} of {names[0]}.{got}: {names[1]}")
