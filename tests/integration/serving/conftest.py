"""Servers with SavedModels of every kind. All tests that do not change their server share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.servers import Server, model_config

MONITORING = "prometheus_config { enable: true }\n"
Start = Callable[..., Server]


@pytest.fixture(scope="session", autouse=True)
def backend() -> str:
    """Return the name of the backend under test; skips if it is not available."""
    if reason := servers.missing_backend():
        pytest.skip(f"SERVING_BACKEND={servers.BACKEND}: {reason}")
    return servers.BACKEND


@pytest.fixture(scope="session")
def models(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return root/NAME/VERSION with each model of saved_models, and versions 1 to 5 of `versioned`. Read-only."""
    from tests.support import saved_models

    root = tmp_path_factory.mktemp("models")
    saved_models.write_all(root)
    (root / "versioned").mkdir()
    for number in range(1, 6):
        saved_models.write_version(root / "versioned" / str(number), number)
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """A server of all models, `versioned` with versions 1, 2 and 5 and two labels. Do not change it."""
    (models / "monitoring.config").write_text(MONITORING)
    flags = (
        f"--monitoring_config_file={models / 'monitoring.config'}",
        "--allow_version_labels_for_unavailable_models",
        "--enable_grpc_healthcheck_service=true",
        "--enable_batching=false",
        f"--grpc_socket_path={models / 'grpc.sock'}",
    )
    found = Server(models, flags)
    single = ("half", "pair", "text", "scalar", "types", "examples", "defaults", "slow")
    found.configure(
        *(model_config(name, models / name) for name in single),
        model_config(
            "versioned",
            models / "versioned",
            policy="specific { versions: 1 versions: 2 versions: 5 }",
            labels={"stable": 1, "canary": 2},
        ),
    )
    try:
        found.start()
        servers.wait_for(lambda: [state for _, state in found.status("versioned")] == ["AVAILABLE"] * 3)
        yield found
    finally:
        found.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers for one test, in its own folder: start(*models, flags=..., wait=True, fast=True)."""
    started: list[Server] = []

    def make(*configs: str, flags: tuple[str, ...] = (), wait: bool = True, fast: bool = True) -> Server:
        made = Server(tmp_path, flags, fast=fast)
        started.append(made)
        if configs:
            made.configure(*configs)
        return made.start() if wait else made.launch()

    yield make
    for made in started:
        made.stop()
