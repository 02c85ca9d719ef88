"""The command line: `python -m pipeline --help`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

from components.common import commands

STARTED = time.monotonic()
if __name__ == "__main__":
    commands.begin("pipeline")

import typer  # noqa: E402

from components.common import command_line  # noqa: E402
from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next  # noqa: E402
from components.common.errors import UserError  # noqa: E402
from components.common.home import Home, existing  # noqa: E402
from pipeline import questions, tensorboard  # noqa: E402
from pipeline.doctor import command as doctor  # noqa: E402
from pipeline.kubeflow import commands as kubeflow  # noqa: E402
from pipeline.options import DEFAULT_CONFIG, ConfigOption, OverridesOption, errors_in_json  # noqa: E402

app = command_line.application(
    "pipeline",
    "Run the MNIST pipeline on TFX, and inspect its results.\n\n"
    "Exit codes: 0 done, 1 unexpected failure, 2 usage, 3 model not blessed (nothing pushed), "
    "4 data anomalies (nothing trained), 5 environment or input missing or corrupt, 6 served model fails validation, "
    "130 Ctrl-C, 143 SIGTERM.",
)


@app.command()
def run(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: OverridesOption = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only say what would run and why; change nothing.")] = False,
    first: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Run this node and all after it, cached or not.")
    ] = None,
    without_cache: Annotated[
        list[str] | None,
        typer.Option("--no-cache", metavar="NODE", help="Run this node, cached or not, and what reads it; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline: data, statistics, training, evaluation, push.

    Nodes whose inputs, settings and code are unchanged come from the cache.

    Example: mnist-pipeline run --set train.steps=500 --set data.source=/data/fashion
    """
    from pipeline import plan, summary
    from pipeline import settings as settings_module
    from pipeline.run import execute, refused, with_full_paths

    stop, place = context.obj, Home(home.resolve())
    try:
        settings = with_full_paths(settings_module.load(config, overrides or []))
        forced = plan.forced(first, without_cache or [])
        if only_plan:
            say(plan.described(plan.plan(settings, place, forced), as_json=as_json))
            return
        result = execute(settings, place, stop, forced, lines_to_stderr=as_json, started=STARTED)
    except UserError as e:
        if as_json:
            say(refused(str(e), e.exit_code).to_json())
        raise
    except KeyboardInterrupt:
        message = "interrupted; finished nodes are kept, the next run continues from there"
        if as_json:
            say(refused(message, stop.exit_code).to_json())
        stop.exit(message)  # threads of Beam and TensorFlow may still run, and crash or block a normal exit
    if as_json:
        say(result.to_json())
    else:
        summary.show(result, home)
    if result.error:
        print(command_line.wrapped(result.error), file=sys.stderr, flush=True)
    if not as_json:
        summary.show_next(result, home)
    raise typer.Exit(result.exit_code)


@app.command()
def validate(
    home: HomeOption = DEFAULT_HOME,
    label: Annotated[str | None, typer.Option(help="Version label to send with the requests, e.g. stable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that the served version was blessed, is unchanged, and predicts as in its evaluation.

    Checks the served version's manifest and files, its record in MLMD, its weights and signatures, and its
    predictions for the whole test split over gRPC (and for a part of it over REST). Exit code 6: a check failed.
    Without a running server, starts one and stops it afterwards.

    Example: mnist-pipeline validate --label stable
    """
    from pipeline import validate as proof
    from pipeline.output_capture import captured

    place = Home(existing(home))
    with captured(place.logs("validate")) as capture:  # hides TensorFlow's output
        version, rows = proof.validate(place, label, lambda line: print(line, file=capture.stderr))
    if as_json:
        say(proof.to_json(version, rows))
    else:
        for row in rows:
            line = f"{'ok' if row.passed else 'FAILED':<7} {row.name:<14} {row.found}"
            say(command_line.wrapped(line, " " * 23))
    if not rows[-1].passed:
        print(f"version {version} failed validation: {rows[-1].name}: {rows[-1].found}", file=sys.stderr)
        raise typer.Exit(proof.FAILED_EXIT_CODE)
    if not as_json:
        say(f"version {version} is valid: blessed, unchanged, and it predicts as in its evaluation")
        say_next("serving", "query")


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A run's id or its beginning, a pushed version, latest or previous.")
    ] = "latest",
    home: HomeOption = DEFAULT_HOME,
    show: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open it in a browser; default: if there is a desktop.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a run, and open it or print its address.

    Every run writes its own; this writes it again, with what the home still has.

    Example: mnist-pipeline report latest
    """
    import os
    import webbrowser

    from pipeline import report as report_module

    with errors_in_json(as_json):
        path = report_module.write(Home(existing(home)), run)
    if as_json:
        say(json.dumps({"run_id": path.stem, "report": str(path)}))
        return
    say(path.as_uri())
    desktop = sys.stdout.isatty() and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if show or (show is None and (desktop or (sys.platform == "darwin" and sys.stdout.isatty()))):
        webbrowser.open(path.as_uri())


@app.command()
def gc(
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEFAULT_CONFIG,
    keep_runs: Annotated[
        int | None,
        typer.Option(min=0, help="Keep artifacts and logs of this many runs; 0: all. Default: home.keep_runs."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove artifacts and logs of older runs, and what killed runs left behind.

    Pushed versions, and what `validate` and the cache of the kept runs need, stay. Each run does the same at its end.

    Example: mnist-pipeline gc --dry-run
    """
    from pipeline import settings as settings_module
    from pipeline.run import collect_garbage

    with errors_in_json(as_json):
        if keep_runs is None:
            keep_runs = settings_module.load(config).home.keep_runs
        collected = collect_garbage(Home(existing(home)), keep_runs, dry_run=dry_run)
    say(collected.to_json() if as_json else f"{collected}\nhome {collected.home_size}")
    if not as_json:
        say_next("pipeline", "status")


for commands_of in (questions, doctor, tensorboard, kubeflow):
    commands_of.add_to(app)

if __name__ == "__main__":
    command_line.run(app)
