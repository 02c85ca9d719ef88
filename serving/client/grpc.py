"""The client's gRPC transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import grpc

from serving.client.base import ATTEMPTS, TIMEOUT_S, Client, Metadata, Prediction, VersionStatus
from serving.client.errors import from_code
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import TensorError, from_proto, to_proto

M = TypeVar("M")
PREDICTION_SERVICE: Final = "/tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "/tensorflow.serving.ModelService"
SIGNATURE_DEF: Final = "signature_def"
OPTIONS: Final = (
    # By default, gRPC rejects responses over 4 MB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # This client does its own retries: each attempt must try to connect instead of returning the last failure.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class GrpcClient(Client):
    """A client over gRPC.

    Args:
        address: `host:port` or `unix:/path`.
        credentials: TLS credentials; None for plaintext.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__(address, timeout_s=timeout_s, attempts=attempts)
        self._channel = (
            grpc.insecure_channel(address, OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, OPTIONS)
        )
        self._call_predict = self._method(f"{PREDICTION_SERVICE}/Predict", pb.PredictRequest, pb.PredictResponse)
        self._call_metadata = self._method(
            f"{PREDICTION_SERVICE}/GetModelMetadata", pb.GetModelMetadataRequest, pb.GetModelMetadataResponse
        )
        self._call_status = self._method(
            f"{MODEL_SERVICE}/GetModelStatus", pb.GetModelStatusRequest, pb.GetModelStatusResponse
        )

    def close(self) -> None:
        self._attempts = 1  # closing cancels the calls of other threads, which are not to be retried
        self._channel.close()

    def _predict(self, spec: pb.ModelSpec, inputs: Mapping[str, Any], timeout_s: float) -> Prediction:
        request = pb.PredictRequest(model_spec=spec)
        for name, value in inputs.items():
            try:
                request.inputs[name].CopyFrom(to_proto(value, content=True))
            except (TensorError, ValueError, TypeError) as e:  # ValueError: numpy, for ragged lists
                raise from_code(self.address, "INVALID_ARGUMENT", f"input {name} cannot be sent: {e}") from e
        response = self._call(self._call_predict, request, timeout_s)
        try:
            outputs = {name: from_proto(tensor) for name, tensor in response.outputs.items()}
        except TensorError as e:
            raise from_code(self.address, "INTERNAL", f"the response cannot be read: {e}") from e
        return Prediction(outputs, response.model_spec.version.value)

    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]:
        response = self._call(self._call_status, pb.GetModelStatusRequest(model_spec=spec), timeout_s)
        return [
            VersionStatus(
                state.version,
                pb.ModelVersionStatus.State.Name(state.state),
                CODE_NAMES.get(state.status.error_code, "UNKNOWN"),
                state.status.error_message,
            )
            for state in response.model_version_status
        ]

    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata:
        request = pb.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
        response = self._call(self._call_metadata, request, timeout_s)
        # Any.Unpack would fail: it compares protobuf package names, which differ between this client and the server.
        signatures = pb.SignatureDefMap.FromString(response.metadata[SIGNATURE_DEF].value).signature_def
        return Metadata(spec.name, response.model_spec.version.value, dict(signatures))

    def _method(self, path: str, request: Any, response: type[M]) -> Callable[..., M]:
        method: Callable[..., M] = self._channel.unary_unary(
            path,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )
        return method

    def _call(self, method: Callable[..., M], request: Any, timeout_s: float) -> M:
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as e:
            raise from_code(self.address, e.code().name, e.details() or "no message") from e
