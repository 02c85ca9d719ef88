"""The other RPCs: Classify, Regress, MultiInference, GetModelMetadata, GetModelStatus, health, and the transport."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
    session_service_pb2,
)

from tests.support.servers import STATES, Server, example, model_spec, refused, tensor

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


# ---- Classify and Regress ----


def classes(response: classification_pb2.ClassificationResponse) -> list[list[tuple[str, float]]]:
    return [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]


def values(response: regression_pb2.RegressionResponse) -> list[float]:
    return [regression.value for regression in response.result.regressions]


def test_classify(server: Server) -> None:
    response = server.classify("half", example(x=1.0), example(x=4.0), signature="classify")
    assert classes(response) == [[("half", 2.5)], [("half", 4.0)]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half", "classify", 123)


def test_classify_without_classes_gives_empty_labels(server: Server) -> None:
    assert classes(server.classify("half", example(x=1.0), signature="classify_scores")) == [[("", 2.5)] * 3]


def test_classify_without_scores(server: Server) -> None:
    assert classes(server.classify("half", example(x=1.0), signature="classify_classes")) == [[("half", 0.0)]]


def test_regress(server: Server) -> None:
    response = server.regress("half", example(x=1.0), example(x=4.0), signature="regress")
    assert values(response) == [2.5, 4.0]
    assert response.model_spec.signature_name == "regress"


def test_method_name_is_not_checked(server: Server) -> None:
    """What TF2 saves says predict, and still classifies."""
    found = classes(server.classify("examples", example(x=[0.25, 0.75]), signature="classify"))
    assert found == [[("first", 0.25), ("second", 0.75)]]
    assert values(server.regress("examples", example(x=[0.25, 0.75]), signature="regress")) == [1.0]


def test_a_context_is_part_of_every_example(server: Server) -> None:
    request = regression_pb2.RegressionRequest(model_spec=model_spec("half", signature="regress"))
    given = request.input.example_list_with_context
    given.context.CopyFrom(example(x=10.0))
    given.examples.extend([tf.train.Example(), example(other=1.0), example(x=2.0)])
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
        server.classify("half", example(x=1.0), signature="other_input")
    assert caught.value.code() == INVALID


@pytest.mark.parametrize("signature", ["classify_odd", "regress_wide"])
def test_outputs_of_the_wrong_shape(server: Server, signature: str) -> None:
    ask = server.regress if signature == "regress_wide" else server.classify
    with refused(INVALID):
        ask("half", example(x=1.0), signature=signature)


def test_no_regression_outputs(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="No regression outputs found in SignatureDef: ") as caught:
        server.regress("half", example(x=1.0), signature="other_output")
    assert caught.value.code() == INVALID


@pytest.mark.parametrize("signature", ["classify", "regress"])
def test_no_examples(server: Server, signature: str) -> None:
    ask = server.classify if signature == "classify" else server.regress
    with refused(INVALID, "Input is empty."):
        ask("half", signature=signature)


def test_a_feature_that_is_missing(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.regress("half", example(y=1.0), signature="regress")
    assert caught.value.code() == INVALID
    assert "Feature: x (data type: float) is required but could not be found." in caught.value.details()


@pytest.mark.parametrize("method", ["Classify", "Regress", "GetModelMetadata", "GetModelStatus"])
def test_no_model_spec(server: Server, method: str) -> None:
    calls: dict[str, tuple[Any, Any]] = {
        "Classify": (server.prediction.Classify, classification_pb2.ClassificationRequest()),
        "Regress": (server.prediction.Regress, regression_pb2.RegressionRequest()),
        "GetModelMetadata": (server.prediction.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()),
        "GetModelStatus": (server.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    }
    call, request = calls[method]
    with refused(INVALID, "Missing ModelSpec"):
        call(request, timeout=20)


# ---- MultiInference ----


def test_multi_inference(server: Server) -> None:
    tasks = [("half", "classify", "classify"), ("half", "regress", "regress")]
    first, second = server.infer(*tasks, examples=[example(x=1.0), example(x=2.0)]).results
    assert [c.classes[0].score for c in first.classification_result.classifications] == [2.5, 3.0]
    assert [r.value for r in second.regression_result.regressions] == [2.5, 3.0]
    assert (second.model_spec.signature_name, second.model_spec.version.value) == ("regress", 123)


def test_multi_inference_wants_one_model(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="must access the same model name") as caught:
        server.infer(("half", "regress", "regress"), ("examples", "regress", "regress"), examples=[example(x=1.0)])
    assert caught.value.code() == INVALID


def test_multi_inference_wants_each_signature_once(server: Server) -> None:
    with refused(INVALID, "Duplicate evaluation of signature: regress"):
        server.infer(*[("half", "regress", "regress")] * 2, examples=[example(x=1.0)])


def test_multi_inference_knows_two_methods(server: Server) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: tensorflow/serving/predict"):
        server.infer(("half", "regress", "predict"), examples=[example(x=1.0)])


def test_multi_inference_without_tasks_or_examples(server: Server) -> None:
    with refused(INVALID):
        server.prediction.MultiInference(inference_pb2.MultiInferenceRequest(), timeout=20)
    with refused(INVALID, "Input is empty."):
        server.infer(("half", "regress", "regress"))


# ---- GetModelMetadata ----


def metadata(server: Server, name: str, *fields: str, **spec: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=model_spec(name, **spec), metadata_field=fields)
    return server.prediction.GetModelMetadata(request, timeout=20)


def test_metadata(server: Server) -> None:
    response = metadata(server, "half", "signature_def")
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 123, "")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.inputs["x"].name == "x:0" and default.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert [d.size for d in default.inputs["x"].tensor_shape.dim] == [-1, 1]
    assert default.method_name == "tensorflow/serving/predict"
    assert signatures.signature_def["classify"].method_name == "tensorflow/serving/classify"


def test_metadata_of_one_version(server: Server) -> None:
    assert metadata(server, "versioned", "signature_def", version=1).model_spec.version.value == 1
    assert metadata(server, "versioned", "signature_def", label="canary").model_spec.version.value == 2


def test_metadata_refused(server: Server) -> None:
    with refused(INVALID, "GetModelMetadataRequest must specify at least one metadata_field"):
        metadata(server, "half")
    with refused(INVALID, "Metadata field F is not supported"):
        metadata(server, "half", "F")
    with refused(NOT_FOUND, "Servable not found for request: Latest(nix)"):
        metadata(server, "nix", "signature_def")


# ---- GetModelStatus ----


def test_status_lists_the_newest_first(server: Server) -> None:
    assert server.status("versioned") == [(5, "AVAILABLE"), (2, "AVAILABLE"), (1, "AVAILABLE")]


def test_status_of_one_version(server: Server) -> None:
    assert server.status("versioned", version=2) == [(2, "AVAILABLE")]


def test_status_ignores_a_label(server: Server) -> None:
    assert len(server.status("versioned", label="canary")) == 3
    assert len(server.status("versioned", label="nonsense")) == 3


def test_status_of_a_good_version_holds_no_error(server: Server) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec("half"))
    (found,) = server.model.GetModelStatus(request, timeout=20).model_version_status
    assert (found.state, found.status.error_code, found.status.error_message) == (STATES.AVAILABLE, 0, "")


@pytest.mark.parametrize("version", [None, 9])
def test_status_refused(server: Server, version: int | None) -> None:
    name, what = ("nix", "any versions") if version is None else ("half", "version 9")
    with refused(NOT_FOUND, f"Could not find {what} of model {name}"):
        server.status(name, version=version)


# ---- health, and what is not there ----


def health(server: Server, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_health(server: Server, service: str) -> None:
    assert health(server, service) == health_pb2.HealthCheckResponse.SERVING


def test_health_goes_by_short_names(server: Server) -> None:
    with refused(NOT_FOUND):
        health(server, "tensorflow.serving.PredictionService")


@pytest.mark.parametrize("method", ["/tensorflow.serving.SessionService/SessionRun", "/tensorflow.serving.X/Y"])
def test_what_is_not_registered_is_unimplemented(server: Server, method: str) -> None:
    call = server.channel.unary_unary(method, session_service_pb2.SessionRunRequest.SerializeToString, bytes)
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        call(session_service_pb2.SessionRunRequest(), timeout=20)


# ---- the transport ----


def test_bytes_that_are_no_message(server: Server) -> None:
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with refused(grpc.StatusCode.INTERNAL):
        call(b"\xff" * 100, timeout=20)
    assert server.predict("half", {"x": [1.0]})


def test_unix_socket(server: Server) -> None:
    with grpc.insecure_channel(f"unix:{server.folder / 'grpc.sock'}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=model_spec("half"), metadata_field=["signature_def"]
        )
        assert stub.GetModelMetadata(request, timeout=20).model_spec.version.value == 123


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
GRPC_GARBAGE = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "half a frame header": PREFACE + SETTINGS + b"\0\1",
    "half a frame": PREFACE + SETTINGS + b"\0\1\0\1\4\0\0\0\1" + b"\x82\x86",
    "a frame of 16 MB": PREFACE + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 1000,
    "HTTP/1.1": b"POST /tensorflow.serving.PredictionService/Predict HTTP/1.1\r\nHost: a\r\n\r\n",
    "noise": bytes(range(256)) * 20,
}


@pytest.mark.parametrize("kind", GRPC_GARBAGE)
def test_broken_frames_harm_nobody_else(server: Server, kind: str) -> None:
    connections = [server.connection(server.port) for _ in range(5)]
    for connection in connections:
        connection.sendall(GRPC_GARBAGE[kind])
    assert server.predict("half", {"x": [1.0]})
    for connection in connections:
        connection.close()
    assert server.predict("half", {"x": [1.0]})


def test_many_clients_at_once(server: Server) -> None:
    """Each gets its own answer."""
    wrong: list[object] = []

    def ask(number: int) -> None:
        for i in range(20):
            value = float(100 * number + i)
            found = list(server.predict("half", {"x": [value]}).outputs["y"].float_val)
            if found != [value / 2 + 2]:
                wrong.append((value, found))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_more_slow_requests_than_threads(server: Server) -> None:
    """Nobody is refused: they wait for their turn."""
    request = {"milliseconds": tensor(np.int64(10))}
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(server.predict, "slow", request) for _ in range(40)]
        assert all(list(a.result().outputs["slept"].int64_val) == [10] for a in answers)
