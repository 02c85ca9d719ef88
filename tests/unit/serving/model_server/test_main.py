"""The command line, and errors that prevent a start before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.model_server import __main__ as command
from serving.model_server.flags import parse

FAILED = 255


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "library", lambda: SimpleNamespace(TF_Version=lambda: b"2.21.0"))
    assert command.main(["--version"]) == 0
    assert "TensorFlow Library: 2.21.0" in capsys.readouterr().out


BAD_FLAGS = [
    ["--rest_api_timeout_in_ms=soon"],
    ["--enable_model_warmup=perhaps"],
    ["--port"],
    [f"--tensorflow_{which}_parallelism=2" for which in ("session", "intra_op", "inter_op")],
    ["--batching_parameters_file=/nowhere"],
]


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags_print_the_usage(flags: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--model_base_path=/nowhere", *flags]) == FAILED
    assert "usage: " in capsys.readouterr().err


BAD_STARTS = {
    "no model": ([], "model_base_path"),
    "no config file": (["--model_config_file=/nowhere/models.config"], "/nowhere/models.config"),
    "no batching file": (["--enable_batching", "--batching_parameters_file=/nowhere"], "/nowhere"),
    "no monitoring file": (["--rest_api_port=1", "--monitoring_config_file=/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_a_bad_start_prints_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags, text = BAD_STARTS[case]
    assert command.main(flags) == FAILED
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Failed to start server. Error: ") and text in line


BAD_CONFIGS = {
    "model_config_list {": "INVALID_ARGUMENT: Invalid protobuf file: '",
    'model_config_list { config { name: "m" base_path: "/a" model_platform: "tensorflow" model_type: TENSORFLOW } }': (
        "INVALID_ARGUMENT: Illegal setting both ModelServerConfig::model_type (deprecated) and "
        "ModelServerConfig::model_platform, model name is m"
    ),
    "no config at all": "INVALID_ARGUMENT: ",
    "\0\1\2": "INVALID_ARGUMENT: ",
    'config { name: "x" }': "INVALID_ARGUMENT: ",
    'model_config_list { config { name: "m" base_path: "a" model_platform: "tensorflow" } }': "an absolute path or URI",
    'model_config_list { config { name: "m" base_path: "/a" model_platform: "tensorflow" '
    'version_labels { key: "stable" value: 1 } } }': "FAILED_PRECONDITION: Request to assign label to version 1 of "
    "model m, which is not currently available for inference",
}


@pytest.mark.parametrize("text", BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_a_bad_config_file_prints_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    assert command.main([f"--model_config_file={path}"]) == FAILED
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Failed to start server.")]
    assert BAD_CONFIGS[text] in line


def test_a_config_file_that_is_no_text_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list {\n  config { title: 'x' }\n}")
    assert command.main([f"--model_config_file={path}"]) == FAILED
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == (
        "Error parsing text-format tensorflow.serving.ModelServerConfig: "
        '2:12 : Message type "tensorflow.serving.ModelConfig" has no field named "title".'
    )


def test_unknown_and_unsupported_flags_are_printed() -> None:
    flags, notes = parse(["--no_such_flag=1", "stray", "--enable_profiler=false", "--enable_batching", "--port=1"])
    assert (flags.enable_batching, flags.port) == (True, 1)
    assert notes[0] == "unknown argument: --no_such_flag=1" and "unknown argument: stray" in notes
    assert any("--enable_profiler has no effect here" in note for note in notes)


def test_every_flag_of_the_real_server_is_known() -> None:
    names = (
        "num_tflite_pools num_tflite_interpreters_per_pool remove_unused_fields_from_bundle_metagraph "
        "skip_initialize_tpu xla_gpu_compilation_enabled"
    )
    _, notes = parse([f"--{name}=1" for name in names.split()])
    assert not [note for note in notes if "unknown argument" in note]
