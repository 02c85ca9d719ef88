from __future__ import annotations

import pytest

from pipeline.kubeflow.watch import task_report, tasks_of
from tests.support.kfp_server import task


def test_tasks_are_found_among_the_steps_of_a_workflow() -> None:
    steps = [*task("ExampleGen", "SUCCEEDED", cached=True), *task("Trainer", "FAILED", "killed", pod="pod-7")]
    found = tasks_of({"run_details": {"task_details": steps}}, ["ExampleGen", "Trainer", "Pusher"])
    assert set(found) == {"ExampleGen", "Trainer"}
    assert found["ExampleGen"].state == "cached"
    assert (found["Trainer"].state, found["Trainer"].message, found["Trainer"].pods[0]) == ("failed", "killed", "pod-7")
    assert tasks_of({}, ["Trainer"]) == {}


@pytest.mark.parametrize("log", ["", "mnist-tfx result: {half", "mnist-tfx result: 3", "something else"])
def test_a_log_without_a_result_line_has_an_empty_report(log: str) -> None:
    assert task_report(log) == {}


def test_the_last_result_line_counts_whatever_is_printed_around_it() -> None:
    log = 'mnist-tfx result: {"exit_code": 1}\n2026-01-01 mnist-tfx result: {"exit_code": 0}\nI0101 launcher: done\n'
    assert task_report(log) == {"exit_code": 0}
