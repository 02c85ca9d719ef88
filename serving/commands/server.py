"""The commands up, down, status and signatures."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say

BackendOption = Annotated[
    str,
    typer.Option(
        envvar="SERVING_BACKEND",
        help="auto (a container if an engine answers, else tensorflow_model_server, else embedded), "
        "container, binary or embedded.",
    ),
]
GrpcPort = Annotated[int, typer.Option(help="Port for gRPC, on loopback.")]
RestPort = Annotated[int, typer.Option(help="Port for REST and monitoring, on loopback.")]


def add_to(app: typer.Typer) -> None:
    for command in (up, down, status, signatures):
        app.command()(command)


def up(
    home: HomeOption = DEFAULT_HOME,
    backend: BackendOption = "auto",
    grpc_port: GrpcPort = 8500,
    rest_port: RestPort = 8501,
    foreground: Annotated[bool, typer.Option(help="Stay with the server instead of leaving it behind.")] = False,
    with_parent: Annotated[
        int | None, typer.Option(metavar="PID", help="With --foreground: end when the calling process, PID, ends.")
    ] = None,
    unproven: Annotated[bool, typer.Option(help="Serve a version even if its manifest does not vouch for it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a server on the pushed model and wait until it answers."""
    from serving.launch import backends, server

    setup = backends.Setup(home.resolve(), grpc_port, rest_port, unproven)
    if foreground:
        if with_parent is not None:
            server.end_with(with_parent)
        choice = server.become(setup, backend)
        say(f"serving with the {choice.name} backend ({choice.why})")
        words = backends.command(choice, setup)
        os.execvpe(words[0], words, backends.environment(choice))
    running, new = server.start(setup, backend)
    states = server.version_states(running.rest_port)
    if as_json:
        say(json.dumps({**asdict(running), "started": new, "versions": states}))
        return
    say(f"{'serving' if new else 'already serving'} with the {running.backend} backend ({running.why})")
    say(f"versions: {_described(states)}")
    say(f"gRPC 127.0.0.1:{running.grpc_port}, REST http://127.0.0.1:{running.rest_port}/v1/models/mnist")
    say(f"process {running.pid}, log {running.log_file}")


def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop the server of a home; requests that it has accepted are answered first."""
    from serving.launch import server

    stopped = server.stop(home.resolve())
    if as_json:
        say(json.dumps({"stopped": stopped is not None, "pid": stopped.pid if stopped else None}))
    else:
        say(f"stopped process {stopped.pid}" if stopped else "no server is running in this home")


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the server of a home and the versions it has loaded."""
    from components.common.errors import InputError
    from components.versions.release import read_release
    from serving.launch import server

    running = server.find(home.resolve())
    if running is None:
        raise InputError(f"{home.resolve()}: no server is running", "Start one: make serve")
    states = server.version_states(running.rest_port)
    release = read_release(home.resolve())
    if as_json:
        say(json.dumps({**asdict(running), "versions": states, "labels": release.labels, "pending": release.pending}))
        return
    say(f"{running.backend} backend, process {running.pid}, log {running.log_file}")
    say(f"gRPC 127.0.0.1:{running.grpc_port}, REST 127.0.0.1:{running.rest_port}")
    say(f"versions: {_described(states)}")
    say(f"labels: {', '.join(f'{label} {number}' for label, number in release.labels.items()) or 'none'}")
    if release.pending:
        say("under way, or killed: {action} {version} (run it again to finish)".format(**release.pending))


def signatures(
    home: HomeOption = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option(help="The version to ask; else the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the served model takes and answers."""
    from components.common import contract
    from components.common.errors import InputError
    from serving.client import connect
    from serving.launch import server
    from serving.protocol import serving_pb2 as pb

    running = server.find(home.resolve())
    if running is None:
        raise InputError(f"{home.resolve()}: no server is running", "Start one: make serve")
    with connect(f"127.0.0.1:{running.grpc_port}") as client:
        metadata = client.metadata(contract.MODEL_NAME, version)
    found = {
        name: {
            way: {
                alias: {
                    "dtype": pb.DataType.Name(info.dtype),
                    "shape": None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim],
                }
                for alias, info in sorted(getattr(definition, way).items())
            }
            for way in ("inputs", "outputs")
        }
        for name, definition in sorted(metadata.signatures.items())
    }
    if as_json:
        say(json.dumps({"version": metadata.version, "signatures": found}))
        return
    say(f"version {metadata.version}")
    for name, ways in found.items():
        shown = {
            way: ", ".join(f"{a} {i['dtype']} {i['shape']}" for a, i in infos.items()) for way, infos in ways.items()
        }
        say(f"{name}: {shown['inputs']} -> {shown['outputs']}")


def _described(states: list[dict[str, object]]) -> str:
    return ", ".join(f"{state['version']} {state['state']}" for state in states) or "none answers"
