"""Settings that `compile` rejects, and its error messages, without TFX."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from components.common.errors import InputError
from pipeline.kubeflow.compile import require_kfp
from tests.support.command import in_process


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kubeflow.image=mnist-tfx", "neither a tag nor a digest"),
        ("kubeflow.image=registry:5000/mnist-tfx", "neither a tag nor a digest"),
        ("kubeflow.image_pull_policy=Sometimes", "Always, IfNotPresent, Never"),
        ("kubeflow.volume_claim=My Volume", "volume_claim"),
        ("kubeflow.volume_path=relative", "absolute path"),
        ('kubeflow.resources=["Trainer=fast"]', "NODE=CPU,MEMORY"),
        ('kubeflow.secrets=["proxy"]', "SECRET/KEY=VARIABLE"),
        ("data.source=digits", "not an absolute path"),
        ("data.source=~/digits", "not an absolute path"),
        ("data.source=/data/{{x}}", "placeholder"),
        ('beam.args=["--name={{workflow.name}}"]', "placeholder"),
        ("train.steps=0", "train.steps"),
    ],
)
def test_settings_that_a_cluster_cannot_use_are_rejected(tmp_path: Path, override: str, message: str) -> None:
    output = tmp_path / "pipeline.yaml"
    done = in_process("compile", "--output", output, "--home", tmp_path / "home", "--set", override)
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    done = in_process("compile", "--output", "/dev/null/x.yaml", "--home", tmp_path)
    assert done.code == 5
    assert "/dev/null" in done.stderr


def test_without_kfp_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)
    monkeypatch.delitem(sys.modules, "kfp.kubernetes", raising=False)
    with pytest.raises(InputError, match="extra 'kubeflow'"):
        require_kfp()
