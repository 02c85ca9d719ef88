"""The commands `compile` and `submit`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next
from components.common.home import Home
from pipeline.options import DEFAULT_CONFIG, ConfigOption, OverridesOption, errors_in_json

DEFAULT_PACKAGE: Final = Path("build/pipeline.yaml")


def add_to(app: typer.Typer) -> None:
    app.command("compile")(compile_)
    app.command()(submit)


def compile_(
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: OverridesOption = None,
    output: Annotated[Path, typer.Option(help="The YAML package to write.")] = DEFAULT_PACKAGE,
    as_json: JsonOption = False,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines.

    Equal settings produce equal bytes. Data and pushed versions are on the volume named in [kubeflow]; data.source is
    a folder in the tasks' file system.

    Example: mnist-pipeline compile --set kubeflow.image=registry.example/mnist-tfx:1.4.2
    """
    from pipeline import settings as settings_module
    from pipeline.kubeflow.compile import write

    with errors_in_json(as_json):
        written = write(settings_module.load(config, overrides or []), output, Home(home.resolve()))
    if as_json:
        say(json.dumps(written))
        return
    say(f"{written['output']}: {len(written['nodes'])} tasks on {written['image']}")
    say("parameters of a run: " + ", ".join(f"{name} = {value}" for name, value in written["parameters"].items()))
    say_next("pipeline", "submit", "--wait", *(["--package", output] if output != DEFAULT_PACKAGE else []))


def submit(
    home: HomeOption = DEFAULT_HOME,
    package: Annotated[Path, typer.Option(help="The package that `compile` wrote.")] = DEFAULT_PACKAGE,
    host: Annotated[
        str | None,
        typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="API server, http(s)://...; default in a pod: in-cluster."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set a parameter of the run; repeatable."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the run until it ends; exit codes are those of a local run.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait until the run ends.")] = 3600.0,
    poll_s: Annotated[
        float, typer.Option("--poll", min=0.05, help="Seconds between requests for the run's state.")
    ] = 5.0,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token; default: $KUBEFLOW_TOKEN; in a pod: its own token.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the run, for multi-user servers.")] = "",
    experiment: Annotated[str, typer.Option(help="The group of runs in Kubeflow Pipelines.")] = "Default",
    pipeline_root: Annotated[
        str, typer.Option(help="Root of the artifacts, e.g. s3://bucket/path; default: the server's.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Run a compiled package on Kubeflow Pipelines.

    With --wait, the tasks' logs and the result are stored in the home, `status` shows the result, and exit codes are
    those of a local run. A run that pushes nothing fails in its Pusher task. After a time-out, the exit code is 1 and
    the run continues.

    Example: mnist-pipeline submit --host http://localhost:8888 --set train.steps=500 --wait
    """
    from pipeline import summary
    from pipeline.kubeflow import api_client
    from pipeline.kubeflow import submit as submission

    with errors_in_json(as_json):
        client = api_client.from_options(host, namespace, token_file)
        request = submission.RunRequest(package, overrides or [], namespace, experiment, pipeline_root)
        run_id, compiled = submission.submit(client, request)
        url = f"{client.host}/#/runs/details/{run_id}"
        print(f"run {run_id}: {url}", file=sys.stderr if as_json else sys.stdout, flush=True)
        if not wait:
            if as_json:
                say(json.dumps({"run_id": run_id, "status": "submitted", "url": url}))
            return
        stream = sys.stderr if as_json else sys.stdout
        try:
            result = submission.wait(client, run_id, compiled.nodes, Home(home.resolve()), stream, timeout_s, poll_s)
        except KeyboardInterrupt:
            print(f"stopped waiting; run {run_id} continues: {url}", file=sys.stderr)
            raise
    if as_json:
        say(result.to_json())
    else:
        summary.show(result, home)
    if result.error:
        print(result.error, file=sys.stderr)
    raise typer.Exit(result.exit_code)
