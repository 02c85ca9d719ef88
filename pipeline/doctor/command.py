"""The `doctor` command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next, wrapped
from components.common.commands import EXIT_ENVIRONMENT
from components.common.home import Home

if TYPE_CHECKING:
    from pipeline.doctor.finding import Finding

INDENT: Final = " " * 19


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    home: HomeOption = DEFAULT_HOME,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the network where data can be had.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check machine, packages, data sources and home.

    Says how to repair what is wrong, and changes nothing. Exit code 5: an error was found, with which the pipeline
    cannot run.

    Example: mnist-pipeline doctor --offline
    """
    found = examine(Home(home.resolve()), offline=offline)
    failed = any(finding.state == "error" for finding in found)
    if as_json:
        say(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}))
    else:
        _show(found)
    if failed:
        raise typer.Exit(EXIT_ENVIRONMENT)
    if not as_json:
        say_next("pipeline", "run")


def examine(home: Home, *, offline: bool) -> list[Finding]:
    from pipeline.doctor import data, finding, machine, packages
    from pipeline.doctor import home as of_home

    return finding.run(
        {
            "Python": machine.python,
            "glibc": machine.c_library,
            "packages": packages.packages,
            "cores": machine.cores,
            "memory": machine.memory,
            "disk": partial(of_home.space, home),
            "home": partial(of_home.folders, home),
            "metadata": partial(of_home.metadata, home),
            "versions": partial(of_home.versions, home),
            "locks": partial(of_home.locks, home),
            "data": partial(data.data, home, offline=offline),
            "proxies": machine.proxies,
            "ports": partial(machine.ports, home.root),
            "container": machine.engine,
        }
    )


def _show(found: Sequence[Finding]) -> None:
    for finding in found:
        say(wrapped(f"{finding.state:<8} {finding.name:<9} {finding.found}", INDENT))
        if finding.fix:
            say(f"{INDENT}fix: {finding.fix}")  # not wrapped: it may be a command to paste
    counts = [(sum(finding.state == state for finding in found), state) for state in ("error", "warning")]
    say(", ".join(f"{count} {state}{'s' * (count > 1)}" for count, state in counts if count) or "all is well")
