"""gRPC: GetModelMetadata, GetModelStatus, health, and how requests are received."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from components.common import resources
from tests.support.clients import STATES, model_spec, refused
from tests.support.servers import Server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Predict", "Classify", "Regress", "GetModelMetadata", "GetModelStatus"])
def test_no_model_spec(server: Server, method: str) -> None:
    calls: dict[str, tuple[Any, Any]] = {
        "Predict": (server.prediction.Predict, predict_pb2.PredictRequest()),
        "Classify": (server.prediction.Classify, classification_pb2.ClassificationRequest()),
        "Regress": (server.prediction.Regress, regression_pb2.RegressionRequest()),
        "GetModelMetadata": (server.prediction.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()),
        "GetModelStatus": (server.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    }
    call, request = calls[method]
    with refused(INVALID, "Missing ModelSpec"):
        call(request, timeout=20)


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


def test_status_of_a_good_version_has_no_error(server: Server) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec("half"))
    (found,) = server.model.GetModelStatus(request, timeout=20).model_version_status
    assert (found.state, found.status.error_code, found.status.error_message) == (STATES.AVAILABLE, 0, "")


@pytest.mark.parametrize("version", [None, 9])
def test_status_refused(server: Server, version: int | None) -> None:
    name, what = ("nix", "any versions") if version is None else ("half", "version 9")
    with refused(NOT_FOUND, f"Could not find {what} of model {name}"):
        server.status(name, version=version)


# ---- health, and requests that are not messages ----


def health(server: Server, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)


def test_health_uses_short_names(server: Server) -> None:
    for service in ("", "ModelService", "PredictionService"):
        assert health(server, service) == health_pb2.HealthCheckResponse.SERVING
    with refused(NOT_FOUND):
        health(server, "tensorflow.serving.PredictionService")


def test_bytes_that_are_not_a_message(server: Server) -> None:
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


def test_many_clients_at_once(server: Server) -> None:
    """Each gets its own response."""

    def predict(value: int) -> bool:
        return list(server.predict("half", {"x": [float(value)]}).outputs["y"].float_val) == [value / 2 + 2]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(predict, range(100)))


def test_more_slow_requests_than_threads(server: Server) -> None:
    """None is rejected: they wait for a thread."""
    calls = [server.sleep(10) for _ in range(4 * resources.cores() + 2)]
    assert all(list(call.result().outputs["slept"].int64_val) == [10] for call in calls)
