"""The command query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption


def add_to(app: typer.Typer) -> None:
    app.command()(query)


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
    from serving.client.query import query as ask
    from serving.launch import server

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
