"""The commands with a running server."""

from __future__ import annotations

from serving.release import decisions, history
from tests.conftest import Done
from tests.integration.serving.release.home import Home
from tests.support import serving_commands


def serving(home: Home, command: str, *arguments: str) -> Done:
    return serving_commands.run(command, "--home", home.path, *arguments)


def test_a_comparison_recommends_promote_or_roll_back(home: Home) -> None:
    decisions.promote(home.path, 1)
    good = serving(home, "canary", "3", "--shadow", "60", "--json", "--max-latency-ratio", "1000")
    assert good.code == 0, good.stderr
    shadow = good.json["shadow"]
    assert (shadow["verdict"], shadow["agreement"], shadow["canary"]["accuracy"]) == ("promote", 1.0, 1.0)
    assert [shadow[label]["version"] for label in ("stable", "canary")] == [1, 3]
    bad = serving(home, "canary", "4", "--shadow", "60")
    assert bad.code == 3
    assert "roll back: python -m serving canary --clear" in bad.stdout
    assert "fewer of 60 digits correct" in bad.stdout
    assert home.served()[:2] == (1, 4)  # the verdict is a recommendation
    outcomes = [entry["outcome"] for entry in history.read(home.path)]
    assert outcomes == ["done", "done", "promote", "done", "roll back"]


def test_status_and_query_use_the_labels(home: Home) -> None:
    decisions.promote(home.path, 2)
    assert serving(home, "status", "--json").json["labels"] == {"stable": 2, "canary": 2}
    assert serving(home, "query", "--count", "1", "--json").json["version"] == 2
    assert "images DT_UINT8 [-1, 28, 28] -> " in serving(home, "signatures").stdout
