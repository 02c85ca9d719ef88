"""A client for TensorFlow Serving and servers with the same API, over gRPC or REST. Does not import TensorFlow.

    with connect("127.0.0.1:8500") as client:  # or "http://127.0.0.1:8501" for REST
        prediction = client.predict({"images": images}, model="mnist")
        prediction.outputs["probabilities"], prediction.version

Both transports have the same arguments, results and errors. All requests are read-only, so the client retries them
while the server is UNAVAILABLE or cancels them, until the deadline. It has a budget of retries, so that many clients
do not multiply the load of an overloaded server. Proxy settings in the environment are ignored. Threads may share
a client.
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
from serving.client.errors import Cancelled, Unavailable
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array

T = TypeVar("T")
TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 4
BACKOFF_S: Final = 0.1  # before the second attempt; doubles for each further attempt
RETRY_BUDGET: Final = 10.0  # retries that a client may make at once ...
RETRY_RATIO: Final = 0.1  # ... and more for each successful call
DEFAULT_SIGNATURE: Final = "serving_default"


class Prediction(NamedTuple):
    """Outputs by name (strings as object arrays of bytes), and the version that computed them."""

    outputs: dict[str, Array]
    version: int


@dataclass(frozen=True)
class VersionStatus:
    """`state` is START, LOADING, AVAILABLE, UNLOADING or END; `error_code` is OK unless loading failed."""

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
    """Sends requests to one server.

    Args:
        address: server address; see `connect`.
        timeout_s: timeout of a call including its retries; can be overridden per call.
        attempts: maximum attempts per call, while the server is UNAVAILABLE or cancels it.
    """

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._retries_left = RETRY_BUDGET  # not locked: a lost update of another thread does not matter

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
        """Run a signature on `inputs`: arrays (or nested lists) by name, with the dtypes that the model declares.

        Args:
            version, label: the version to use; by default the newest available one.
            signature: empty means serving_default.

        Raises:
            ServingClientError: the subclass for the error code; see errors.py.
            UsageError: both version and label are given.
        """
        spec = _model_spec(model, version, label)
        spec.signature_name = signature
        return self._retry(lambda left_s: self._predict(spec, inputs, left_s), timeout_s)

    def status(self, model: str, version: int | None = None, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """Return the status of one or all versions, newest first. Raises ServingClientError."""
        spec = _model_spec(model, version, None)
        return self._retry(lambda left_s: self._status(spec, left_s), timeout_s)

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None, *, timeout_s: float | None = None
    ) -> Metadata:
        """Return the signatures of a version, by default the newest. Raises ServingClientError, UsageError."""
        spec = _model_spec(model, version, label)
        return self._retry(lambda left_s: self._metadata(spec, left_s), timeout_s)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _predict(self, spec: pb.ModelSpec, inputs: Mapping[str, Any], timeout_s: float) -> Prediction: ...

    @abstractmethod
    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]: ...

    @abstractmethod
    def _metadata(self, spec: pb.ModelSpec, timeout_s: float) -> Metadata: ...

    def _retry(self, call: Callable[[float], T], timeout_s: float | None) -> T:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        for attempt in itertools.count(1):
            try:
                result = call(deadline - time.monotonic())
            except (Unavailable, Cancelled):
                # Jitter, so that the clients of a restarted server do not all reconnect at once.
                pause_s = BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
                late = time.monotonic() + pause_s >= deadline
                if late or attempt >= self._attempts or self._retries_left < 1:
                    raise
                self._retries_left -= 1
                time.sleep(pause_s)
            else:
                self._retries_left = min(self._retries_left + RETRY_RATIO, RETRY_BUDGET)
                return result
        raise AssertionError("unreachable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _model_spec(model: str, version: int | None, label: str | None) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=model)
    if version is not None and label is not None:
        raise UsageError(f"both version {version} and label {label!r} given for model {model}", "Give one of them.")
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    return spec
