from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow import entrypoint
from pipeline.kubeflow.watch import task_report


def test_missing_data_is_reported_in_the_last_line_and_by_the_exit_code(
    spec: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # or it replaces pytest's handlers
    executor_input = {
        "inputs": {"parameterValues": {"data_source": "/nowhere"}},
        "outputs": {"outputFile": str(tmp_path / "output.json")},
    }
    args = spec["deploymentSpec"]["executors"]["exec-ExampleGen"]["container"]["args"]
    code = entrypoint.main([arg.replace("{{$}}", json.dumps(executor_input)) for arg in args])
    report = task_report(capsys.readouterr().out)
    assert (code, report["exit_code"], report["node"]) == (5, 5, "ExampleGen")
    assert "/nowhere: no such folder" in report["error"]
