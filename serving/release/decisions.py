"""The decisions of promote, canary, rollback and unpin; apply.py applies them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from components.common.commands import command
from components.common.errors import InputError, UsageError
from components.versions.release import Release, own_versions, pushed_versions, versions_folder
from serving.launch.model_config import foreign_above
from serving.launch.proof import list_pushed
from serving.release.apply import Change, Decision, apply

EARLIER_KEPT: Final = 50


def promote(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Make a version stable; default: the canary or, without a canary, the newest pushed version.

    Raises:
        UserError: the version is missing, fails verification or does not load; the server does not respond; the home
            is damaged.
    """

    def choose(now: Release, requested: int | None) -> Decision:
        chosen = _choose(home, requested, now.canary)
        canary = None if chosen in (now.canary, now.stable) else now.canary
        if chosen == now.stable:
            return Decision(chosen, now)
        return Decision(chosen, _release(chosen, canary, _stable_versions(home, now)))

    return apply(home, "promote", version, reason, choose)


def canary(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Test a version as the canary; default: the newest pushed version. Raises UserError, like `promote`."""

    def choose(now: Release, requested: int | None) -> Decision:
        chosen = _choose(home, requested)
        if chosen == require_stable(home, now):
            raise UsageError(f"version {chosen} is the stable one", f"Choose another. {list_pushed(home)}")
        return Decision(chosen, replace(now, canary=chosen))

    return apply(home, "canary", version, reason, choose)


def require_stable(home: Path, now: Release) -> int:
    """Return the stable version. Raises UsageError if there is none."""
    if now.stable is None:
        raise UsageError(
            "no version is stable yet, so there is nothing to compare a canary with",
            f"First make one stable, such as: {command('serving', 'promote', _newest(home))}",
        )
    return now.stable


def clear_canary(home: Path, *, reason: str = "") -> Change:
    """Withdraw the canary: its label moves to the stable version. Raises UserError."""

    def choose(now: Release, requested: int | None) -> Decision:
        if now.stable is None:
            raise UsageError("no version is stable, so there is no canary")
        return Decision(_choose(home, requested, now.canary, now.stable), replace(now, canary=None))

    return apply(home, "clear canary", None, reason, choose)


def rollback(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Make an earlier version stable again, by default the previous stable one, and withdraw the canary.

    A second rollback goes back one more version, not forward again. Raises UserError, like `promote`.
    """

    def choose(now: Release, requested: int | None) -> Decision:
        before = _stable_versions(home, now)[:-1]
        own = own_versions(home)
        available = [number for number in before if number in own and number != now.stable]
        if requested is None and not available:
            raise UsageError("there is no earlier stable version", f"Name the version. {list_pushed(home)}")
        if requested is None and now.stable is None:
            _name_ignored(home)
        chosen = available[-1] if requested is None else requested
        if chosen != now.stable and chosen in before:
            before = before[: len(before) - 1 - before[::-1].index(chosen)]
        return Decision(chosen, _release(chosen, None, before))

    return apply(home, "rollback", version, reason, choose)


def unpin(home: Path, *, reason: str = "") -> Change:
    """Remove both labels, so that the newest pushed version is served as before any promotion. Raises UserError."""

    def choose(_: Release, requested: int | None) -> Decision:
        return Decision(_choose(home, requested, _newest(home)), Release())

    return apply(home, "unpin", None, reason, choose)


def _stable_versions(home: Path, release: Release) -> tuple[int, ...]:
    """Return the stable versions in order, the current one last. Without labels, all pushed versions count."""
    return tuple(own_versions(home)) if release.stable is None else (*release.earlier, release.stable)


def _release(stable: int, canary: int | None, before: tuple[int, ...]) -> Release:
    if before[-1:] == (stable,):
        before = before[:-1]
    return Release(stable, canary, before[-EARLIER_KEPT:])


def _newest(home: Path) -> int:
    pushed = pushed_versions(home)
    if not pushed:
        where = home / "serving_model"
        raise InputError(
            f"{where}: no version has been pushed", f"Run the pipeline first: {command('pipeline', 'run')}"
        )
    return (own_versions(home) or pushed)[-1]


def _choose(home: Path, *preferred: int | None) -> int:
    """Return the first that is not None, else the newest version that a run pushed."""
    for version in preferred:
        if version is not None:
            return version
    newest = _newest(home)
    _name_ignored(home)
    return newest


def _name_ignored(home: Path) -> None:
    """Name the folders above the newest version on stderr: no run pushed them."""
    if above := foreign_above(home, _newest(home)):
        print(f"pushed by no run, so ignored: {', '.join(above)} in {versions_folder(home)}", file=sys.stderr)
