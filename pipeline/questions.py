"""The commands that ask about earlier runs: status, runs, compare, lineage. None imports TensorFlow or TFX."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next, wrapped
from components.common.home import Home, existing

_RUN = 'The id of a run, its beginning, a pushed version, "latest" or "previous".'


def add_to(app: typer.Typer) -> None:
    for question in (status, runs, compare, lineage):
        app.command()(question)


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the latest finished run, whether its version is served, and the home's size after the last run or gc.

    Example: mnist-pipeline status
    """
    from components.common.home_size import HomeSize
    from pipeline import summary
    from pipeline.progress import Node, show_nodes
    from pipeline.run import latest_result

    place = Home(existing(home))
    result, size = latest_result(place), HomeSize.read(place)
    if as_json:
        say(json.dumps(asdict(result) | {"home_size": asdict(size) if size else None}))
        return
    say(f"run {result.run_id}")
    show_nodes([Node(n["id"], n["state"], n["seconds"], reason=n.get("reason", "")) for n in result.nodes])
    summary.show(result, home)
    for line in result.drift:
        say(f"drift: {line}")
    if result.error:
        say(wrapped(result.error))
    if size:
        say(wrapped(f"home {size}"))
    summary.show_next(result, home)


def runs(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the runs, oldest first: time, status, accuracy, version, and what differed from the run before.

    Example: mnist-pipeline runs
    """
    from pipeline import records

    place = Home(existing(home))
    known = records.runs(place)
    without = records.without_record(place, known)
    rows: list[dict[str, Any]] = []
    for before, run in zip([None, *known], known, strict=False):
        changed = records.described(before, run) if before else []
        accuracy = run.metrics.get("test_accuracy")
        rows.append(
            {
                "run_id": run.run_id,
                "started_utc": run.started_utc,
                "status": run.status,
                "version": run.version,
                "test_accuracy": accuracy,
                "changed": changed,
            }
        )
    if as_json:
        say(json.dumps({"runs": rows, "without_record": without}))
        return
    say(f"{'started (UTC)':<17} {'run':<20} {'status':<11} {'accuracy':<8} {'version':<11} changed")
    for row in rows:
        shown = "" if row["test_accuracy"] is None else f"{row['test_accuracy']:.4f}"
        started = (row["started_utc"] or "")[:16].replace("T", " ")
        line = f"{started:<17} {row['run_id']:<20} {row['status']:<11} {shown:<8} {row['version'] or '':<11}"
        say(wrapped(f"{line} {', '.join(row['changed'])}".rstrip()))
    if not rows:
        say(f"no finished run in {place.root}")
    if without:
        say(wrapped(f"{without} more have no record: they were interrupted, or removed by gc (home.keep_runs)"))
    say_next("pipeline", *(("compare", "previous", "latest") if len(known) > 1 else ("report",) if known else ("run",)))


def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help=_RUN)],
    b: Annotated[str, typer.Argument(metavar="RUN", help="The other.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two runs: settings, data, code, metrics with intervals, seconds.

    Says of each metric whether the difference is more than chance (5 %): McNemar's exact test if both evaluations have
    predictions for the same test images, else a test of two proportions; classes are adjusted for their number (Holm).

    Example: mnist-pipeline compare previous latest
    """
    from pipeline import compare as comparison
    from pipeline import records

    place = Home(existing(home))
    known = records.runs(place)
    pair = [records.choose(known, name, place) for name in (a, b)]
    found = comparison.compare(*pair)
    if as_json:
        say(json.dumps(found | {"metrics": {name: metric.to_json() for name, metric in found["metrics"].items()}}))
        return
    for line in comparison.lines(found, pair):
        say(wrapped(line) if line.strip() else line)
    say_next("pipeline", "report")


def lineage(
    name: Annotated[
        str,
        typer.Argument(metavar="[VERSION|RUN]", help="A pushed version, or as in `compare`. Default: what is served."),
    ] = "served",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show where a version or a run's results came from: node by node, back to the hashes of the data.

    Example: mnist-pipeline lineage latest
    """
    from pipeline import provenance

    found = provenance.provenance(Home(existing(home)), name)
    if as_json:
        say(json.dumps(found.to_json()))
        return
    for line in found.lines():
        say(line)
