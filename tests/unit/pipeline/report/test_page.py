"""Pages of runs that recorded little: they say what they lack."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError, UsageError
from components.common.home import Home
from pipeline import report
from tests.support.reported_home import RUN, only_result

VOID = {"meta", "link", "img", "br", "hr"}


class Elements(HTMLParser):
    """Checks that elements are closed in order, and keeps ids and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_sound(text: str) -> None:
    elements = Elements(text)
    assert len(set(elements.ids)) == len(elements.ids)
    assert {link.removeprefix("#") for link in elements.links} <= set(elements.ids)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"error": "start-up failed: ImportError"}, ["start-up failed", "before its first node", "no earlier run"]),
        (
            {
                "status": "anomalies",
                "error": "The data has anomalies:\n  train: label: <b>unexpected</b>\nCorrect the data.",
                "nodes": [{"id": "ExampleGen", "state": "ran", "seconds": 1.0}],
            },
            ["Stopped by anomalies", "<li>train: label: &lt;b&gt;unexpected&lt;/b&gt;</li>", "ExampleGen: ran, 1.0 s"],
        ),
        (
            {
                "status": "not_blessed",
                "blessed": False,
                "error": "not blessed, nothing pushed",
                "checks": [
                    {"metric": "recall", "slice": "3", "value": 0.9, "bound": 0.95, "passed": False, "baseline": None}
                ],
            },
            ["Not blessed", "0.9000", "-0.0500", ">NO<"],
        ),
        ({"status": "pushed", "pushed_version": "7", "blessed": True}, ["Blessed and pushed", "pushed elsewhere"]),
    ],
)
def test_a_run_without_artifacts_has_a_page(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    path = report.write(only_result(tmp_path, **changes), "latest")
    assert path == tmp_path / "reports" / f"{RUN}.html"
    text = path.read_text()
    check_sound(text)
    for words in [*expected, "What this page lacks", "No predictions"]:
        assert words in text


def test_without_a_run_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        report.write(Home(tmp_path), "latest")
    with pytest.raises(UsageError, match="no run or version 'x'"):
        report.write(only_result(tmp_path), "x")
