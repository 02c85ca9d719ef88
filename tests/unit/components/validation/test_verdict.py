"""Verdicts: their messages and their file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.validation.verdict import Check, Verdict, describe

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
CHECKS = st.builds(
    Check, st.text(), st.text(), NUMBERS, NUMBERS, st.booleans(), st.none() | NUMBERS, at_most=st.booleans(),
    low=st.none() | NUMBERS, p_worse=st.none() | NUMBERS, class_name=st.text(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (Check("recall", "8", 0.941, 0.95, False), "recall[8] 0.9410 < 0.9500"),
        (Check("accuracy", "overall", 0.98, 0.97, True, 0.985), "accuracy[overall] 0.9800 >= 0.9700 (baseline 0.9850)"),
        (Check("recall", "6", 0.8, 0.7, True, class_name="Shirt"), "recall[Shirt] 0.8000 >= 0.7000"),
        (
            Check("accuracy", "overall", 0.97, 0.98, False, 0.99, p_worse=0.00123),
            "accuracy[overall] 0.9700 < 0.9800 (baseline 0.9900, p 0.0012)",
        ),
        (Check("p99_ms", "overall", 400.0, 250.0, False, at_most=True), "p99_ms[overall] 400.0000 > 250.0000"),
        (Check("difference", "overall", 4e-7, 1e-5, True, at_most=True), "difference[overall] 4e-07 <= 1e-05"),
        (Check("size_bytes", "overall", 2e8, 1e8, False, at_most=True), "size_bytes[overall] 2e+08 > 1e+08"),
    ],
)
def test_a_check_in_one_line(check: Check, line: str) -> None:
    assert describe(check) == line


def test_failures_are_the_error_and_the_failed_checks() -> None:
    good, bad = Check("recall", "0", 1.0, 0.9, True), Check("recall", "1", 0.5, 0.9, False)
    assert Verdict(True, [good]).failures == []
    assert Verdict(False, [good, bad], error="no server").failures == ["no server", "recall[1] 0.5000 < 0.9000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdict")


@given(st.booleans(), st.lists(CHECKS, max_size=5), st.none() | st.text())
@settings(max_examples=30)
def test_a_verdict_is_read_as_it_was_written(
    folder: Path, blessed: bool, checks: list[Check], error: str | None
) -> None:
    path = folder / "verdict.json"
    verdict = Verdict(blessed, checks, error, {"slices": {"overall": {"accuracy": 0.5}}})
    verdict.write(path)
    assert Verdict.read(path) == verdict


def test_a_verdict_of_a_version_before_intervals_and_names_is_readable(tmp_path: Path) -> None:
    check = {"metric": "recall", "slice": "6", "value": 0.8, "bound": 0.7, "passed": True, "baseline": None}
    (tmp_path / "old.json").write_text(json.dumps({"blessed": True, "checks": [{**check, "at_most": False}]}))
    (read,) = Verdict.read(tmp_path / "old.json").checks
    assert (read.low, read.p_worse, read.class_name, read.margin) == (None, None, "", pytest.approx(0.1))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"blessed": true, "checks": [{"metric": "x"}]}'])
def test_a_damaged_verdict_raises(tmp_path: Path, content: str) -> None:
    (tmp_path / "verdict.json").write_text(content)
    with pytest.raises((ValueError, TypeError, KeyError)):
        Verdict.read(tmp_path / "verdict.json")
