"""Every command that a message tells the user to run is run, as if pasted. Those with a server: serving/release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import serving_commands
from tests.support.command import in_process
from tests.support.pasted import paste, printed_commands
from tests.support.pushed import folder, push


def test_commands_in_messages_work_when_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    home, nothing = tmp_path / "a home", tmp_path / "nothing"
    for version in (3, 4, 5):
        push(home, version)
    (home / "logs" / "run").mkdir(parents=True)
    (home / "logs" / "run" / "run.json").write_text('{"run_id": "run", "status": "pushed", "pushed_version": "5"}')

    def says(*arguments: str | Path, program: str = "serving", home: Path = home) -> None:
        """Run a command, and then what it tells the user to run."""
        run = serving_commands.run if program == "serving" else in_process
        done = run(*arguments, "--home", home)
        found = printed_commands(done.stdout + done.stderr)
        assert found, (arguments, done)
        for shown in found:
            pasted = paste(shown)
            assert pasted.code == 0, (shown, pasted)

    says("status", home=nothing)
    says("promote", home=nothing)
    says("query", "--grpc-port", "1", "--rest-port", "1")
    says("status", program="pipeline", home=nothing)
    says("canary")  # first make one stable
    says("promote", "3")  # takes effect at the next start; to go back
    serving_commands.run("promote", "3", "--home", home)
    says("status", program="pipeline")  # version 5 is not served yet
    (folder(home, 4) / "saved_model.pb").write_bytes(b"changed")
    says("promote", "4")  # push again, or roll back
    (home / "serving" / "release.json").write_text("{")
    says("promote", "4")  # see the history
