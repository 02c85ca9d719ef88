"""The `replay` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.common.command_line import JsonOption, say
from components.common.ports import GRPC_PORT, REST_PORT
from serving.commands.server import GrpcPort, RestPort


def add_to(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    images: Annotated[Path, typer.Argument(help="A .npy file, uint8 [n, height, width].")],
    output: Annotated[Path, typer.Option(help="Where to write the predictions: an .npz file.")],
    singles: Annotated[int, typer.Option(min=1, help="Number of images to send one at a time.")] = 200,
    label: Annotated[str | None, typer.Option(help="Version label to query, e.g. stable.")] = None,
    version: Annotated[int | None, typer.Option(help="Version to query.")] = None,
    grpc_port: GrpcPort = GRPC_PORT,
    rest_port: RestPort = REST_PORT,
    as_json: JsonOption = False,
) -> None:
    """Send many images to a server and save its predictions for comparison.

    Example: mnist-serving replay images.npy --output predictions.npz --grpc-port 8500 --rest-port 8501
    """
    from serving.client.replay import replay as replay_images

    addresses = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"
    report = replay_images(images, output, *addresses, singles, label, version)
    if as_json:
        say(json.dumps(report))
        return
    say(f"version {report['version']} predicted {report['images']} images; predictions in {output}")
    for transport in ("grpc", "rest"):
        say("{0}: {requests} single requests, p50 {p50_ms} ms, p99 {p99_ms} ms".format(transport, **report[transport]))
