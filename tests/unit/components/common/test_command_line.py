"""What `command_line.run` prepares before a command runs."""

from __future__ import annotations

import pwd
import sys
from pathlib import Path

import pytest

from components.common import command_line


def test_a_user_without_home_and_name_has_a_home_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs with another user ID. Libraries ask for it when they are imported."""

    def unknown(_: int) -> None:  # a process of such a user needs root, and a checkout that others may read
        raise KeyError

    monkeypatch.setenv("HOME", "restored after the test")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(sys, "argv", ["pipeline"])
    app = command_line.application("pipeline", "")
    app.command()(lambda: print(Path.home()))
    with pytest.raises(SystemExit):
        command_line.run(app)
    assert capsys.readouterr().out == "/nonexistent\n"
