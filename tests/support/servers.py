"""A running server of whichever backend SERVING_BACKEND names, and plain clients for it.

The gRPC client is tensorflow-serving-api's stubs and the REST client http.client: nothing here is the product's own.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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

from components.common.ports import free_port
from tests.conftest import ROOT

BACKEND: Final = os.environ.get("SERVING_BACKEND", "embedded")
IMAGE: Final = os.environ.get("SERVING_IMAGE", "tensorflow/serving:2.20.0")
HOST: Final = "127.0.0.1"
READY_S: Final = 60.0
STATES: Final = get_model_status_pb2.ModelVersionStatus
UNLIMITED: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

embedded_only = pytest.mark.skipif(BACKEND != "embedded", reason="TensorFlow Serving itself does not do this")


def missing_backend() -> str:
    """Why the backend cannot be had here; empty if it can."""
    if BACKEND == "embedded":
        return ""
    if BACKEND == "binary":
        return "" if shutil.which("tensorflow_model_server") else "no tensorflow_model_server on PATH"
    if BACKEND == "container":
        return "" if _engine() else "neither docker nor podman answers here"
    raise pytest.UsageError(f"SERVING_BACKEND={BACKEND}: expected embedded, binary or container")


def _engine() -> str | None:
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            done = subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False)
            if done.returncode == 0:
                return engine
    return None


def command(*flags: str, folder: Path) -> list[str]:
    """The command line that runs the backend; `folder` is what a container gets to see."""
    if BACKEND == "embedded":
        return [sys.executable, "-m", "serving.model_server", *flags]
    if BACKEND == "binary":
        return ["tensorflow_model_server", *flags]
    engine = _engine() or "docker"
    mount = ["--network=host", f"--volume={folder}:{folder}", "--entrypoint=tensorflow_model_server"]
    return [engine, "run", "--rm", "--init", *mount, IMAGE, *flags]


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Poll until the condition holds; answers what it answered."""
    end = time.monotonic() + timeout_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not so after {timeout_s} s: {condition}")
        time.sleep(0.02)


def model_config(name: str, base_path: Path, *, policy: str = "", labels: Mapping[str, int] | None = None) -> str:
    """One `config {...}` of a ModelConfigList in text format."""
    lines = [f'name: "{name}"', f'base_path: "{base_path}"', 'model_platform: "tensorflow"']
    if policy:
        lines.append(f"model_version_policy {{ {policy} }}")
    lines += [f'version_labels {{ key: "{k}" value: {v} }}' for k, v in (labels or {}).items()]
    return "config { " + " ".join(lines) + " }"


def config_list(*models: str) -> str:
    return "model_config_list { " + " ".join(models) + " }\n"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

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
        """Text of an error body, which holds nothing else."""
        ((key, text),) = self.json.items()
        assert key == "error"
        return str(text)


@dataclass
class Server:
    """A server process. Its models are what `folder`/models.config says."""

    folder: Path
    flags: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    rest_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.log = self.folder / f"server-{self.port}.log"
        self.channel = grpc.insecure_channel(f"{HOST}:{self.port}", options=UNLIMITED)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def config_file(self) -> Path:
        return self.folder / "models.config"

    def configure(self, *models: str) -> Server:
        """Write the model config file, at once as an editor does it."""
        temporary = self.config_file.with_suffix(".new")
        temporary.write_text(config_list(*models))
        temporary.replace(self.config_file)
        return self

    def launch(self) -> Server:
        """Start the process; does not wait."""
        flags = [f"--port={self.port}", f"--rest_api_port={self.rest_port}"]
        if not any(flag.startswith("--model_base_path") for flag in self.flags):
            flags.append(f"--model_config_file={self.config_file}")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command(*flags, *self.flags, folder=self.folder), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def start(self) -> Server:
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        process = self.process
        wait_for(lambda: self.is_open() or process.poll() is not None, READY_S)
        assert process.poll() is None, f"exit code {process.poll()}:\n{self.output}"
        wait_for(lambda: self.is_open(self.rest_port), READY_S)

    def is_open(self, port: int | None = None) -> bool:
        with socket.socket() as s:
            return s.connect_ex((HOST, port or self.port)) == 0

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout_s: float = READY_S) -> int:
        """Exit code, once the process has ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.channel.close()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    # ---- clients ----

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_filter: tuple[str, ...] = (),
        timeout_s: float = 20.0,
        **spec: Any,
    ) -> predict_pb2.PredictResponse:
        """Predict; inputs are TensorProtos or what tf.make_tensor_proto takes; `spec` as for `model_spec`."""
        request = predict_pb2.PredictRequest(model_spec=model_spec(name, **spec), output_filter=output_filter)
        for alias, value in (inputs or {}).items():
            request.inputs[alias].CopyFrom(tensor(value))
        return self.prediction.Predict(request, timeout=timeout_s)

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
        """(version, state), in the answer's order."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(name, **spec))
        found = self.model.GetModelStatus(request, timeout=20).model_version_status
        return [(entry.version, STATES.State.Name(entry.state)) for entry in found]

    def answered_by(self, name: str, **spec: Any) -> int:
        """The version that says it answered; `versioned` also says so itself."""
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
    ) -> Answer:
        """One HTTP request; a body that is not bytes goes as JSON."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=timeout_s)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def post(self, call: str, body: Any, **options: Any) -> Answer:
        """POST /v1/models/`call`."""
        return self.rest("POST", f"/v1/models/{call}", body, **options)

    def get(self, path: str, **options: Any) -> Answer:
        """GET /v1/models/`path`."""
        return self.rest("GET", f"/v1/models/{path}", **options)

    def connection(self, port: int | None = None) -> socket.socket:
        """A bare connection, to the REST port unless told otherwise."""
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
    """A tf.Example of float features."""
    found = tf.train.Example()
    for name, values in features.items():
        found.features.feature[name].float_list.value.extend(values if isinstance(values, list) else [values])
    return found


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


@contextmanager
def refused(code: grpc.StatusCode, text: str | None = None) -> Iterator[None]:
    """The block must be answered with this code and exactly this text (None: any)."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    if text is not None:
        assert caught.value.details() == text
