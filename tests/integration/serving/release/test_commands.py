"""The commands with a running server."""

from __future__ import annotations

from typing import Any

import pytest

from serving.client import Client
from serving.release import decisions, history
from tests.integration.serving.release.home import Home
from tests.support import serving_commands
from tests.support.done import Done
from tests.support.pasted import paste, printed_commands


def serving(home: Home, command: str, *arguments: str) -> Done:
    return serving_commands.run(command, "--home", home.path, *arguments)


def test_a_comparison_recommends_promote_or_withdraw(home: Home) -> None:
    decisions.promote(home.path, 1)
    good = serving(home, "canary", "3", "--shadow", "60", "--json", "--max-latency-ratio", "1000")
    assert good.code == 0, good.stderr
    shadow = good.json["shadow"]
    assert (shadow["verdict"], shadow["agreement"], shadow["canary"]["accuracy"]) == ("promote", 1.0, 1.0)
    assert [shadow[label]["version"] for label in ("stable", "canary")] == [1, 3]
    bad = serving(home, "canary", "4", "--shadow", "60")
    assert bad.code == 3
    assert "\nwithdraw: " in bad.stdout
    (withdraw,) = printed_commands(bad.stdout)
    assert "fewer of 60 digits correct" in bad.stdout
    assert home.served()[:2] == (1, 4)  # the verdict is a recommendation
    assert paste(withdraw).code == 0
    assert home.served()[:2] == (1, 1)
    outcomes = [entry["outcome"] for entry in history.read(home.path)]
    assert outcomes == ["done", "done", "promote", "done", "withdraw", "done"]


def test_status_and_query_use_the_labels(home: Home) -> None:
    decisions.promote(home.path, 2)
    status = serving(home, "status", "--json").json
    assert status["labels"] == {"stable": 2, "canary": 2}
    assert status["served"] == {"unlabelled": 2, "stable": 2, "canary": 2}
    assert serving(home, "query", "--count", "1", "--json").json["version"] == 2
    assert "images DT_UINT8 [-1, 28, 28] -> " in serving(home, "signatures").stdout
    unknown = serving(home, "query", "--count", "1", "--version", "99")
    (status_again,) = printed_commands(unknown.stderr)
    assert (unknown.code, paste(status_again).code) == (5, 0)
    decisions.canary(home.path, 4)
    assert "answers: unlabelled 4, stable 2, canary 4" in serving(home, "status").stdout


def test_a_comparison_is_never_of_mixed_versions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions.promote(home.path, 1)
    predict, moved, moves = Client.predict, [], 1

    def moving(self: Client, *arguments: Any, **options: Any) -> Any:
        """Move the canary before the first request, once or each time."""
        if len(moved) < moves and options.get("label") == "canary":
            moved.append(decisions.canary(home.path, 4 if len(moved) % 2 == 0 else 3))
        return predict(self, *arguments, **options)

    monkeypatch.setattr(Client, "predict", moving)  # places the moves between two requests; they are real
    done = serving(home, "canary", "3", "--shadow", "5", "--json")
    assert done.code == 3, done.stderr
    assert (done.json["shadow"]["canary"]["version"], done.json["shadow"]["verdict"]) == (4, "withdraw")
    moved.clear()
    moves = 1000
    done = serving(home, "canary", "3", "--shadow", "5", "--json")
    assert (done.code, "label canary moved from version" in done.stderr) == (5, True)
