from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from serving.commands import tables
from serving.release import decisions, history


def test_each_change_is_recorded_and_listed(home: Path) -> None:
    decisions.promote(home, 1, reason="first")
    decisions.canary(home, 2)
    decisions.rollback(home, 3, reason="tired\nof\x1b[31m 1 \udcff")
    first, _, last = history.read(home)
    assert first["user"] == history.user()
    assert (first["action"], first["version"], first["outcome"], first["reason"]) == ("promote", 1, "done", "first")
    assert (first["before"], first["after"]) == ({"stable": None, "canary": None}, {"stable": 1, "canary": None})
    assert last["before"] == {"stable": 1, "canary": 2}
    assert last["reason"] == "tired\nof\x1b[31m 1 \udcff"
    shown = tables.history([last])
    assert len(shown) == 3
    assert all(line.isprintable() and line.isascii() for line in shown)
    assert "stable 1 -> 3, canary 2 -> none" in shown[1]


def test_a_cut_off_last_line_is_kept_and_listed(home: Path) -> None:
    decisions.promote(home, 1)
    path = home / history.HISTORY_FILE
    path.write_text(path.read_text() + '{"id": "x", "action": "prom')
    decisions.promote(home, 2)
    entries = history.load(home)
    assert [entry.get("version") for entry in entries] == [1, None, 2]
    assert entries[1] == {"damaged": '{"id": "x", "action": "prom'}
    assert 'damaged line: {"id": "x", "action": "prom' in tables.history(entries)


@given(st.text(), st.text(max_size=300), st.integers(0, 2**63 - 2))
def test_a_listing_fits_80_columns_and_loses_nothing(user: str, reason: str, version: int) -> None:
    sides = {"before": {"stable": version, "canary": version}, "after": {"stable": 2**63 - 1, "canary": None}}
    entry = {"time": "2026-11-24T14:00:00Z", "user": user, "action": "clear canary", "version": version} | sides
    lines = tables.history([{**entry, "outcome": "done", "reason": reason, "error": "no"}])
    assert max(cell_len(line) for line in lines) <= 80
    shown = "".join("".join(lines).split())
    assert "".join(tables.printable(reason).split()) in shown
    assert f"clearcanary{version}:donestable{version}->{2**63 - 1},canary{version}->none" in shown
