"""gRPC clients that do not finish their requests, or do not take their responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.integration.serving.conftest import Start
from tests.support.http2 import HEADERS, Stalling
from tests.support.servers import Server, embedded_only, model_config, wait_for

pytestmark = embedded_only
PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEALTH = "/grpc.health.v1.Health/Check"
METRICS = "/monitoring/prometheus/metrics"
CALLS = 3


@pytest.fixture
def server(start: Start, models: Path, tmp_path: Path) -> Server:
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    return start(
        model_config("types", models / "types"),
        flags=(
            f"--monitoring_config_file={tmp_path / 'monitoring.config'}",
            *("--receive_timeout_in_ms=1000", "--enable_grpc_healthcheck_service=true"),
        ),
    )


def test_calls_that_stall_are_ended(server: Server) -> None:
    tensor = to_proto(np.zeros((1, 2**16), np.float32), content=True)
    request = pb.PredictRequest(model_spec={"name": "types", "signature_name": "float32"}, inputs={"x": tensor})
    content = bytes(request.SerializeToString())

    for method in (PREDICT, HEALTH):
        unfinished = Stalling(server.port, method, CALLS, content)
        unfinished.run(2.5)
        assert unfinished.frames.count(HEADERS) == CALLS  # the status of each
    assert count(server, "receive_timeout") == 2 * CALLS

    with pytest.raises(ConnectionResetError):
        Stalling(server.port, PREDICT, CALLS, content, finished=True).run(10)
    assert count(server, "response_timeout") == CALLS

    for _ in range(5):  # clients that leave while their responses are sent
        Stalling(server.port, PREDICT, CALLS, content, finished=True).run(0.3)
    wait_for(lambda: server.get("types").code == 200)
    assert "Traceback" not in server.output


def count(server: Server, reason: str) -> int:
    for line in server.rest("GET", METRICS).text.splitlines():
        if f'over_limit_count{{reason="{reason}"}}' in line:
            return int(line.rpartition(" ")[2])
    return 0
