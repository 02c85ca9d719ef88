"""What a run printed at its end, and `status` again: seconds, checks, metrics, the result, and what is served."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from components.common.command_line import say, say_next, wrapped
from components.common.commands import command
from components.common.errors import InputError
from components.common.home import Home
from components.validation.verdict import Check
from components.versions import manifest
from components.versions.release import pushed_versions, read_release, version_folder
from pipeline.run import Result
from pipeline.verdict_table import against_baseline, verdict_table


def show(result: Result, home: Path) -> None:
    """Print everything but the error."""
    total = result.seconds or 1.0
    parts = {"start-up": result.startup_seconds} | {node["id"]: node["seconds"] for node in result.nodes}
    shares = [f"{name} {part:.1f} ({part / total:.0%})" for name, part in parts.items() if part >= 0.01 * total]
    say(wrapped(f"seconds {result.seconds:.1f} = {' + '.join(shares)}"))
    states = {node["id"]: node["state"] for node in result.nodes}
    if result.checks and (states.get("Evaluator") == "ran" or not result.blessed):
        checks = [Check(**check) for check in result.checks]
        console = Console(highlight=False)
        console.print(verdict_table(checks, console.width))
        for line in against_baseline(checks):
            say(line)
    if result.metrics:
        say(wrapped(", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())))
    report = Home(home).report(str(result.run_id))
    if report.is_file():
        say(f"report: {report}")
    if result.pushed_version is None:
        if result.error is None:
            say("nothing was pushed; what was served before stays")
        return
    before = " (by an earlier run)" if states.get("Pusher") == "cached" else ""
    say(f"pushed: version {result.pushed_version}{before}")
    for line in not_served(home, result.pushed_version):
        say(line)


def show_next(result: Result, home: Path) -> None:
    """Print the command that follows a run: look at it, or serve what it pushed here."""
    if result.status == "not_blessed":
        say_next("pipeline", "report")
        return
    pushed = str(result.pushed_version)
    if pushed in map(str, pushed_versions(home)) and not not_served(home, pushed):  # else: on a cluster
        say_next("serving", "up")


def not_served(home: Path, pushed: str) -> list[str]:
    """Return lines that say that a pushed version is not served, because another one is stable; [] if it is served."""
    try:
        release = read_release(home)
    except InputError as e:
        return [f"warning: {e}"]
    here = map(str, pushed_versions(home))  # a run on Kubeflow pushes elsewhere
    if release.stable is None or str(release.stable) == pushed or pushed not in here:
        return []
    state = "is the canary" if str(release.canary) == pushed else "is not served yet"
    return [
        f"version {pushed} {state}: version {release.stable} is stable until you promote another",
        f"  stable  {_described(home, release.stable)}",
        f"  new     {_described(home, int(pushed))}",
        f"  to serve the new one: {command('serving', 'promote', pushed)}",
    ]


def _described(home: Path, version: int) -> str:
    """The number, the date and the test accuracy of a version, from its manifest."""
    try:
        known = manifest.read(version_folder(home, version))
    except InputError:
        return f"{version}  (no readable manifest)"
    accuracy = known.metrics.get("sparse_categorical_accuracy")
    shown = "unknown" if accuracy is None else f"{accuracy:.4f}"
    return f"{version}  pushed {known.created_utc[:16].replace('T', ' ')} UTC, test accuracy {shown}"
