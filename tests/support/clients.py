"""Independent clients of a model server: tensorflow-serving-api's stubs and http.client, no product code."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

HOST: Final = "127.0.0.1"
STATES: Final = get_model_status_pb2.ModelVersionStatus
UNLIMITED: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error message of the body, which must contain nothing else."""
        ((key, text),) = self.json.items()
        assert key == "error"
        return str(text)


class Client:
    """gRPC and REST requests to the ports of a server on this machine."""

    def __init__(self, port: int, rest_port: int) -> None:
        self.port, self.rest_port = port, rest_port
        self.channel = grpc.insecure_channel(f"{HOST}:{port}", options=UNLIMITED)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_filter: tuple[str, ...] = (),
        timeout_s: float = 20.0,
        **spec: Any,
    ) -> predict_pb2.PredictResponse:
        """Predict. Inputs are TensorProtos or values for tf.make_tensor_proto; `spec` as for `model_spec`."""
        request = predict_pb2.PredictRequest(model_spec=model_spec(name, **spec), output_filter=output_filter)
        for alias, value in (inputs or {}).items():
            request.inputs[alias].CopyFrom(tensor(value))
        return self.prediction.Predict(request, timeout=timeout_s)

    def sleep(self, milliseconds: int, timeout_s: float = 20.0) -> Any:
        """Start a request to the model `slow`, and return its future."""
        request = predict_pb2.PredictRequest(model_spec=model_spec("slow"))
        request.inputs["milliseconds"].CopyFrom(tf.make_tensor_proto(milliseconds, tf.int64))
        return self.prediction.Predict.future(request, timeout=timeout_s)

    def classify(self, name: str, *examples: Any, **spec: Any) -> classification_pb2.ClassificationResponse:
        request = classification_pb2.ClassificationRequest(model_spec=model_spec(name, **spec))
        request.input.example_list.examples.extend(examples)
        return self.prediction.Classify(request, timeout=20)

    def regress(self, name: str, *examples: Any, **spec: Any) -> regression_pb2.RegressionResponse:
        request = regression_pb2.RegressionRequest(model_spec=model_spec(name, **spec))
        request.input.example_list.examples.extend(examples)
        return self.prediction.Regress(request, timeout=20)

    def infer(self, *tasks: tuple[str, str, str], examples: Any = ()) -> inference_pb2.MultiInferenceResponse:
        """MultiInference; a task is (model, signature, method)."""
        request = inference_pb2.MultiInferenceRequest()
        for name, signature, method in tasks:
            spec = model_spec(name, signature=signature)
            request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{method}")
        request.input.example_list.examples.extend(examples)
        return self.prediction.MultiInference(request, timeout=20)

    def status(self, name: str, **spec: Any) -> list[tuple[int, str]]:
        """Return (version, state) of the versions, in the response's order."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(name, **spec))
        found = self.model.GetModelStatus(request, timeout=20).model_version_status
        return [(entry.version, STATES.State.Name(entry.state)) for entry in found]

    def load_error(self, name: str, version: int) -> tuple[int, str]:
        """Return (error code, error text) of a version."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(name, version=version))
        (found,) = self.model.GetModelStatus(request, timeout=20).model_version_status
        return found.status.error_code, found.status.error_message

    def responding_version(self, name: str, **spec: Any) -> int:
        """Return which version of a `versioned` model responds; its output and the model_spec must agree."""
        response = self.predict(name, {"x": tf.constant([1.0])}, **spec)
        assert list(response.outputs["version"].int64_val) == [response.model_spec.version.value]
        return int(response.model_spec.version.value)

    def rest(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Response:
        """Send one HTTP request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=timeout_s)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, call: str, body: Any, **options: Any) -> Response:
        """POST /v1/models/`call`."""
        return self.rest("POST", f"/v1/models/{call}", body, **options)

    def get(self, path: str, **options: Any) -> Response:
        """GET /v1/models/`path`."""
        return self.rest("GET", f"/v1/models/{path}", **options)

    def connection(self, port: int | None = None) -> socket.socket:
        """Open a TCP connection, to the REST port by default."""
        return socket.create_connection((HOST, port or self.rest_port), timeout=30)


def model_spec(name: str, *, version: int | None = None, label: str = "", signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label
    return spec


def tensor(value: Any) -> Any:
    return value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)


def example(**features: Any) -> tf.train.Example:
    """Return a tf.Example of float features."""
    found = tf.train.Example()
    for name, values in features.items():
        found.features.feature[name].float_list.value.extend(values if isinstance(values, list) else [values])
    return found


@contextmanager
def refused(code: grpc.StatusCode, text: str | None = None) -> Iterator[None]:
    """Assert that the block fails with this code and exactly this text (None: any)."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    if text is not None:
        assert caught.value.details() == text
