"""The `query` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next
from components.common.errors import UsageError
from components.common.ports import GRPC_PORT, REST_PORT

if TYPE_CHECKING:
    from serving.client.query import Result

DRAWN_AT_MOST: Final = 10  # with more digits, only the misclassified ones are drawn
EXIT_DISAGREEMENT: Final = 6
MAX_CLASSES: Final = 256  # an IDX label is one byte


def add_to(app: typer.Typer) -> None:
    app.command()(query)


def query(
    files: Annotated[
        list[Path] | None, typer.Argument(help="PNG or JPEG files. Default: digits from the test set.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    index: Annotated[list[int] | None, typer.Option(help="Index of a digit in the test set; repeatable.")] = None,
    count: Annotated[int, typer.Option(help="Number of random test digits if no files or indices are given.")] = 5,
    seed: Annotated[int | None, typer.Option(help="Makes the random choice reproducible.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of IDX files. Default: what the version was evaluated on.")
    ] = None,
    invert: Annotated[bool, typer.Option(help="The files show dark ink on a bright background.")] = False,
    rest: Annotated[bool, typer.Option("--rest", help="Also send the digits over REST, and compare.")] = False,
    version: Annotated[int | None, typer.Option(help="Version to query.")] = None,
    label: Annotated[str | None, typer.Option(help="Label to query. Default: stable, after a promotion.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="For a server that was not started in this home.")] = None,
    rest_port: Annotated[int | None, typer.Option(help="For a server that was not started in this home.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send digits to the running server, draw them and show the probabilities.

    The digits are from the test set of the data that the served version was trained on.

    Examples: mnist-serving query --rest --count 100
              mnist-serving query seven.png --invert
    """
    from components.versions.release import read_release
    from serving.client import query as client_query
    from serving.client.digits import Selection, class_names, test_data
    from serving.launch import server

    if version is not None and label is not None:
        raise UsageError("both a version and a label", "Give one of --version and --label.")
    home = home.resolve()
    running = server.find(home)
    if running is not None and (version, label, grpc_port, rest_port) == (None,) * 4:
        label = next(iter(read_release(home).labels), None)
    grpc_port = grpc_port or (running.grpc_port if running else GRPC_PORT)
    rest_port = rest_port or (running.rest_port if running else REST_PORT)

    def select(served: int) -> Selection:
        folder = data or (Path() if files and not index else test_data(home, served))
        return Selection(folder, files or (), index or (), count, seed, invert)

    result = client_query.query(
        select,
        f"127.0.0.1:{grpc_port}",
        f"http://127.0.0.1:{rest_port}" if rest else None,
        version=version,
        label=label,
    )
    summary = result.summary()
    if as_json:
        say(json.dumps({**summary, "digits": result.rows()}))
    else:
        unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        for line in lines(result, summary, class_names(home, summary["version"]), unicode=unicode):
            say(line)
    if summary.get("same_classes") is False:
        raise typer.Exit(EXIT_DISAGREEMENT)
    if not as_json:
        say_next("pipeline", "validate")


def lines(result: Result, summary: dict[str, Any], names: Sequence[str] = (), *, unicode: bool = True) -> list[str]:
    """Return drawings with probabilities, a summary, and the comparison of the transports.

    Args:
        names: of the classes; the classes without one are shown as numbers.
    """
    from serving.client.digits import looks_inverted
    from serving.commands import drawing

    characters, block = (drawing.HALF_BLOCKS, "█") if unicode else (drawing.ASCII_HALF_BLOCKS, "#")
    found = result.by_transport["grpc"]
    names = [*names, *map(str, range(len(names), MAX_CLASSES))]
    shown = []
    for i, digit in enumerate(result.digits):
        predicted = int(found.classes[i])
        if len(result.digits) > DRAWN_AT_MOST and digit.label in (None, predicted):
            continue
        verdict = (
            "" if digit.label is None else f", {'right' if digit.label == predicted else f'is {names[digit.label]}'}"
        )
        shown.append(f"{digit.name}: {names[predicted]} ({found.probabilities[i][predicted]:.1%}){verdict}")
        if digit.index is None and looks_inverted(digit.image):
            shown.append("  dark on bright? The training data are bright on dark: try --invert")
        drawn = drawing.draw(digit.image, characters=characters)
        bars = drawing.bars(found.probabilities[i].tolist(), len(drawn), block, names)
        shown += [f"  {line}" for line in drawing.beside(drawn, bars)]
    parts = []
    for name, title in (("grpc", "gRPC"), ("rest", "REST")):
        if name in result.by_transport:
            right = f"{summary['right'][name]} of {summary['labelled']} right, " if summary["labelled"] else ""
            parts.append(f"{title}: {right}{result.by_transport[name].milliseconds:.1f} ms")
    shown.append(f"{summary['model']} version {summary['version']}, {summary['asked']} digits. {'; '.join(parts)}")
    return [*shown, _comparison(summary)] if "rest" in result.by_transport else shown


def _comparison(summary: dict[str, Any]) -> str:
    if summary["identical"]:
        return "gRPC and REST: identical"
    same = "the same classes" if summary["same_classes"] else "DIFFERENT CLASSES"
    return f"gRPC and REST: {same}, probabilities differ by up to {summary['max_difference']:.1e}"
