"""Start-up: flags, ports in use, config files and first versions that do not load."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.integration.serving.conftest import Start
from tests.support import saved_models
from tests.support.clients import refused
from tests.support.servers import Server, failed_start

FAILED = 255
X = {"x": [1.0]}


def test_flags_for_one_model(start: Start, models: Path) -> None:
    """Without --model_name, the model is named "default". Unknown flags are printed; health and metrics are off."""
    flags = (
        f"--model_base_path={models / 'slow'}",
        *("--no_such_flag=1", "--enable_profiler=false"),
        *("--rest_api_enable_cors_support", "--rest_api_timeout_in_ms=300"),
        "--enable_serialization_as_tensor_content=true",
    )
    server = start(flags=flags)
    assert "--no_such_flag=1" in server.output and "usage" in server.output.lower()
    output = server.predict("default", {"milliseconds": np.int64(0)}).outputs["slept"]
    assert len(output.tensor_content) == 8 and not output.int64_val
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        server.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
    assert server.rest("GET", "/monitoring/prometheus/metrics").code == 404
    for response in (server.get("default"), server.get("nix"), server.post("default:predict", b"")):
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-allow-methods"] == "POST, GET"
        assert response.headers["access-control-allow-headers"] == "Content-Type"

    response = server.post("default:predict", {"inputs": 400})
    assert (response.code, response.error) == (504, "Timed out waiting for notification")
    with server.connection() as connection:  # a client that never sends its body
        connection.sendall(b"POST /v1/models/default:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")
    assert server.post("default:predict", {"inputs": 0}).json == {"outputs": 0}


def test_a_bad_config_file(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("model_config_list {")
    code, output = failed_start(tmp_path, f"--model_config_file={tmp_path / 'models.config'}")
    assert code == FAILED
    assert len([line for line in output.splitlines() if line.startswith("Failed to start server. Error: ")]) == 1


@pytest.mark.parametrize("which", ["port", "rest_api_port"])
def test_a_port_in_use(server: Server, models: Path, which: str) -> None:
    """It is reported in one line, and the server that uses the port keeps serving."""
    taken = server.port if which == "port" else server.rest_port
    flags = (f"--{which}={taken}", "--model_name=half", f"--model_base_path={models / 'half'}")
    code, output = failed_start(models, *flags)
    assert code == FAILED and "Traceback" not in output
    assert output.count("Failed to start server. Error: ") == 1 and str(taken) in output
    assert server.predict("half", X)


def test_a_first_version_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "base" / "7").mkdir(parents=True)
    retries = ("--max_num_load_retries=1", "--load_retry_interval_micros=50000")
    code, output = failed_start(tmp_path, "--model_name=broken", f"--model_base_path={tmp_path / 'base'}", *retries)
    assert code == FAILED
    assert "1 servable(s) did not become available: {{name: broken version: 7} due to error: NOT_FOUND: " in output
    assert "Could not find SavedModel .pb or .pbtxt at supplied export directory path" in output


def test_an_empty_base_path_keeps_the_port_closed(start: Start, tmp_path: Path, models: Path) -> None:
    (tmp_path / "base").mkdir()
    server = start(flags=("--model_name=late", f"--model_base_path={tmp_path / 'base'}"), wait=False)
    time.sleep(1)
    assert not server.is_open()
    assert server.process is not None and server.process.poll() is None
    saved_models.copy_version(models / "half" / "00000123", tmp_path / "base" / "1")
    server.wait_ready()
    assert server.predict("late", X).model_spec.version.value == 1
