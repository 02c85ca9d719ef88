from __future__ import annotations

import pytest

from serving.commands import tables
from serving.release import shadow
from serving.release.shadow import Predictions, Rules


def predictions(version: int, classes: list[int | None], latency_ms: float = 1.0) -> Predictions:
    succeeded = sum(predicted is not None for predicted in classes)
    return Predictions(version, classes, [latency_ms] * succeeded, "" if succeeded == len(classes) else "why")


@pytest.mark.parametrize(
    ("canary", "says"),
    [
        (predictions(2, [0] * 1000), None),
        (predictions(2, [0] * 985 + [1] * 15), "15 fewer of 1000 digits correct, 11.4 allowed"),
        (predictions(2, [0] * 990 + [1] * 10), None),  # 5 allowed, and 1.645 * sqrt(10) for chance
        (predictions(2, [0] * 900 + [1] * 100), "agreement 0.9000 < 0.9500"),
        (predictions(2, [0] * 999 + [None]), "1 of 1000 requests failed: why"),
        (predictions(2, [None] * 1000), "1000 of 1000 requests failed"),
        (predictions(2, [0] * 1000, 20.0), "p99 latency 20.0 ms > 2 x 1.0 ms"),
        (predictions(2, [0] * 1000, 5.5), None),  # 4.5 ms more is noise
    ],
)
def test_the_thresholds_of_a_comparison(canary: Predictions, says: str | None) -> None:
    result = shadow.compare(
        {"stable": predictions(1, [0] * 1000), "canary": canary}, [0] * 1000, Rules(0.95, 0.005, 2.0)
    )
    assert result["verdict"] == ("withdraw" if says else "promote")
    assert (says in "; ".join(result["reasons"])) if says else result["reasons"] == []
    assert any(f"{canary.version:>14}" in line for line in tables.shadow(result))


def test_a_few_digits_are_not_significant() -> None:
    truth = [0] * 100
    pair = {"stable": predictions(1, [0] * 99 + [1]), "canary": predictions(2, [1, 1, *[0] * 97, 1])}
    assert shadow.compare(pair, truth, Rules(0.95, 0.005, 2.0))["verdict"] == "promote"
