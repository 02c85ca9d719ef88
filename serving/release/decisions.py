"""Promote, canary, roll back: what each of them decides. How it is carried out is in relabel.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from components.common.errors import InputError, UsageError
from components.versions.release import Release, pushed_versions
from serving.launch.proof import pushed_are
from serving.release.apply import Change, Decision, carry_out

EARLIER_KEPT: Final = 50


def promote(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Make a version the stable one; by default the canary, or without one the newest that was pushed.

    Raises:
        UserError: the version is not there, not proven, does not load; the server does not answer; the home is unfit.
    """

    def choose(now: Release, asked: int | None) -> Decision:
        chosen = _either(asked, now.canary, _newest(home))
        left = None if chosen in (now.canary, now.stable) else now.canary
        if chosen == now.stable:
            return Decision(chosen, now)
        return Decision(chosen, _released(chosen, left, _line(home, now)))

    return carry_out(home, "promote", version, reason, choose)


def canary(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Put a version, by default the newest that was pushed, under test. Raises UserError, as `promote`."""

    def choose(now: Release, asked: int | None) -> Decision:
        chosen = _either(asked, _newest(home))
        if now.stable is None:
            raise UsageError(
                "no version is stable yet, to test a canary against", "First: python -m serving promote VERSION"
            )
        if chosen == now.stable:
            raise UsageError(f"version {chosen} is the stable one", "Name another: python -m serving canary VERSION")
        return Decision(chosen, replace(now, canary=chosen))

    return carry_out(home, "canary", version, reason, choose)


def clear_canary(home: Path, *, reason: str = "") -> Change:
    """Withdraw the canary: its label goes back to the stable version. Raises UserError."""

    def choose(now: Release, asked: int | None) -> Decision:
        if now.stable is None:
            raise UsageError("no version is stable, and none is the canary")
        return Decision(_either(asked, now.canary, now.stable), replace(now, canary=None))

    return carry_out(home, "clear canary", None, reason, choose)


def rollback(home: Path, version: int | None = None, *, reason: str = "") -> Change:
    """Go back to a version, by default the stable one before the present one, and withdraw the canary.

    A second rollback goes one further back, not forth again. Raises UserError, as `promote`.
    """

    def choose(now: Release, asked: int | None) -> Decision:
        before = _line(home, now)[:-1]
        left = [number for number in before if number in pushed_versions(home) and number != now.stable]
        if asked is None and not left:
            known = f"{pushed_are(home)}. Name one: python -m serving rollback VERSION"
            raise UsageError("there is no earlier stable version", known)
        chosen = left[-1] if asked is None else asked
        if chosen != now.stable and chosen in before:
            before = before[: len(before) - 1 - before[::-1].index(chosen)]
        return Decision(chosen, _released(chosen, None, before))

    return carry_out(home, "rollback", version, reason, choose)


def unpin(home: Path, *, reason: str = "") -> Change:
    """Drop both labels: the newest pushed version is served again, as before the first promotion. Raises UserError."""

    def choose(_: Release, asked: int | None) -> Decision:
        return Decision(_either(asked, _newest(home)), Release())

    return carry_out(home, "unpin", None, reason, choose)


def _line(home: Path, release: Release) -> tuple[int, ...]:
    """Stable versions one after the other, the present one last. Unpinned, each pushed version was in its turn."""
    return tuple(pushed_versions(home)) if release.stable is None else (*release.earlier, release.stable)


def _released(stable: int, canary: int | None, before: tuple[int, ...]) -> Release:
    if before[-1:] == (stable,):
        before = before[:-1]
    return Release(stable, canary, before[-EARLIER_KEPT:])


def _newest(home: Path) -> int:
    pushed = pushed_versions(home)
    if not pushed:
        where = home / "serving_model"
        raise InputError(f"{where}: no version has been pushed", "Run the pipeline first: make pipeline")
    return pushed[-1]


def _either(*candidates: int | None) -> int:
    """The first that is named."""
    return next(candidate for candidate in candidates if candidate is not None)
