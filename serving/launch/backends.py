"""The command that starts a server, for each backend: container, binary or embedded.

Production uses TensorFlow Serving's container. Without a container engine, `auto` uses a `tensorflow_model_server` on
PATH, or else the embedded server, which has the same flags and the same API.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from components.common import ROOT, contract
from components.common.errors import InputError

Name = Literal["container", "binary", "embedded"]
IMAGE: Final = "tensorflow/serving:2.20.0"
CONTAINER: Final = "mnist-tfx-serving"
ENGINES: Final = ("docker", "podman")
ENGINE_TIMEOUT_S: Final = 10
BINARY: Final = "tensorflow_model_server"
DEPLOY_CONFIG: Final = Path(__file__).resolve().parents[1] / "deploy" / "config"
MODELS_IN_CONTAINER: Final = "/models"
CONFIG_IN_CONTAINER: Final = "/config"


@dataclass(frozen=True)
class Setup:
    """How to start a server.

    Attributes:
        home: `serving_model` contains the versions; the config file and state are written to `serving`.
        grpc_port, rest_port: ports on loopback.
        unproven: serve versions without verifying their manifests.
    """

    home: Path
    grpc_port: int = 8500
    rest_port: int = 8501
    unproven: bool = False

    @property
    def models(self) -> Path:
        return self.home / "serving_model"

    @property
    def folder(self) -> Path:
        return self.home / "serving"

    @property
    def config_file(self) -> Path:
        return self.folder / "models.config"

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / "serving.log"


@dataclass(frozen=True)
class Choice:
    """A backend, and why it was chosen."""

    name: Name
    program: str
    why: str


def choose(preferred: str = "auto") -> Choice:
    """Return the backend to use. Raises InputError if the preferred one is not available."""
    if preferred not in ("auto", "container", "binary", "embedded"):
        raise InputError(f"unknown backend '{preferred}'", "Use auto, container, binary or embedded.")
    reasons = []
    if preferred in ("auto", "container"):
        for engine in ENGINES:
            problem = _engine_problem(engine)
            if problem is None:
                return Choice("container", engine, f"{engine} is running")
            reasons.append(problem)
    if preferred in ("auto", "binary"):
        found = shutil.which(BINARY)
        if found:
            return Choice("binary", found, "; ".join([*reasons, f"{BINARY} is on PATH"]))
        reasons.append(f"no {BINARY} on PATH")
    if preferred in ("auto", "embedded"):
        return Choice("embedded", sys.executable, "; ".join(reasons) or "requested")
    raise InputError(f"the {preferred} backend is not available: {'; '.join(reasons)}", "Use --backend embedded.")


def command(choice: Choice, setup: Setup, log_file: Path | None = None) -> list[str]:
    """Return the command that runs the server in the foreground; the embedded server rotates its log file."""
    if choice.name == "container":
        return container_command(choice.program, setup)
    flags = server_flags(setup.config_file, DEPLOY_CONFIG, setup.grpc_port, setup.rest_port)
    if choice.name == "binary":
        return [choice.program, *flags]
    # TensorFlow Serving would load any numbered folder, even an incomplete copy or a model that was not blessed.
    proven = [] if setup.unproven else ["--proven_only=true"]
    log = [f"--log_file={log_file}"] if log_file else []
    return [choice.program, "-m", "serving.model_server", *flags, *proven, *log]


def server_flags(models_config: Path, deploy: Path, grpc_port: int, rest_port: int) -> list[str]:
    """Return tensorflow_model_server's flags for any backend; `deploy` contains the other config files."""
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={models_config}",
        f"--monitoring_config_file={deploy / 'monitoring.config'}",
        "--enable_batching=true",
        f"--batching_parameters_file={deploy / 'batching.config'}",
        "--allow_version_labels_for_unavailable_models=true",  # labels at start-up fail otherwise
        # A version is pushed by one rename, so one that fails to load will always fail. While the server retries (five
        # minutes by default), it loads nothing else, and a rollback would have to wait.
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000000",
        "--enable_grpc_healthcheck_service=true",
    ]


def container_command(engine: str, setup: Setup) -> list[str]:
    flags = server_flags(Path(CONFIG_IN_CONTAINER, "models.config"), Path("/deploy"), 8500, 8501)
    return [
        *(engine, "run", "--rm", "--name", CONTAINER, "--entrypoint", BINARY),
        *("--publish", f"127.0.0.1:{setup.grpc_port}:8500", "--publish", f"127.0.0.1:{setup.rest_port}:8501"),
        *("--volume", f"{setup.models}:{MODELS_IN_CONTAINER}:ro"),
        *("--volume", f"{setup.folder}:{CONFIG_IN_CONTAINER}:ro", "--volume", f"{DEPLOY_CONFIG}:/deploy:ro"),
        IMAGE,
        *flags,
    ]


def base_path(backend: str, setup: Setup) -> str:
    """Return the folder of the model's versions, as the backend's server sees it."""
    base = MODELS_IN_CONTAINER if backend == "container" else str(setup.models)
    return f"{base}/{contract.MODEL_NAME}"


def environment(choice: Choice) -> dict[str, str]:
    """Return the server's environment: this project's packages importable, TensorFlow's start-up messages off."""
    extra = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if choice.name == "embedded":
        root = str(ROOT)
        extra["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **extra}


def _engine_problem(engine: str) -> str | None:
    """Return why a container engine cannot be used; None if it can."""
    if shutil.which(engine) is None:
        return f"no {engine}"
    try:
        done = subprocess.run(
            [engine, "info"], capture_output=True, timeout=ENGINE_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{engine} does not respond"
    return f"{engine} is not running" if done.returncode else None
