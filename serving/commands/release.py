"""The commands promote, canary, rollback and history."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from components.common.command_line import DEFAULT_HOME, HomeOption, JsonOption, say
from components.common.errors import InputError, UsageError

if TYPE_CHECKING:
    from serving.client.digits import Digit
    from serving.release.apply import Change
    from serving.release.shadow import Rules

EXIT_CANARY_FAILED: Final = 3
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]
VersionArgument = Annotated[int | None, typer.Argument(min=0, metavar="[VERSION]", show_default=False)]


def add_to(app: typer.Typer) -> None:
    for command in (promote, canary, rollback, history):
        app.command()(command)


def promote(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    unpin: Annotated[
        bool, typer.Option("--unpin", help="Drop the labels instead: serve the newest pushed version again.")
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version (default: the canary, else the newest) the stable one.

    From the first promotion on, what is pushed is not served until it is promoted or the canary.
    """
    from serving.release import decisions

    if unpin and version is not None:
        raise UsageError("both a version and --unpin", "Give one of them.")
    where = home.resolve()
    change = decisions.unpin(where, reason=reason) if unpin else decisions.promote(where, version, reason=reason)
    _report(change, as_json)


def canary(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    clear: Annotated[bool, typer.Option("--clear", help="Withdraw the canary instead.")] = False,
    shadow: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="Compare it with stable on N test digits."),
    ] = None,
    min_agreement: Annotated[float, typer.Option(min=0, max=1, help="Share of equal answers.")] = 0.95,
    max_accuracy_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Against stable, beyond what chance explains.")
    ] = 0.005,
    max_latency_ratio: Annotated[float, typer.Option(min=0, help="p99 against stable's.")] = 2.0,
    data: Annotated[Path | None, typer.Option(help="Folder of IDX files, if not the home's MNIST.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the choice of digits repeatable.")] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put a version (default: the newest) under test as the canary; with --shadow, compare it with stable.

    --shadow without VERSION takes the canary that is there. It ends with exit 0 (promote) or 3 (roll back).
    """
    from components.common import contract
    from components.versions.release import read_release
    from serving.release import decisions

    if clear and (version is not None or shadow):
        raise UsageError("--clear with a version or --shadow", "Give --clear alone.")
    where = home.resolve()
    if clear:
        return _report(decisions.clear_canary(where, reason=reason), as_json)
    if shadow is None:
        return _report(decisions.canary(where, version, reason=reason), as_json)

    from serving.client import digits
    from serving.launch import server
    from serving.release.shadow import Rules

    rules = Rules(min_agreement, max_accuracy_drop, max_latency_ratio)
    asked = digits.from_test_set(data or where / "data" / contract.MODEL_NAME, [], count=shadow, seed=seed)
    running = server.find(where)
    if running is None:
        raise InputError(f"{where}: no server is running", "Start one: make serve")
    if version is not None or read_release(where).canary is None:
        change = decisions.canary(where, version, reason=reason)
        if not as_json:
            _report(change, as_json=False)
    return _compare(where, running.grpc_port, asked, rules, reason, as_json)


def rollback(
    version: VersionArgument = None,
    home: HomeOption = DEFAULT_HOME,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make the stable version before this one (default) or VERSION the stable one again; withdraw the canary."""
    from serving.release import decisions

    _report(decisions.rollback(home.resolve(), version, reason=reason), as_json)


def history(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show who changed what is served, when and why."""
    from components.versions.release import read_release
    from serving.release import history as log

    path = home.resolve() / log.HISTORY_FILE
    entries = log.read(home.resolve())
    with suppress(InputError):  # the history is what one reads when the other file is damaged
        entries = log.complete(entries, read_release(home.resolve()).entry)
    damaged = sum("damaged" in entry for entry in entries)
    if damaged:
        print(f"warning: {path}: {damaged} line(s) cannot be read", file=sys.stderr)
    if as_json:
        say(json.dumps({"entries": entries, "damaged": damaged}))
    elif not entries:
        say("nothing was promoted yet: the newest pushed version is served")
    else:
        for line in log.table(entries):
            say(line)


def _report(change: Change, as_json: bool) -> None:
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
        else "no server is running: in effect at the next start (make serve)"
    )
    if after.canary is not None and after.stable is not None and after.canary > after.stable:
        say("requests without a label get the canary, as the highest version that is loaded: ask by label stable")
    if change.action == "promote" and after.previous is not None:
        say(f"back to {after.previous}: python -m serving rollback")


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


def _compare(home: Path, grpc_port: int, asked: Sequence[Digit], rules: Rules, reason: str, as_json: bool) -> None:
    from components.versions.release import read_release
    from serving.client import connect
    from serving.release import history, shadow

    with connect(f"127.0.0.1:{grpc_port}") as client:
        answers = shadow.ask_both(client, asked)
    comparison = shadow.compare(answers, [digit.label for digit in asked], rules)
    against, now = comparison["reasons"], read_release(home)
    note = history.note("shadow", None, answers["canary"].version, reason)
    entry = history.entry(now, now, note, comparison["verdict"])
    history.append(home, {**entry, **({"error": "; ".join(against)} if against else {})})
    if as_json:
        say(json.dumps({"stable": now.stable, "canary": now.canary, "shadow": comparison}))
    else:
        for line in [*shadow.table(comparison), *(f"  {words}" for words in against)]:
            say(line)
        say("roll back: python -m serving canary --clear" if against else "promote: python -m serving promote")
    if against:
        raise typer.Exit(EXIT_CANARY_FAILED)
