"""ModelService.HandleReloadConfigRequest, and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.support.clients import refused
from tests.support.servers import Server, config_list, model_config, wait_for

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
X = {"x": [1.0]}


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """A server for this module; each test first reloads the models that it needs."""
    found = Server(models, ("--file_system_poll_wait_seconds=1",))
    found.configure(model_config("half", models / "half"))
    try:
        yield found.start()
    finally:
        found.stop()


def reload(server: Server, *models: str) -> model_management_pb2.ReloadConfigResponse:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config_list(*models), request.config)
    return server.model.HandleReloadConfigRequest(request, timeout=30)


def versioned(models: Path, *numbers: int, labels: Mapping[str, int] | None = None) -> str:
    policy = "specific { " + " ".join(f"versions: {n}" for n in numbers) + " }"
    return model_config("versioned", models / "versioned", policy=policy, labels=labels)


def settled(server: Server, *numbers: int) -> Any:
    """Wait until exactly these versions are available."""

    def there() -> bool:
        found = server.status("versioned")
        available = sorted(n for n, state in found if state == "AVAILABLE")
        return available == sorted(numbers) and all(state in ("AVAILABLE", "END") for _, state in found)

    return wait_for(there)


def test_add_and_remove_models(server: Server, models: Path) -> None:
    """The whole list is replaced; the call returns when the new models are available."""
    response = reload(server, model_config("half", models / "half"), model_config("pair", models / "pair"))
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert server.predict("pair", {"a": [1.0], "b": [1.0]}) and server.predict("half", X)
    reload(server, model_config("pair", models / "pair"))
    with refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(half)"):
        server.predict("half", X)
    assert wait_for(lambda: server.status("half") == [(123, "END")])
    reload(server, model_config("half", models / "half"))
    assert server.predict("half", X)


def test_one_folder_under_two_names(server: Server, models: Path) -> None:
    reload(server, model_config("one", models / "half"), model_config("two", models / "half"))
    assert server.predict("one", X).outputs == server.predict("two", X).outputs


def test_another_policy(server: Server, models: Path) -> None:
    reload(server, versioned(models, 1, 3))
    settled(server, 1, 3)
    assert server.responding_version("versioned") == 3
    reload(server, versioned(models, 2, 3))
    settled(server, 2, 3)
    assert server.status("versioned") == [(3, "AVAILABLE"), (2, "AVAILABLE"), (1, "END")]
    with refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(versioned, 1)"):
        server.predict("versioned", X, version=1)
    reload(server, model_config("versioned", models / "versioned", policy="all {}"))
    settled(server, 1, 2, 3, 4, 5)
    reload(server, model_config("versioned", models / "versioned", policy="latest { num_versions: 2 }"))
    settled(server, 4, 5)


def test_labels_move(server: Server, models: Path) -> None:
    reload(server, versioned(models, 1, 2))
    settled(server, 1, 2)
    reload(server, versioned(models, 1, 2, labels={"stable": 1, "canary": 2}))
    assert [server.responding_version("versioned", label=label) for label in ("stable", "canary")] == [1, 2]
    reload(server, versioned(models, 1, 2, labels={"stable": 2}))
    assert server.responding_version("versioned", label="stable") == 2
    with refused(INVALID, "Unrecognized servable version label: canary"):
        server.predict("versioned", X, label="canary")


def test_a_label_for_an_unavailable_version(server: Server, models: Path) -> None:
    reload(server, versioned(models, 1))
    settled(server, 1)
    text = "Request to assign label to version 2 of model versioned, which is not currently available for inference"
    with pytest.raises(grpc.RpcError, match=text) as caught:
        reload(server, versioned(models, 1, 2, labels={"canary": 2}))
    assert caught.value.code() == FAILED_PRECONDITION
    assert server.responding_version("versioned") == 1


BAD_CONFIGS = {
    "twice": (
        'config { name: "m" base_path: "/a" model_platform: "tensorflow" } '
        'config { name: "m" base_path: "/b" model_platform: "tensorflow" }',
        "Illegal to list model m multiple times in config list",
    ),
    "relative": (
        'config { name: "m" base_path: "a" model_platform: "tensorflow" }',
        "Expected model m to have an absolute path or URI; got base_path()=a",
    ),
    "no platform": ('config { name: "m" base_path: "/a" }', None),
    "unknown platform": ('config { name: "m" base_path: "/a" model_platform: "onnx" }', None),
    "logging": (
        'config { name: "m" base_path: "/a" model_platform: "tensorflow" '
        "logging_config { sampling_config { sampling_rate: 1.0 } } }",
        "No request-logger-creator provided.",
    ),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_refused(server: Server, models: Path, case: str) -> None:
    """The previous models are still served."""
    reload(server, model_config("half", models / "half"))
    content, text = BAD_CONFIGS[case]
    with refused(INVALID, text):
        reload(server, content)
    assert server.predict("half", X)


def test_refused_without_a_list(server: Server) -> None:
    text = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    request = model_management_pb2.ReloadConfigRequest()
    with refused(INVALID, text):
        server.model.HandleReloadConfigRequest(request, timeout=20)
    request.config.CopyFrom(model_server_config_pb2.ModelServerConfig())
    request.config.custom_model_config.SetInParent()
    with refused(INVALID, text):
        server.model.HandleReloadConfigRequest(request, timeout=20)


def test_the_call_waits_for_a_new_model_that_has_no_version(server: Server, models: Path, tmp_path: Path) -> None:
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        request = model_management_pb2.ReloadConfigRequest()
        config = config_list(model_config("half", models / "half"), model_config("empty", tmp_path))
        text_format.Parse(config, request.config)
        server.model.HandleReloadConfigRequest(request, timeout=0.2)
    assert server.predict("half", X)
    reload(server, model_config("half", models / "half"))
