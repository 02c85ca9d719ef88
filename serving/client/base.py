"""One client for TensorFlow Serving and whatever speaks its protocol, over gRPC or REST. No TensorFlow import.

    with connect("127.0.0.1:8500") as client:  # or "http://127.0.0.1:8501" for REST
        answer = client.predict({"images": images}, model="mnist")
        answer.outputs["probabilities"], answer.version

Both transports take and return the same things and raise the same errors. Requests only read, so those that find no
server are repeated within their deadline. Connections go straight to the address: proxies of the environment are not
used. A client may be shared by threads.
"""

from __future__ import annotations

import itertools
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from components.common.errors import UsageError
from serving.client.errors import Unavailable
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

T = TypeVar("T")
TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 4
BACKOFF_S: Final = 0.1  # before the second attempt; doubles from there
DEFAULT_SIGNATURE: Final = "serving_default"


class Prediction(NamedTuple):
    """Outputs by name, strings as object arrays of bytes, and the version that computed them."""

    outputs: dict[str, Array]
    version: int


@dataclass(frozen=True)
class VersionStatus:
    """State is START, LOADING, AVAILABLE, UNLOADING or END; error_code is OK unless loading failed."""

    version: int
    state: str
    error_code: str
    error_message: str


@dataclass(frozen=True)
class Metadata:
    """The signatures of one loaded version, by name, as the SavedModel declares them."""

    model: str
    version: int
    signatures: dict[str, pb.SignatureDef]


class Client(ABC):
    """Asks one server.

    Args:
        address: of the server; see `connect`.
        timeout_s: for a whole call, repetitions included; calls may name their own.
        attempts: how often a call is tried while the server is UNAVAILABLE.
    """

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._attempts = attempts

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        timeout_s: float | None = None,
    ) -> Prediction:
        """Run a signature on `inputs`: arrays (or nested lists) by name, in the dtypes that the model declares.

        Args:
            version, label: which version; the newest available one if neither is given.
            signature: empty means serving_default.

        Raises:
            ServingClientError: a subclass for each code.
            UsageError: both version and label.
        """
        spec = _model_spec(model, version, label)
        spec.signature_name = signature
        return self._retried(lambda left_s: self._predict(spec, inputs, left_s), timeout_s)

    def status(self, model: str, version: int | None = None, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """States of one version or of all, newest first. Raises ServingClientError."""
        spec = _model_spec(model, version, None)
        return self._retried(lambda left_s: self._status(spec, left_s), timeout_s)

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None, *, timeout_s: float | None = None
    ) -> Metadata:
        """Signatures of a version, by default of the newest. Raises ServingClientError, UsageError."""
        spec = _model_spec(model, version, label)
        return self._retried(lambda left_s: self._metadata(spec, left_s), timeout_s)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _predict(self, spec: pb.ModelSpec, inputs: Mapping[str, Any], timeout_s: float) -> Prediction: ...

    @abstractmethod
    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]: ...

    @abstractmethod
    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata: ...

    def _retried(self, call: Callable[[float], T], timeout_s: float | None) -> T:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        for attempt in itertools.count(1):
            try:
                return call(deadline - time.monotonic())
            except Unavailable:
                # Jitter, so that the clients of a restarted server do not come back all at once.
                pause_s = BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
                if attempt >= self._attempts or time.monotonic() + pause_s >= deadline:
                    raise
                time.sleep(pause_s)
        raise AssertionError("the loop has no other end")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _model_spec(model: str, version: int | None, label: str | None) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=model)
    if version is not None and label is not None:
        raise UsageError(f"both version {version} and label {label!r} of model {model}", "Give one of them.")
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    return spec
