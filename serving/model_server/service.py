"""Implements the RPCs: finds the version that a request names, runs it and records metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from serving.model_server import data_plane, versions
from serving.model_server.batching import Steps, run_alone
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.limits import Admission, Ticket
from serving.model_server.manager import Manager
from serving.model_server.metrics import Metrics
from serving.model_server.servable import Servable
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, array_bytes


class _WithSpec(Protocol):
    @property
    def model_spec(self) -> pb.ModelSpec: ...

    def HasField(self, field_name: Any) -> bool: ...


class Service:
    """Thread-safe. Any method may raise ServingError."""

    def __init__(self, manager: Manager, metrics: Metrics, admission: Admission, as_content: bool = False) -> None:
        self.manager, self.metrics, self.admission = manager, metrics, admission
        self._as_content = as_content

    def predict(
        self, request: pb.PredictRequest, ticket: Ticket, inputs: Any = None, *, entrypoint: str
    ) -> pb.PredictResponse:
        return run_alone(self.predict_steps(request, ticket, inputs, entrypoint=entrypoint))

    def predict_steps(
        self, request: pb.PredictRequest, ticket: Ticket, inputs: Any = None, *, entrypoint: str
    ) -> Steps[pb.PredictResponse]:
        """Predict in two steps (see Steps), so that requests can share a run of the session."""
        with self._counted("Predict", entrypoint, request) as servable:
            self.account(ticket, request, inputs.values() if inputs else ())
            timeout_ms = ticket.remaining_ms()
            return (yield from data_plane.predict_steps(servable, request, timeout_ms, self._as_content, inputs))

    def classify(
        self, request: pb.ClassificationRequest, ticket: Ticket, examples: Array | None = None, *, entrypoint: str
    ) -> pb.ClassificationResponse:
        with self._counted("Classify", entrypoint, request) as servable:
            self.account(ticket, request, () if examples is None else (examples,))
            return data_plane.classify(servable, request, ticket.remaining_ms(), examples)

    def regress(
        self, request: pb.RegressionRequest, ticket: Ticket, examples: Array | None = None, *, entrypoint: str
    ) -> pb.RegressionResponse:
        with self._counted("Regress", entrypoint, request) as servable:
            self.account(ticket, request, () if examples is None else (examples,))
            return data_plane.regress(servable, request, ticket.remaining_ms(), examples)

    def multi_inference(
        self, request: pb.MultiInferenceRequest, ticket: Ticket, examples: Array | None = None
    ) -> pb.MultiInferenceResponse:
        if not request.tasks:
            raise invalid("Inference request must contain at least one task.")
        _require_spec(request.tasks[0])
        with self.manager.use(request.tasks[0].model_spec) as servable:
            self.account(ticket, request, () if examples is None else (examples,))
            return data_plane.multi_inference(servable, request, ticket.remaining_ms(), examples)

    def account(self, ticket: Ticket, request: Any, decoded: Iterable[Array]) -> None:
        """Account for the tensors of a request, as filled, before they are. Raises ServingError."""
        size_bytes = data_plane.tensor_bytes(request) + sum(map(array_bytes, decoded))
        self.admission.check_tensors(size_bytes)
        ticket.grow(size_bytes)

    def metadata(self, request: pb.GetModelMetadataRequest) -> pb.GetModelMetadataResponse:
        _require_spec(request)
        with self.manager.use(request.model_spec) as servable:
            return data_plane.metadata(servable, request)

    def status(self, request: pb.GetModelStatusRequest) -> pb.GetModelStatusResponse:
        _require_spec(request)
        return self.manager.status(request.model_spec)

    def reload(self, request: pb.ReloadConfigRequest, timeout_s: float) -> pb.ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        configs = list(request.config.model_config_list.config)
        versions.check(configs)
        self.manager.reload(configs, timeout_s)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    @contextmanager
    def _counted(self, api: str, entrypoint: str, request: _WithSpec) -> Iterator[Servable]:
        """Hold the version that a request names; record the block's status and latency in the metrics."""
        started, code = time.perf_counter(), Code.UNKNOWN
        try:
            _require_spec(request)
            with self.manager.use(request.model_spec) as servable:
                yield servable
            code = Code.OK
        except ServingError as e:
            code = e.code
            raise
        finally:
            latency_us = (time.perf_counter() - started) * 1e6
            self.metrics.request(request.model_spec.name, api, entrypoint, code.name, latency_us)


def _require_spec(request: _WithSpec) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
