"""The RPCs on top of the manager: find the version, run it, count the request. Shared by gRPC and REST."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from serving.model_server import data_plane, versions
from serving.model_server.batching import Steps, run_alone
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.manager import Manager
from serving.model_server.metrics import Metrics
from serving.model_server.servable import Servable
from serving.protos import serving_pb2 as pb


class _WithSpec(Protocol):
    @property
    def model_spec(self) -> pb.ModelSpec: ...

    def HasField(self, field_name: Any) -> bool: ...


Request = TypeVar("Request", bound=_WithSpec)
Response = TypeVar("Response")
Handler = Callable[[Servable, Request, int], Response]

API_NAMES = {"predict": "Predict", "classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference"}


class Service:
    """Every method raises ServingError and may be called from any thread."""

    def __init__(self, manager: Manager, metrics: Metrics, answer_as_content: bool = False) -> None:
        self.manager, self.metrics = manager, metrics
        self._as_content = answer_as_content

    def predict(self, request: pb.PredictRequest, timeout_ms: int, entrypoint: str) -> pb.PredictResponse:
        return run_alone(self.predict_steps(request, timeout_ms, entrypoint))

    def predict_steps(self, request: pb.PredictRequest, timeout_ms: int, entrypoint: str) -> Steps[pb.PredictResponse]:
        """`predict` in two halves, so that requests can share a run of the session."""
        started, code = time.perf_counter(), Code.UNKNOWN
        try:
            _require_spec(request)
            with self.manager.use(request.model_spec) as servable:
                response = yield from data_plane.predict_steps(servable, request, timeout_ms, self._as_content)
            code = Code.OK
            return response
        except ServingError as e:
            code = e.code
            raise
        finally:
            latency_us = (time.perf_counter() - started) * 1e6
            self.metrics.request(request.model_spec.name, "Predict", entrypoint, code.name, latency_us)

    def classify(
        self, request: pb.ClassificationRequest, timeout_ms: int, entrypoint: str
    ) -> pb.ClassificationResponse:
        return self._counted("Classify", entrypoint, request, timeout_ms, data_plane.classify)

    def regress(self, request: pb.RegressionRequest, timeout_ms: int, entrypoint: str) -> pb.RegressionResponse:
        return self._counted("Regress", entrypoint, request, timeout_ms, data_plane.regress)

    def multi_inference(self, request: pb.MultiInferenceRequest, timeout_ms: int) -> pb.MultiInferenceResponse:
        if not request.tasks:
            raise invalid("Inference request must contain at least one task.")
        _require_spec(request.tasks[0])
        with self.manager.use(request.tasks[0].model_spec) as servable:
            return data_plane.multi_inference(servable, request, timeout_ms)

    def metadata(self, request: pb.GetModelMetadataRequest) -> pb.GetModelMetadataResponse:
        _require_spec(request)
        with self.manager.use(request.model_spec) as servable:
            return data_plane.metadata(servable, request)

    def status(self, request: pb.GetModelStatusRequest) -> pb.GetModelStatusResponse:
        _require_spec(request)
        return self.manager.status(request.model_spec)

    def reload(self, request: pb.ReloadConfigRequest) -> pb.ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        configs = list(request.config.model_config_list.config)
        versions.check(configs)
        self.manager.reload(configs)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    def _counted(
        self, api: str, entrypoint: str, request: Request, timeout_ms: int, handler: Handler[Request, Response]
    ) -> Response:
        started = time.perf_counter()
        code = Code.UNKNOWN
        try:
            _require_spec(request)
            with self.manager.use(request.model_spec) as servable:
                response = handler(servable, request, timeout_ms)
            code = Code.OK
            return response
        except ServingError as e:
            code = e.code
            raise
        finally:
            latency_us = (time.perf_counter() - started) * 1e6
            self.metrics.request(request.model_spec.name, api, entrypoint, code.name, latency_us)


def _require_spec(request: _WithSpec) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
