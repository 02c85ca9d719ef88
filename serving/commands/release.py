"""The `promote`, `canary`, `rollback` and `history` commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say, say_next
from components.common.commands import command
from components.common.errors import UsageError
from components.common.home import existing
from serving.commands import tables

if TYPE_CHECKING:
    from serving.release.apply import Change

EXIT_CANARY_FAILED: Final = 3
SHADOW_DIGITS: Final = 1000  # of the suggested comparison
ReasonOption = Annotated[str, typer.Option(help="Reason, recorded in the history.")]
VersionArgument = Annotated[int | None, typer.Argument(min=0, metavar="[VERSION]", show_default=False)]


def add_to(app: typer.Typer) -> None:
    for function in (promote, canary, rollback, history):
        app.command()(function)


def promote(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    unpin: Annotated[
        bool, typer.Option("--unpin", help="Remove the labels instead: serve the newest pushed version again.")
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version stable (default: the canary, else the newest).

    After the first promotion, a newly pushed version is served only if it is promoted or made the canary.

    Example: mnist-serving promote --reason "passed the review"
    """
    from serving.release import decisions

    if unpin and version is not None:
        raise UsageError("both a version and --unpin", "Give one of them.")
    home = existing(home)
    change = decisions.unpin(home, reason=reason) if unpin else decisions.promote(home, version, reason=reason)
    _report(change, as_json)


def canary(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    clear: Annotated[bool, typer.Option("--clear", help="Withdraw the canary instead.")] = False,
    shadow: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="Compare canary and stable on N test digits."),
    ] = None,
    min_agreement: Annotated[float, typer.Option(min=0, max=1, help="Share of digits with equal predictions.")] = 0.95,
    max_accuracy_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy below stable, beyond a margin for chance.")
    ] = 0.005,
    max_latency_ratio: Annotated[float, typer.Option(min=0, help="p99 latency: canary / stable.")] = 2.0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of IDX files. Default: what stable was evaluated on.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the choice of digits reproducible.")] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Test a version (default: the newest) as the canary; with --shadow, compare it with stable.

    --shadow without VERSION uses the current canary. Exit code 0 means promote, 3 means withdraw.

    Example: mnist-serving canary --shadow 1000
    """
    from components.versions.release import read_release
    from serving.release import decisions

    if clear and (version is not None or shadow):
        raise UsageError("--clear with a version or --shadow", "Give --clear alone.")
    home = existing(home)
    if clear or shadow is None:
        change = (
            decisions.clear_canary(home, reason=reason) if clear else decisions.canary(home, version, reason=reason)
        )
        _report(change, as_json)
        return

    from serving.client import digits
    from serving.launch import server
    from serving.release import shadow as comparing

    rules = comparing.Rules(min_agreement, max_accuracy_drop, max_latency_ratio)
    running = server.require(home)
    now = read_release(home)
    stable = decisions.require_stable(home, now)
    folder = data or digits.test_data(home, stable)
    chosen = digits.from_test_set(folder, [], count=shadow, seed=seed)
    if version is not None or now.canary is None:
        change = decisions.canary(home, version, reason=reason)
        if not as_json:
            _report(change, as_json=False, last=False)
    comparison = comparing.run(home, running.grpc_port, chosen, rules, reason)
    _report_comparison(home, comparison, as_json)
    if comparison["reasons"]:
        raise typer.Exit(EXIT_CANARY_FAILED)


def rollback(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make VERSION (default: the previous stable version) stable again, and withdraw the canary.

    Example: mnist-serving rollback --reason "wrong sevens"
    """
    from serving.release import decisions

    _report(decisions.rollback(existing(home), version, reason=reason), as_json)


def history(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show who changed which version is served, when and why.

    Example: mnist-serving history
    """
    from serving.release.history import HISTORY_FILE, load

    home = existing(home)
    entries = load(home)
    damaged = sum("damaged" in entry for entry in entries)
    if damaged:
        print(f"warning: {home / HISTORY_FILE}: {damaged} line(s) cannot be read", file=sys.stderr)
    if as_json:
        say(json.dumps({"entries": entries, "damaged": damaged}))
    elif not entries:
        say("nothing has been promoted yet: the newest pushed version is served")
    else:
        for line in tables.history(entries):
            say(line)


def _report(change: Change, as_json: bool, *, last: bool = True) -> None:
    """Print a change and, if it is the `last` thing of the command, the next command to run."""
    after = change.after
    if as_json:
        say(json.dumps(_as_json(change)))
        return
    if not change.changed:
        say("nothing to change")
    for label, was in (("stable", change.before.stable), ("canary", change.before.canary)):
        number = after.stable if label == "stable" else after.canary
        moved = "" if number == was else f" (was {was or 'none'})"
        say(f"{label}: {number or 'none'}{moved}")
    if after.stable is None:
        say("the newest pushed version is served")
    say(
        f"in effect after {change.seconds:.2f} s"
        if change.in_effect
        else f"no server is running: takes effect at the next start: {command('serving', 'up')}"
    )
    if after.canary is not None and after.stable is not None and after.canary > after.stable:
        say("requests without a label get the canary, the highest loaded version: use the label stable")
    if change.action == "promote" and after.previous is not None:
        say(f"to go back to {after.previous}: {command('serving', 'rollback')}")
    if last and change.in_effect:
        compare = after.canary is not None and after.stable is not None
        say_next("serving", *(("canary", "--shadow", SHADOW_DIGITS) if compare else ("status",)))


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "version": change.version,
        "stable": change.after.stable,
        "canary": change.after.canary,
        "previous": change.after.previous,
        "before": {"stable": change.before.stable, "canary": change.before.canary},
        "changed": change.changed,
        "in_effect": change.in_effect,
        "seconds": change.seconds,
    }


def _report_comparison(home: Path, comparison: dict[str, Any], as_json: bool) -> None:
    from components.versions.release import read_release

    reasons = comparison["reasons"]
    if as_json:
        now = read_release(home)
        say(json.dumps({"stable": now.stable, "canary": now.canary, "shadow": comparison}))
        return
    for line in [*tables.shadow(comparison), *(f"  {reason}" for reason in reasons)]:
        say(line)
    verdict = command("serving", "canary", "--clear") if reasons else command("serving", "promote")
    say(f"{comparison['verdict']}: {verdict}")
