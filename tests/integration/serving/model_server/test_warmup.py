"""Warm-up: a version's records are replayed before it is available; if one fails, the version does not load."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
from tensorflow_serving.apis import prediction_log_pb2

from tests.integration.serving.conftest import Start
from tests.support import saved_models
from tests.support.clients import example, model_spec, tensor
from tests.support.servers import model_config, wait_for

X = {"x": [1.0]}


def predict_record(name: str = "x") -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "half"
    log.predict_log.request.inputs[name].CopyFrom(tensor([1.0]))
    return log


def example_records() -> list[prediction_log_pb2.PredictionLog]:
    logs = [prediction_log_pb2.PredictionLog() for _ in range(3)]
    requests = [logs[0].classify_log.request, logs[1].regress_log.request]
    for request, signature in zip(requests, ("classify", "regress"), strict=True):
        request.model_spec.CopyFrom(model_spec("half", signature=signature))
        request.input.example_list.examples.append(example(x=1.0))
    multiple = logs[2].multi_inference_log.request
    spec = model_spec("half", signature="regress")
    multiple.tasks.add(model_spec=spec, method_name="tensorflow/serving/regress")
    multiple.input.example_list.examples.append(example(x=1.0))
    return logs


def test_warm_up(start: Start, tmp_path: Path, models: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()

    def add(number: int, *records: prediction_log_pb2.PredictionLog | bytes, content: bytes = b"") -> None:
        folder = Path(shutil.copytree(models / "half" / "00000123", base / "writing"))
        saved_models.write_warmup(folder, *records)
        if content:
            (folder / saved_models.WARMUP_FILE).write_bytes(content)
        folder.rename(base / str(number))

    session_run = prediction_log_pb2.PredictionLog()
    session_run.session_run_log.SetInParent()
    add(1, predict_record(), *example_records())
    server = start(model_config("half", base, policy="all {}"), flags=("--max_num_load_retries=0",))
    assert server.predict("half", X).model_spec.version.value == 1
    bad = ([predict_record("z")], [b"no PredictionLog"], [session_run], [predict_record()] * 1001)
    for number, records in enumerate(bad, 2):
        add(number, *records)
    add(6, content=b"no TFRecord file at all")
    wait_for(lambda: [state for _, state in server.status("half")] == ["END"] * 5 + ["AVAILABLE"])
    assert all(server.load_error("half", number)[0] != 0 for number in range(2, 7))
    assert server.load_error("half", 4)[0] == grpc.StatusCode.UNIMPLEMENTED.value[0]
    add(7, *[predict_record()] * 1000)
    wait_for(lambda: server.predict("half", X).model_spec.version.value == 7)


def test_no_warm_up(start: Start, tmp_path: Path, models: Path) -> None:
    folder = saved_models.copy_version(models / "half" / "00000123", tmp_path / "base" / "1")
    saved_models.write_warmup(folder, predict_record("z"))
    server = start(model_config("half", tmp_path / "base"), flags=("--enable_model_warmup=false",))
    assert server.predict("half", X)
