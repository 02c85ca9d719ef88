"""A finding, and running the checks that return them: all at once, each for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from components.common.errors import UserError

DEADLINE_S: Final = 4.0  # for all checks together
State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was checked.
        state: "ok"; "warning": something works worse, or not at all, but the pipeline runs; "error": it does not.
        found: one line of facts.
        fix: what to do; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    fix: str = ""


Check = Callable[[], Iterable[Finding]]


def run(checks: Mapping[str, Check], deadline_s: float = DEADLINE_S) -> list[Finding]:
    """The findings in the order of the checks, which run in parallel: most of them wait for something.

    A check that raises is an error; one that has not ended in time is a warning.
    """
    found: dict[str, list[Finding]] = {}

    def examine(name: str, check: Check) -> None:
        try:
            found[name] = list(check())
        except UserError as e:
            found[name] = [Finding(name, "error", e.problem, e.remedy)]
        except Exception as e:  # a check must not hide the results of the others
            found[name] = [Finding(name, "error", f"cannot be checked: {type(e).__name__}: {e}")]

    # Daemons: a name server that does not respond must not keep the command from ending.
    threads = [threading.Thread(target=examine, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = f"not known: no response within {deadline_s:.0f} s"
    return [finding for name in checks for finding in found.get(name, [Finding(name, "warning", late)])]
