"""The command line: `python -m serving --help`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from components import command_line
from components.command_line import DEFAULT_HOME, HomeOption, JsonOption, say
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
    as_json: JsonOption = False,
) -> None:
    """Start a server on the pushed model and wait until it answers."""
    from serving import backends, server

    setup = backends.Setup(home.resolve(), grpc_port, rest_port)
    if foreground:
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
    from components.errors import InputError
    from components.pins import read_release
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
    from components.pins import read_release
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


def _described(states: list[dict[str, object]]) -> str:
    return ", ".join(f"{state['version']} {state['state']}" for state in states) or "none answers"


release_commands.add_to(app)

if __name__ == "__main__":
    command_line.run(app)
