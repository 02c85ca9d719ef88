"""The `promote`, `canary`, `rollback` and `history` commands, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import serving_commands
from tests.support.pushed import push


def test_changes_and_the_history_are_printed(tmp_path: Path) -> None:
    home = tmp_path
    for version in (4, 5):
        push(home, version)
    done = serving_commands.run("promote", "4", "--home", home, "--reason", "4 is good")
    assert done.code == 0
    assert "stable: 4 (was none)" in done.stdout
    assert "no server is running: takes effect at the next start" in done.stdout
    rolled = serving_commands.run("rollback", "--home", home, "--json").json
    assert (rolled["stable"], rolled["before"]["stable"], rolled["in_effect"]) == (5, 4, False)
    assert "4 is good" in serving_commands.run("history", "--home", home).stdout
    with open(home / "serving" / "history.jsonl", "a") as file:
        file.write("cut off")
    listed = serving_commands.run("history", "--home", home, "--json")
    assert (len(listed.json["entries"]), listed.json["damaged"]) == (3, 1)
    assert "1 line(s) cannot be read" in listed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["promote", "seven"], 2, "valid integer"),
        (["promote", "-1"], 2, "-1"),
        (["promote", "3", "--unpin"], 2, "both a version and --unpin"),
        (["canary", "--clear", "--shadow", "5"], 2, "--clear"),
        (["canary", "--shadow", "0"], 2, "--shadow"),
        (["canary", "--shadow", "1", "--max-latency-ratio", "nan"], 2, "--max-latency-ratio"),
        (["promote", "--home", "/dev/null/home"], 5, "/dev/null/home"),
        (["promote"], 5, "no version has been pushed"),
        (["rollback", "12345678901234567890"], 5, "was not pushed"),
    ],
)
def test_mistakes_end_with_a_message_and_the_exit_code(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    home = [] if "--home" in arguments else ["--home", tmp_path]
    done = serving_commands.run(*arguments, *home)
    assert done.code == code
    assert says in done.stderr
