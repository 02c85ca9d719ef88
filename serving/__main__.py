"""The command line: `python -m serving --help`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from components.common import command_line
from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say
from serving import release_commands

app = command_line.application(
    "Serve the pushed model and ask it.\n\n"
    "Exit codes: 0 done, 1 unexpected failure, 2 usage, 3 the canary should be rolled back (canary --shadow), "
    "5 nothing pushed, a version not proven or that does not load, no server, a port in use, "
    "6 gRPC and REST disagree (query)."
)

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


@app.callback()
def main() -> None:
    pass


@app.command()
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
    from serving import backends, server

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


@app.command()
def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop the server of a home; requests that it has accepted are answered first."""
    from serving import server

    stopped = server.stop(home.resolve())
    if as_json:
        say(json.dumps({"stopped": stopped is not None, "pid": stopped.pid if stopped else None}))
    else:
        say(f"stopped process {stopped.pid}" if stopped else "no server is running in this home")


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the server of a home and the versions it has loaded."""
    from components.common.errors import InputError
    from components.versions.release import read_release
    from serving import server

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


@app.command()
def query(
    files: Annotated[list[Path] | None, typer.Argument(help="PNG or JPEG files; none: digits of the test set.")] = None,
    home: HomeOption = DEFAULT_HOME,
    index: Annotated[list[int] | None, typer.Option(help="A digit of the test set by its number; repeatable.")] = None,
    count: Annotated[int, typer.Option(help="How many random test digits, without files and indices.")] = 5,
    seed: Annotated[int | None, typer.Option(help="Makes the random choice repeatable.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of IDX files, if not the home's MNIST.")] = None,
    invert: Annotated[bool, typer.Option(help="The files show dark ink on bright paper.")] = False,
    rest: Annotated[bool, typer.Option("--rest", help="Ask the same over REST and compare.")] = False,
    version: Annotated[int | None, typer.Option(help="The version to ask.")] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Default: stable, once a version was promoted."),
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Of a server that this home did not start.")] = None,
    rest_port: Annotated[int | None, typer.Option(help="Of a server that this home did not start.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the running server about digits, draw them and show the probabilities.

    Example: python -m serving query --rest --count 100    python -m serving query seven.png --invert
    """
    from components.versions.release import read_release
    from serving import server
    from serving.query import query as ask

    running = server.find(home.resolve())
    if running is not None and (version, label, grpc_port, rest_port) == (None,) * 4:
        label = next(iter(read_release(home.resolve()).labels), None)
    grpc_at = grpc_port or (running.grpc_port if running else 8500)
    rest_at = rest_port or (running.rest_port if running else 8501)
    code = ask(
        files or [],
        index or [],
        home=home.resolve(),
        count=count,
        seed=seed,
        data=data,
        invert=invert,
        version=version,
        label=label,
        grpc_address=f"127.0.0.1:{grpc_at}",
        rest_address=f"http://127.0.0.1:{rest_at}" if rest else None,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def signatures(
    home: HomeOption = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option(help="The version to ask; else the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the served model takes and answers."""
    from components.common import contract
    from components.common.errors import InputError
    from serving import server
    from serving.client import connect
    from serving.protos import serving_pb2 as pb

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


@app.command()
def replay(
    images: Annotated[Path, typer.Argument(help="A .npy file, uint8 [n, height, width].")],
    output: Annotated[Path, typer.Option(help="Where the answers go: an .npz file.")],
    singles: Annotated[int, typer.Option(min=1, help="How many of the images to ask about one by one.")] = 200,
    label: Annotated[str | None, typer.Option(help="The version label to ask, e.g. stable.")] = None,
    grpc_port: GrpcPort = 8500,
    rest_port: RestPort = 8501,
    as_json: JsonOption = False,
) -> None:
    """Ask a server about many images and keep its answers, to compare them with others."""
    from serving.replay import replay as ask_all

    addresses = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"
    report = ask_all(images, output, *addresses, singles, label)
    if as_json:
        say(json.dumps(report))
        return
    say(f"version {report['version']} answered about {report['images']} images; answers in {output}")
    for transport in ("grpc", "rest"):
        say("{0}: {requests} single requests, p50 {p50_ms} ms, p99 {p99_ms} ms".format(transport, **report[transport]))


def _described(states: list[dict[str, object]]) -> str:
    return ", ".join(f"{state['version']} {state['state']}" for state in states) or "none answers"


release_commands.add_to(app)

if __name__ == "__main__":
    command_line.run(app)
