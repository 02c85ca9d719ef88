"""The `tensorboard` command: learning curves of all runs, named by run and settings instead of by execution number."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say
from components.common.commands import command
from components.common.errors import InputError
from components.common.home import Home, existing
from components.common.settings import DataSettings, TrainSettings
from pipeline import history

REFRESH_S: Final = 10.0  # until a new run is shown
MAX_NAME: Final = 200  # characters; file systems allow 255 bytes
RUNNING: Final = 2  # ML Metadata's number of the state


def add_to(app: typer.Typer) -> None:
    app.command()(tensorboard)


def tensorboard(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[
        int | None, typer.Option(min=1, help="Port on loopback; default: the first free one from 6006.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show learning curves in TensorBoard, until Ctrl-C.

    New runs and running ones appear by themselves. Each training is named by its run and by its settings that are not
    the default.

    Example: mnist-pipeline tensorboard --port 6006
    """
    place = Home(existing(home))
    if find_spec("tensorboard") is None:
        raise InputError(
            "TensorBoard is not installed", "Install what requirements.lock has: make clean, then make setup"
        )
    if not trainings(place):
        raise InputError(f"{place.root}: no training here", f"Start one: {command('pipeline', 'run')}")
    with tempfile.TemporaryDirectory(prefix="mnist-tfx-tensorboard-") as folder:
        names = _link(place, Path(folder))
        url = _launch(folder, port)
        if as_json:
            say(json.dumps({"url": url, "runs": names}))
        else:
            say(f"{len(names)} trainings: {url}  (Ctrl-C ends it)")
        while True:
            time.sleep(REFRESH_S)
            _link(place, Path(folder))


def trainings(home: Home) -> dict[str, Path]:
    """Folder with the event files of each training, by a name that says its run and settings, oldest first."""
    with history.opened(home) as past:
        if past is None:
            return {}
        configs = past.properties(("custom_config",))
        found = {}
        for execution in past.executions:
            folder = home.artifacts / "Trainer" / "model_run" / str(execution.id)
            if execution.node == "Trainer" and (execution.ran or execution.state == RUNNING) and folder.is_dir():
                config = history.settings_in(configs.get(execution.id, {}).get("custom_config"))
                found[_name(execution.run_id, config)] = folder
        return found


def _name(run_id: str, config: Mapping[str, Any]) -> str:
    """`20261124-100000-000 steps=100 learning_rate=0.001`: a run, and the settings that are not the default."""
    usual = {"train": asdict(TrainSettings()), "data": DataSettings().of_examples()}
    given = [
        f"{key}={value}"
        for section, defaults in usual.items()
        for key, value in (config.get(section) or {}).items()
        if key in defaults and json.dumps(value) != json.dumps(defaults[key])
    ]
    return re.sub(r"[^\w.=,\[\]+ -]", "_", " ".join([run_id, *given]))[:MAX_NAME]


def _link(home: Home, folder: Path) -> list[str]:
    """Add a link to each training that has none; returns the names of all."""
    found = trainings(home)
    for name, target in found.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    return list(found)


def _launch(folder: str, port: int | None) -> str:
    """Start TensorBoard in this process, with scalars only: its other plugins import TensorFlow. Returns its URL."""
    from tensorboard import program
    from tensorboard.data import server_ingester
    from tensorboard.plugins.core import core_plugin
    from tensorboard.plugins.metrics import metrics_plugin
    from tensorboard.plugins.scalar import scalars_plugin

    os.environ["no_grpc_proxy"] = "localhost"  # noqa: SIM112  # no proxy between TensorBoard and its data server
    try:
        server_ingester.get_server_binary()
        fast = "true"
    except server_ingester.NoDataServerError:  # no wheel for this platform
        fast = "false"
    plugins = [core_plugin.CorePluginLoader(), metrics_plugin.MetricsPlugin, scalars_plugin.ScalarsPlugin]
    server = program.TensorBoard(plugins=plugins)
    options = ["--port", str(port)] if port else []
    try:
        server.configure(argv=["", "--logdir", folder, "--load_fast", fast, *options])
        return str(server.launch())
    except program.TensorBoardServerException as e:
        raise InputError(f"TensorBoard cannot start: {e.msg}", "Name another port: --port N") from e
