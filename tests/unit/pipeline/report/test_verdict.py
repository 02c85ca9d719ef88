from __future__ import annotations

from components.validation.verdict import Check
from components.versions.release import Release
from pipeline.report import verdict


def test_a_bound_has_its_interval_margin_and_baseline() -> None:
    checks = [
        Check("accuracy", "overall", 0.98, 0.97, True, baseline=0.985),
        Check("recall", "1", 0.90, 0.95, False),
        Check("grpc_p99_ms", "overall", 300.0, 250.0, False, at_most=True),
    ]
    accuracy, recall, latency = verdict.rows(checks, {"overall": 1000, "1": 100}, ["shirt", "shoe"])
    assert (accuracy.slice, accuracy.value, accuracy.bound, accuracy.margin) == ("all", "0.9800", "≥ 0.9700", "+0.0100")
    assert (accuracy.baseline, accuracy.delta) == ("0.9850", "-0.0050")
    assert accuracy.interval == "0.9693 to 0.9870"
    assert (recall.slice, recall.margin, recall.passed) == ("shoe", "-0.0500", False)
    assert (latency.metric, latency.bound, latency.margin, latency.interval) == ("grpc_p99_ms (ms)", "≤ 250", "-50", "")


def test_the_role_of_a_version() -> None:
    assert verdict.role(3, Release(stable=3), True) == "stable and canary on the servers of this home"
    assert verdict.role(4, Release(stable=3, canary=4), True).startswith("canary")
    assert "until this one is promoted" in verdict.role(4, Release(stable=3), True)
    assert "newest" in verdict.role(4, Release(), True)
    assert verdict.role(4, Release(), False).startswith("not in this home")
