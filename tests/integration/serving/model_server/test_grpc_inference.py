"""gRPC: Classify, Regress and MultiInference."""

from __future__ import annotations

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.support.clients import example, model_spec, refused
from tests.support.servers import Server

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def classes(response: classification_pb2.ClassificationResponse) -> list[list[tuple[str, float]]]:
    return [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]


def values(response: regression_pb2.RegressionResponse) -> list[float]:
    return [regression.value for regression in response.result.regressions]


def test_classify(server: Server) -> None:
    response = server.classify("half", example(x=1.0), example(x=4.0), signature="classify")
    assert classes(response) == [[("half", 2.5)], [("half", 4.0)]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half", "classify", 123)


def test_classify_without_classes_has_empty_labels(server: Server) -> None:
    assert classes(server.classify("half", example(x=1.0), signature="classify_scores")) == [[("", 2.5)] * 3]


def test_classify_without_scores(server: Server) -> None:
    assert classes(server.classify("half", example(x=1.0), signature="classify_classes")) == [[("half", 0.0)]]


def test_regress(server: Server) -> None:
    response = server.regress("half", example(x=1.0), example(x=4.0), signature="regress")
    assert values(response) == [2.5, 4.0]
    assert response.model_spec.signature_name == "regress"


def test_method_name_is_not_checked(server: Server) -> None:
    """TF2 saves method_name predict for a signature that classifies."""
    found = classes(server.classify("examples", example(x=[0.25, 0.75]), signature="classify"))
    assert found == [[("first", 0.25), ("second", 0.75)]]
    assert values(server.regress("examples", example(x=[0.25, 0.75]), signature="regress")) == [1.0]


def test_a_context_is_merged_into_every_example(server: Server) -> None:
    request = regression_pb2.RegressionRequest(model_spec=model_spec("half", signature="regress"))
    examples = request.input.example_list_with_context
    examples.context.CopyFrom(example(x=10.0))
    examples.examples.extend([tf.train.Example(), example(other=1.0), example(x=2.0)])
    assert values(server.prediction.Regress(request, timeout=20)) == [7.0, 7.0, 3.0]


CLASSIFY_ERRORS = {
    "S": "No signature was found with the name: S",
    "three_outputs": "Expected one or two output Tensors, found 3",
    "two_inputs": "Expected one input Tensor.",
}
REGRESS_ERRORS = {
    "S": "No signature was found with the name: S",
    "classify": "Expected one output Tensor.",
    "two_inputs": "Expected one input Tensor.",
}


@pytest.mark.parametrize("signature", CLASSIFY_ERRORS)
def test_classify_refused(server: Server, signature: str) -> None:
    with refused(INVALID, CLASSIFY_ERRORS[signature]):
        server.classify("half", example(x=1.0), signature=signature)


@pytest.mark.parametrize("signature", REGRESS_ERRORS)
def test_regress_refused(server: Server, signature: str) -> None:
    with refused(INVALID, REGRESS_ERRORS[signature]):
        server.regress("half", example(x=1.0), signature=signature)


@pytest.mark.parametrize("signature", ["other_input", "serving_default"])
def test_no_classification_inputs(server: Server, signature: str) -> None:
    with pytest.raises(grpc.RpcError, match="No classification inputs found in SignatureDef: ") as caught:
        server.classify("half", example(x=1.0), signature=signature)
    assert caught.value.code() == INVALID


@pytest.mark.parametrize("signature", ["classify_odd", "regress_wide"])
def test_outputs_of_the_wrong_shape(server: Server, signature: str) -> None:
    call = server.regress if signature == "regress_wide" else server.classify
    with refused(INVALID):
        call("half", example(x=1.0), signature=signature)


WRONG_DTYPES = {
    "classify_numbers": "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
    "classify_words": "Expected scores Tensor of DT_FLOAT. Got: DT_STRING",
    "classify_double": "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
    "regress_words": "Expected output Tensor of DT_FLOAT.  Got: DT_STRING",
}


@pytest.mark.parametrize("signature", WRONG_DTYPES)
def test_outputs_of_the_wrong_dtype(server: Server, signature: str) -> None:
    method = "regress" if signature == "regress_words" else "classify"
    with refused(INVALID, WRONG_DTYPES[signature]):
        getattr(server, method)("half", example(x=1.0), signature=signature)
    response = server.post(f"half:{method}", {"signature_name": signature, "examples": [{"x": 1.0}]})
    assert (response.code, response.error) == (400, WRONG_DTYPES[signature])


def test_no_regression_outputs(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="No regression outputs found in SignatureDef: ") as caught:
        server.regress("half", example(x=1.0), signature="other_output")
    assert caught.value.code() == INVALID


@pytest.mark.parametrize("signature", ["classify", "regress"])
def test_no_examples(server: Server, signature: str) -> None:
    call = server.classify if signature == "classify" else server.regress
    with refused(INVALID, "Input is empty."):
        call("half", signature=signature)


def test_missing_feature(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.regress("half", example(y=1.0), signature="regress")
    assert caught.value.code() == INVALID
    assert "Feature: x (data type: float) is required but could not be found." in caught.value.details()


def test_multi_inference(server: Server) -> None:
    tasks = [("half", "classify", "classify"), ("half", "regress", "regress")]
    first, second = server.infer(*tasks, examples=[example(x=1.0), example(x=2.0)]).results
    assert [c.classes[0].score for c in first.classification_result.classifications] == [2.5, 3.0]
    assert [r.value for r in second.regression_result.regressions] == [2.5, 3.0]
    assert (second.model_spec.signature_name, second.model_spec.version.value) == ("regress", 123)


def test_multi_inference_feeds_every_input_tensor(server: Server) -> None:
    """In a TF2 export each signature has an input tensor of its own."""
    tasks = [("examples", "classify", "classify"), ("examples", "regress", "regress")]
    first, second = server.infer(*tasks, examples=[example(x=[0.25, 0.5])]).results
    assert [(c.label, c.score) for c in first.classification_result.classifications[0].classes] == [
        ("first", 0.25),
        ("second", 0.5),
    ]
    assert second.regression_result.regressions[0].value == 0.75


def test_multi_inference_of_two_models_is_refused(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="must access the same model name") as caught:
        server.infer(("half", "regress", "regress"), ("examples", "regress", "regress"), examples=[example(x=1.0)])
    assert caught.value.code() == INVALID


def test_multi_inference_of_a_repeated_signature_is_refused(server: Server) -> None:
    with refused(INVALID, "Duplicate evaluation of signature: regress"):
        server.infer(*[("half", "regress", "regress")] * 2, examples=[example(x=1.0)])


def test_multi_inference_of_another_method_is_refused(server: Server) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: tensorflow/serving/predict"):
        server.infer(("half", "regress", "predict"), examples=[example(x=1.0)])


def test_multi_inference_without_tasks_or_examples(server: Server) -> None:
    with refused(INVALID):
        server.prediction.MultiInference(inference_pb2.MultiInferenceRequest(), timeout=20)
    with refused(INVALID, "Input is empty."):
        server.infer(("half", "regress", "regress"))
