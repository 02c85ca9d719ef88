"""Valid requests to the models of tests/support/saved_models.py, over both protocols: what the fuzzer mutates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

PREDICTION: Final = "/tensorflow.serving.PredictionService"
MODEL: Final = "/tensorflow.serving.ModelService"
REQUESTS: Final[dict[str, type[Message]]] = {
    f"{PREDICTION}/Predict": pb.PredictRequest,
    f"{PREDICTION}/Classify": pb.ClassificationRequest,
    f"{PREDICTION}/Regress": pb.RegressionRequest,
    f"{PREDICTION}/MultiInference": pb.MultiInferenceRequest,
    f"{PREDICTION}/GetModelMetadata": pb.GetModelMetadataRequest,
    f"{MODEL}/GetModelStatus": pb.GetModelStatusRequest,
    f"{MODEL}/HandleReloadConfigRequest": pb.ReloadConfigRequest,
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest,
}
MODELS: Final = ("half", "pair", "text", "scalar", "types", "examples", "defaults")
DTYPES: Final = (
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
)


@dataclass(frozen=True)
class Case:
    """One request: the message of an RPC, or what is sent to the HTTP port if `method` is empty."""

    method: str
    content: bytes

    def to_bytes(self) -> bytes:
        return json.dumps(self.method).encode() + b"\n" + self.content

    @staticmethod
    def from_bytes(data: bytes) -> Case:
        method, _, content = data.partition(b"\n")
        return Case(json.loads(method), content)


def http(method: str, path: str, body: bytes = b"", headers: str = "") -> Case:
    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{length}{headers}\r\n"
    return Case("", head.encode() + body)


def seeds() -> list[Case]:
    return [*_grpc(), *_rest()]


def _grpc() -> Iterator[Case]:
    def predict(model: str, signature: str = "", **inputs: Any) -> Case:
        request = pb.PredictRequest(model_spec={"name": model, "signature_name": signature})
        for alias, (value, content) in inputs.items():
            request.inputs[alias].CopyFrom(to_proto(value, content=content))
        return Case(f"{PREDICTION}/Predict", request.SerializeToString())

    for content in (False, True):
        for name in DTYPES:
            yield predict("types", name, x=(np.ones((2, 2), name), content))
        yield predict("half", x=(np.float32([[1], [2]]), content))
        yield predict("pair", a=(np.float32([1, 2]), content), b=(np.float32([3, 4]), content))
        yield predict("defaults", x=(np.float32([1]), content))
    yield predict("text", s=([[b"a", b"bc"]], False))
    yield predict("types", "string", x=([b"a", b"\xff"], False))
    examples = [_example(x=[0.5, 1.5]), _example(x=[2.0, 3.0])]
    for path, kind in ((f"{PREDICTION}/Classify", "classify"), (f"{PREDICTION}/Regress", "regress")):
        for model, given in (("half", [_example(x=[1.0])]), ("examples", examples)):
            request = REQUESTS[path](model_spec={"name": model, "signature_name": kind})  # type: ignore[call-arg]
            request.input.example_list.examples.extend(given)  # type: ignore[attr-defined]
            yield Case(path, request.SerializeToString())
    context = pb.RegressionRequest(model_spec={"name": "half", "signature_name": "regress"})
    context.input.example_list_with_context.context.CopyFrom(_example(x=[1.0]))
    context.input.example_list_with_context.examples.add()
    yield Case(f"{PREDICTION}/Regress", context.SerializeToString())
    several = pb.MultiInferenceRequest(input={"example_list": {"examples": examples}})
    for kind in ("classify", "regress"):
        spec = {"name": "examples", "signature_name": kind}
        several.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{kind}")
    yield Case(f"{PREDICTION}/MultiInference", several.SerializeToString())
    metadata = pb.GetModelMetadataRequest(model_spec={"name": "half"}, metadata_field=["signature_def"])
    yield Case(f"{PREDICTION}/GetModelMetadata", metadata.SerializeToString())
    status = pb.GetModelStatusRequest(model_spec={"name": "half", "version": {"value": 123}})
    yield Case(f"{MODEL}/GetModelStatus", status.SerializeToString())
    config = pb.ModelConfig(name="new", base_path="/nowhere", model_platform="tensorflow", version_labels={"stable": 1})
    reload = pb.ReloadConfigRequest(config={"model_config_list": {"config": [config]}})
    yield Case(f"{MODEL}/HandleReloadConfigRequest", reload.SerializeToString())
    yield Case(
        "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="ModelService").SerializeToString()
    )


def _rest() -> Iterator[Case]:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("half:predict", {"instances": [[1.0], [2]]}),
        ("half:predict", {"inputs": {"x": [[1.0]]}}),
        ("half/versions/123:predict", {"signature_name": "serving_default", "instances": [{"x": [1.0]}]}),
        ("pair:predict", {"instances": [{"a": 1, "b": 2.5}]}),
        ("pair:predict", {"inputs": {"a": [1], "b": [2]}}),
        ("text:predict", {"inputs": {"s": [["a", {"b64": "YWI="}]]}}),
        ("scalar:predict", {"inputs": 3}),
        ("scalar:predict", {"signature_name": "uneven", "inputs": [1, 2]}),
        ("defaults:predict", {"inputs": {"x": [1], "bias": 2}}),
        *(("types:predict", {"signature_name": name, "instances": [1, 0]}) for name in DTYPES),
        ("types:predict", {"signature_name": "bool", "instances": [[True], [False]]}),
        ("half:classify", {"signature_name": "classify", "examples": [{"x": 1.0}, {"x": [2.5]}]}),
        ("half:regress", {"signature_name": "regress", "context": {"x": 1.0}, "examples": [{"y": "t"}, {"z": 1}]}),
        ("examples:regress", {"signature_name": "regress", "examples": [{"x": [1.0, 2.0]}]}),
    ]
    for path, body in bodies:
        yield http("POST", f"/v1/models/{path}", json.dumps(body).encode())
    yield http("POST", "/v1/models/half:predict", b'{"instances": [NaN, -Infinity, 1e400]}', "Connection: close\r\n")
    for path in ("half", "half/metadata", "half/versions/123", "half/labels/stable", "none"):
        yield http("GET", f"/v1/models/{path}")
    yield http("GET", "/monitoring/prometheus/metrics")
    yield http("OPTIONS", "/v1/models/half:predict", headers="Origin: http://a\r\n")


def _example(**features: list[float]) -> pb.Example:
    example = pb.Example()
    for name, values in features.items():
        example.features.feature[name].float_list.value.extend(values)
    return example
