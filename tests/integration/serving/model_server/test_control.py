"""Who may change what is served, and that no change can stop the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.support.clients import refused
from tests.support.servers import Server, embedded_only, model_config, wait_for

pytestmark = embedded_only


def reload(server: Server, *models: tuple[str, str], timeout_s: float = 20) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in models:
        request.config.model_config_list.config.append(
            model_server_config_pb2.ModelConfig(name=name, base_path=base_path, model_platform="tensorflow")
        )
    return server.model.HandleReloadConfigRequest(request, timeout=timeout_s)


def test_after_hostile_reloads_a_valid_one_works(start: Callable[..., Server], models: Path, tmp_path: Path) -> None:
    server = start(model_config("half", models / "half"))
    (tmp_path / "empty").mkdir()
    pipe = tmp_path / "pipe" / "1"
    pipe.mkdir(parents=True)
    os.mkfifo(pipe / "saved_model.pb")
    for number in range(12):
        with pytest.raises(grpc.RpcError):
            reload(server, ("half", f"{models}/half"), (f"empty{number}", f"{tmp_path}/empty"), timeout_s=0.2)
    for number, base_path in enumerate(("/x/\0y", "/proc/self/mem", f"{pipe.parent}", "/" + "y" * 5000)):
        with pytest.raises(grpc.RpcError):
            reload(server, ("half", f"{models}/half"), (f"hostile{number}", base_path), timeout_s=1)
        assert server.predict("half", {"x": [1.0]}).outputs["y"].float_val[0] == 2.5
    wait_for(lambda: reload(server, ("half", f"{models}/half"), ("pair", f"{models}/pair")) is not None)
    assert server.predict("pair", {"a": [1.0], "b": [2.0]}).outputs["sum"].float_val[0] == 3


def test_reload_is_off_unless_bound_to_loopback(start: Callable[..., Server], models: Path) -> None:
    server = start(model_config("half", models / "half"), flags=("--bind_address=0.0.0.0",))
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        reload(server, ("half", f"{models}/half"))
    allowed = start(model_config("half", models / "half"), flags=("--bind_address=0.0.0.0", "--allow_reload=true"))
    reload(allowed, ("half", f"{models}/half"))
