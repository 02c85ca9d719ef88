"""The report of a home with a recorded run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.home import Home
from pipeline import report
from tests.support.reported_home import HOSTILE, RUN, with_evaluation
from tests.unit.pipeline.report.test_page import check_sound


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "home"
    with_evaluation(root)
    return root


def test_the_command_names_the_page_and_imports_neither_tensorflow_nor_tfx(home: Path) -> None:
    code = (
        "import sys; from components.common import command_line; from pipeline.__main__ import app\n"
        f"sys.argv = ['x', 'report', '--home', {str(home)!r}, '--json']\n"
        "try: command_line.run(app)\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'matplotlib', 'tensorflow_model_analysis'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    path = home / "reports" / f"{RUN}.html"
    assert printed == {"run_id": RUN, "report": str(path)}
    text = path.read_text()
    check_sound(text)
    for words in (
        "Blessed and pushed",
        "0.8200 to 0.9000",
        "train.steps 100 -&gt; 200",
        "same as run 20251231-000000-000",
        "Pusher, execution 5",
        "40 of 300 test images are misread",
        "zero read as one",
        "serves the newest version",
    ):
        assert words in text
    assert HOSTILE not in text


def test_what_is_damaged_or_gone_is_listed(home: Path) -> None:
    (evaluation,) = (home / "artifacts" / "Evaluator" / "evaluation").glob("*/reference_answers.npz")
    kept = evaluation.read_bytes()
    evaluation.write_bytes(kept[:100])
    manifest = home / "serving_model" / "mnist" / "7" / "manifest.json"
    manifest.rename(manifest.with_suffix(".away"))
    text = report.write(Home(home), "7").read_text()
    check_sound(text)
    assert "What this page lacks" in text
    assert "predictions for the test split" in text
    assert "manifest of version 7" in text
    assert "0.8200 to 0.9000" in text  # from the verdict, which is sound
    (home / "metadata.sqlite").unlink()
    assert "record in ML Metadata" in report.write(Home(home), RUN).read_text()
