"""The command that starts a server, for each backend: container, binary or embedded.

Production uses TensorFlow Serving's container. Without a container engine, `auto` uses a `tensorflow_model_server` on
PATH, or else the embedded server, which has the same flags and the same API.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from components.common import ROOT, container_engine, contract
from components.common.errors import InputError
from serving.launch import container
from serving.launch.container import Container

Name = Literal["container", "binary", "embedded"]
Preferred = Literal["auto", "container", "binary", "embedded"]
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
        owner: folder that names the container, so that one left behind is recognized; None for the home.
    """

    home: Path
    grpc_port: int = 8500
    rest_port: int = 8501
    unproven: bool = False
    owner: Path | None = None

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
    """A backend, and why it was chosen. `program` is the executable or the engine; `image` a container's image ID."""

    name: Name
    program: str
    why: str
    image: str = ""


def choose(preferred: Preferred = "auto", *, pull: bool = False) -> Choice:
    """Return the backend to use. "auto" takes a container only if its image is present.

    Args:
        pull: for a preferred container, pull the image if no engine has it.

    Raises:
        InputError: the preferred backend is not available.
    """
    reasons, engines = [], []
    if preferred in ("auto", "container"):
        for engine in container_engine.ENGINES:
            problem = container_engine.engine_problem(engine)
            if problem is None:
                engines.append(engine)
                if image := container_engine.image_id(engine):
                    return _container(engine, image)
                get = container_engine.pull_command(engine)
                problem = f"{engine} has no image of TensorFlow Serving (get it: {get})"
            reasons.append(problem)
    if preferred == "container" and engines and pull:
        container.pull(engines[0])
        return _container(engines[0], container_engine.image_id(engines[0]) or container_engine.IMAGE)
    if preferred in ("auto", "binary"):
        found = shutil.which(BINARY)
        if found:
            return Choice("binary", found, "; ".join([*reasons, f"{BINARY} is on PATH"]))
        reasons.append(f"no {BINARY} on PATH")
    if preferred in ("auto", "embedded"):
        return Choice("embedded", sys.executable, "; ".join(reasons) or "requested")
    raise InputError(
        f"the {preferred} backend is not available: {'; '.join(reasons)}", "Or use another one: --backend embedded"
    )


def _container(engine: str, image: str) -> Choice:
    return Choice(
        "container", engine, f"{engine} has TensorFlow Serving, image {image.removeprefix('sha256:')[:12]}", image
    )


def command(choice: Choice, setup: Setup, log_file: Path | None = None) -> list[str]:
    """Return the command of a server that is a process, in the foreground; the embedded server rotates `log_file`."""
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


def container_of(engine: str, setup: Setup) -> Container:
    return Container.of(engine, setup.owner or setup.home)


def run_container(choice: Choice, setup: Setup) -> None:
    """Start the server in a container, in the background. Raises InputError."""
    container_of(choice.program, setup).run(
        choice.image,
        BINARY,  # the image's own entrypoint is a shell that does not forward signals
        server_flags(Path(CONFIG_IN_CONTAINER, "models.config"), Path("/deploy"), 8500, 8501),
        container_options(setup),
        setup.owner or setup.home,
    )


def container_options(setup: Setup) -> list[str]:
    mounts = {setup.models: MODELS_IN_CONTAINER, setup.folder: CONFIG_IN_CONTAINER, DEPLOY_CONFIG: "/deploy"}
    return [
        *("--publish", f"127.0.0.1:{setup.grpc_port}:8500", "--publish", f"127.0.0.1:{setup.rest_port}:8501"),
        *(word for source, target in mounts.items() for word in ("--mount", container.mount(source, target))),
        *("--security-opt", "label=disable"),  # SELinux would refuse the home's files; relabelling would change them
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
