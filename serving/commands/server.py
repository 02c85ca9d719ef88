"""The `up`, `down`, `status` and `signatures` commands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next
from components.common.home import existing
from components.common.ports import GRPC_PORT, REST_PORT, version_states
from serving.launch.backends import Preferred

BackendOption = Annotated[
    Preferred,
    typer.Option(
        envvar="SERVING_BACKEND",
        help="auto: a container if docker or podman is running and has TensorFlow Serving's image, else "
        "tensorflow_model_server, else embedded. container: pulls the image if it is missing.",
    ),
]
STATUS_TIMEOUT_S: Final = 2.0
GrpcPort = Annotated[int | None, typer.Option(min=1, help=f"Port for gRPC, on loopback; default: {GRPC_PORT}.")]
RestPort = Annotated[
    int | None, typer.Option(min=1, help=f"Port for REST and monitoring, on loopback; default: {REST_PORT}.")
]


def add_to(app: typer.Typer) -> None:
    for command in (up, down, status, signatures):
        app.command()(command)


def up(
    home: HomeOption = DEFAULT_HOME,
    backend: BackendOption = "auto",
    grpc_port: GrpcPort = None,
    rest_port: RestPort = None,
    in_foreground: Annotated[
        bool, typer.Option("--foreground", help="Run the server in this process instead of in the background.")
    ] = False,
    with_parent: Annotated[
        int | None, typer.Option(metavar="PID", help="With --foreground: exit when the calling process, PID, exits.")
    ] = None,
    unproven: Annotated[bool, typer.Option(help="Serve versions without verifying their manifests.")] = False,
    owner: Annotated[Path | None, typer.Option(hidden=True, help="Folder that names the container.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a server for the pushed model and wait until it is ready.

    Example: mnist-serving up --backend embedded --grpc-port 8500 --rest-port 8501
    """
    from serving.launch import backends, foreground, server

    home = existing(home)
    running = server.find(home)
    grpc_port = grpc_port or (running.grpc_port if running else GRPC_PORT)
    rest_port = rest_port or (running.rest_port if running else REST_PORT)
    setup = backends.Setup(home, grpc_port, rest_port, unproven, owner)
    if in_foreground:
        foreground.serve(setup, backend, with_parent)
    running, new = server.start(setup, backend)
    states = version_states(running.rest_port)
    if as_json:
        say(json.dumps({**asdict(running), "started": new, "versions": states}))
        return
    say(f"{'serving' if new else 'already serving'} with the {running.backend} backend ({running.why})")
    say(f"versions: {_list_states(states)}")
    say(f"gRPC 127.0.0.1:{running.grpc_port}, REST http://127.0.0.1:{running.rest_port}/v1/models/mnist")
    say(f"{running}, log: {running.log_file}")
    say_next("serving", "query")


def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop the server of a home after it completes the requests in flight.

    Example: mnist-serving down
    """
    from serving.launch import server

    stopped = server.shut_down(home.resolve())
    if as_json:
        say(json.dumps({"stopped": stopped is not None, "pid": stopped.pid if stopped else None}))
    else:
        say(f"stopped {stopped}" if stopped else "no server is running in this home")
        say_next("serving", "up")


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the server of a home, the versions that it has loaded, and which of them answers.

    Example: mnist-serving status
    """
    from components.versions.release import read_release
    from serving.launch import server

    home = existing(home)
    running = server.require(home)
    for _ in range(2):  # a label may move between the requests
        release, states = read_release(home), version_states(running.rest_port)
        served = _served(running.grpc_port, release.labels)
        if release.labels.items() <= served.items():
            break
    if as_json:
        shown = {"versions": states, "served": served, "labels": release.labels, "pending": release.pending}
        say(json.dumps(asdict(running) | shown))
        return
    say(f"{running.backend} backend, {running}, log: {running.log_file}")
    say(f"gRPC 127.0.0.1:{running.grpc_port}, REST 127.0.0.1:{running.rest_port}")
    say(f"versions: {_list_states(states)}")
    say(f"labels: {', '.join(f'{label} {number}' for label, number in release.labels.items()) or 'none'}")
    say(f"answers: {', '.join(f'{label} {number}' for label, number in served.items()) or 'none'}")
    if release.pending:
        say("in progress or killed: {action} {version} (run the command again to finish)".format(**release.pending))
    say_next("serving", "query")


def signatures(
    home: HomeOption = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option(help="Which version; default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the inputs and outputs of the served model.

    Example: mnist-serving signatures
    """
    from components.common import contract
    from serving.client import connect
    from serving.client.signatures import describe
    from serving.launch import server

    running = server.require(existing(home))
    with connect(f"127.0.0.1:{running.grpc_port}") as client:
        metadata = client.metadata(contract.MODEL_NAME, version)
    found = describe(metadata)
    if as_json:
        say(json.dumps({"version": metadata.version, "signatures": found}))
        return
    say(f"version {metadata.version}")
    for name, signature in found.items():
        shown = {
            direction: ", ".join(f"{alias} {info['dtype']} {info['shape']}" for alias, info in infos.items())
            for direction, infos in signature.items()
        }
        say(f"{name}: {shown['inputs']} -> {shown['outputs']}")


def _served(grpc_port: int, labels: Iterable[str]) -> dict[str, int]:
    """The version that answers requests with each label, and without one ("unlabelled"); {} while none answers."""
    from components.common import contract
    from serving.client import connect
    from serving.client.errors import ServingClientError

    found = {}
    with connect(f"127.0.0.1:{grpc_port}", timeout_s=STATUS_TIMEOUT_S, attempts=1) as client:
        for label in ("unlabelled", *labels):
            try:
                found[label] = client.metadata(
                    contract.MODEL_NAME, label=None if label == "unlabelled" else label
                ).version
            except ServingClientError:
                continue
    return found


def _list_states(states: list[dict[str, object]]) -> str:
    return ", ".join(f"{state['version']} {state['state']}" for state in states) or "none"
