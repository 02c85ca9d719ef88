from __future__ import annotations

from pathlib import Path

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
    assert len(shown) == 2
    assert all(line.isprintable() and line.isascii() for line in shown)
    assert "1 -> 3" in shown[1]


def test_a_cut_off_last_line_is_kept_and_listed(home: Path) -> None:
    decisions.promote(home, 1)
    path = home / history.HISTORY_FILE
    path.write_text(path.read_text() + '{"id": "x", "action": "prom')
    decisions.promote(home, 2)
    entries = history.load(home)
    assert [entry.get("version") for entry in entries] == [1, None, 2]
    assert entries[1] == {"damaged": '{"id": "x", "action": "prom'}
    assert "damaged line" in tables.history(entries)[2]
