"""The report of a run: one HTML file that shows what a home knows about the run, and loads nothing."""

from __future__ import annotations

from pathlib import Path

from components.common.files import write_durably
from components.common.home import Home
from pipeline.report import page
from pipeline.report.sources import Sources


def write(home: Home, run_id: str) -> Path:
    """Write `reports/<run>.html` in the home.

    Raises:
        InputError: the home has no finished run, or cannot be written.
        UsageError: it has no run of this name.
    """
    sources = Sources.of(home, run_id)
    path = home.report(sources.run.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, page.render(sources))
    return path
