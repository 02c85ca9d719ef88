"""From the command line to SIGTERM: flags, start-up, versions that come and go, broken ones, warm-up, draining."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2, prediction_log_pb2

from tests.conftest import ROOT
from tests.integration.serving.conftest import Start
from tests.support import saved_models
from tests.support.servers import (
    Server,
    command,
    embedded_only,
    example,
    free_port,
    model_config,
    model_spec,
    refused,
    tensor,
    wait_for,
)

FAILED = 255
FAST_RETRIES = ("--max_num_load_retries=1", "--load_retry_interval_micros=50000")
X = {"x": [1.0]}


def run(folder: Path, *flags: str) -> tuple[int, str]:
    """Exit code and output of a server that is not to start."""
    done = subprocess.run(
        command(f"--port={free_port()}", *flags, folder=folder),
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 60},
        check=False,
    )
    return done.returncode, done.stdout


def error(server: Server, name: str, version: int) -> tuple[str, int, str]:
    """(state, error code, error text) of a version."""
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(name, version=version))
    (found,) = server.model.GetModelStatus(request, timeout=20).model_version_status
    state = get_model_status_pb2.ModelVersionStatus.State.Name(found.state)
    return state, found.status.error_code, found.status.error_message


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


# ---- flags and start-up ----


def test_version() -> None:
    code, output = run(ROOT, "--version")
    assert code == 0 and "TensorFlow Library: 2." in output


def test_an_unknown_flag_is_named_and_passed_over(start: Start, models: Path) -> None:
    server = start(model_config("half", models / "half"), flags=("--no_such_flag=1", "--enable_profiler=false"))
    assert server.predict("half", X)
    assert "--no_such_flag=1" in server.output and "usage" in server.output.lower()


@pytest.mark.parametrize("flag", ["--rest_api_timeout_in_ms=soon", "--enable_model_warmup=perhaps"])
def test_a_bad_flag_value(models: Path, flag: str) -> None:
    code, output = run(models, f"--model_base_path={models / 'half'}", flag)
    assert code == FAILED and "usage" in output.lower()


BAD_STARTS = {
    "no model at all": [],
    "no such config file": ["--model_config_file=/nowhere/models.config"],
    "parallelism set three times": [
        "--model_base_path=/nowhere",
        *(f"--tensorflow_{which}_parallelism=2" for which in ("session", "intra_op", "inter_op")),
    ],
    "batching parameters without batching": ["--model_base_path=/nowhere", "--batching_parameters_file=/nowhere"],
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_a_bad_start(tmp_path: Path, case: str) -> None:
    code, output = run(tmp_path, *BAD_STARTS[case])
    assert code == FAILED and "Traceback" not in output


@pytest.mark.parametrize("text", ["model_config_list {", "no config at all", "\0\1\2", 'config { name: "x" }'])
def test_a_bad_config_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.config").write_text(text)
    code, output = run(tmp_path, f"--model_config_file={tmp_path / 'models.config'}")
    assert code == FAILED
    assert len([line for line in output.splitlines() if line.startswith("Failed to start server. Error: ")]) == 1


def test_labels_in_the_first_config_fail(tmp_path: Path, models: Path) -> None:
    config = model_config("half", models / "half", labels={"stable": 123})
    (tmp_path / "models.config").write_text("model_config_list { " + config + " }")
    code, output = run(tmp_path, f"--model_config_file={tmp_path / 'models.config'}")
    assert code == FAILED
    assert "Request to assign label to version 123 of model half, which is not currently available" in output


@pytest.mark.parametrize("which", ["port", "rest_api_port"])
def test_a_port_in_use(server: Server, models: Path, which: str) -> None:
    """One line that says so; what has the port goes on."""
    taken = server.port if which == "port" else server.rest_port
    ports = [f"--port={taken}"] if which == "port" else [f"--rest_api_port={taken}"]
    code, output = run(models, *ports, "--model_name=half", f"--model_base_path={models / 'half'}")
    assert code == FAILED and "Traceback" not in output
    assert output.count("Failed to start server. Error: ") == 1 and str(taken) in output
    assert server.predict("half", X)


def test_a_first_version_that_does_not_load(tmp_path: Path, base: Path) -> None:
    (base / "7").mkdir()
    flags = ("--model_name=broken", f"--model_base_path={base}", *FAST_RETRIES)
    code, output = run(tmp_path, *flags)
    assert code == FAILED
    assert "1 servable(s) did not become available: {{name: broken version: 7} due to error: NOT_FOUND: " in output
    assert "Could not find SavedModel .pb or .pbtxt at supplied export directory path" in output


def test_an_empty_base_path_keeps_the_port_shut(start: Start, base: Path, models: Path) -> None:
    server = start(flags=("--model_name=late", f"--model_base_path={base}"), wait=False)
    with pytest.raises(AssertionError, match="not so"):
        wait_for(server.is_open, timeout_s=3)
    assert server.process is not None and server.process.poll() is None
    saved_models.copy_version(models / "half" / "00000123", base / "1")
    server.wait_ready()
    assert server.predict("late", X).model_spec.version.value == 1


def test_flags_for_one_model(start: Start, models: Path) -> None:
    """Without --model_name the model is called default; no health service unless asked for; CORS if asked for."""
    server = start(flags=(f"--model_base_path={models / 'half'}", "--rest_api_enable_cors_support"))
    assert server.predict("default", X)
    call = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        call(b"", timeout=20)
    for answer in (server.get("default"), server.get("nix"), server.post("default:predict", b"")):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "POST, GET"
        assert answer.headers["access-control-allow-headers"] == "Content-Type"
    assert server.rest("GET", "/monitoring/prometheus/metrics").code == 404


def test_answers_as_content_and_a_short_rest_timeout(start: Start, models: Path) -> None:
    flags = ("--enable_serialization_as_tensor_content=true", "--rest_api_timeout_in_ms=300")
    server = start(model_config("half", models / "half"), model_config("slow", models / "slow"), flags=flags)
    output = server.predict("half", {"x": [1.0, 2.0]}).outputs["y"]
    assert len(output.tensor_content) == 8 and not output.float_val
    answer = server.post("slow:predict", {"inputs": 2000})
    assert (answer.code, answer.error) == (504, "Timed out waiting for notification")
    with server.connection() as connection:  # a client that never sends its body
        connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")
    assert server.predict("half", X)


# ---- versions that come and go ----


def test_versions_by_folder(start: Start, base: Path, models: Path) -> None:
    """One server, one story: a new version, broken ones, a vanished base path, and at last none at all."""
    source = models / "versioned"
    saved_models.copy_version(source / "1", base / "00000001")
    for name in ("notes", "1.5", "x2", ".3"):
        (base / name).mkdir()
    server = start(model_config("versioned", base), flags=("--file_system_poll_wait_seconds=1", *FAST_RETRIES))
    assert server.answered_by("versioned") == 1

    # A new one takes over while requests go on; then the old one is unloaded.
    failures: list[object] = []
    answered: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answered.append(server.answered_by("versioned"))
            except Exception as e:
                failures.append(e)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        saved_models.copy_version(source / "2", base / "2")
        wait_for(lambda: server.status("versioned") == [(2, "AVAILABLE"), (1, "END")])
        saved_models.copy_version(source / "3", base / "3")
        wait_for(lambda: server.status("versioned")[0] == (3, "AVAILABLE"))
        wait_for(lambda: 3 in answered)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not failures and set(answered) == {1, 2, 3}

    # What is broken never takes over.
    cut = saved_models.copy_version(source / "4", base / "cut") / "saved_model.pb"
    cut.write_bytes(cut.read_bytes()[:100])
    (base / "10").mkdir()
    wait_for(lambda: (10, "END") in server.status("versioned"))
    (base / "cut").rename(base / "11")
    wait_for(lambda: (11, "END") in server.status("versioned"))
    (base / "12").write_text("a file, not a folder")
    wait_for(lambda: (12, "END") in server.status("versioned"))
    assert "Could not find SavedModel .pb or .pbtxt" in error(server, "versioned", 10)[2]
    assert all(error(server, "versioned", number)[1] != 0 for number in (10, 11, 12))
    assert server.answered_by("versioned") == 3
    assert "error_message" in server.get("versioned").text

    # While the base path is gone nothing changes.
    base.rename(base.with_name("away"))
    time.sleep(1.2)  # a poll at least
    assert server.answered_by("versioned") == 3
    base.with_name("away").rename(base)

    # With all versions gone all are unloaded.
    for child in list(base.iterdir()):
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
    wait_for(lambda: (3, "END") in server.status("versioned"))
    with refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(versioned)"):
        server.predict("versioned", X)


def test_a_version_without_its_variables_loads_and_fails(start: Start, base: Path, models: Path) -> None:
    """The trap of production: such a copy takes over, and every request fails."""
    saved_models.copy_version(models / "versioned" / "1", base / "1")
    shutil.copytree(models / "versioned" / "2", base / "writing")
    shutil.rmtree(base / "writing" / "variables")
    server = start(model_config("versioned", base))
    (base / "writing").rename(base / "2")
    wait_for(lambda: server.status("versioned")[0] == (2, "AVAILABLE"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        server.predict("versioned", X)


def test_a_failed_version_may_be_mended_within_its_retries(start: Start, base: Path, models: Path) -> None:
    saved_models.copy_version(models / "versioned" / "1", base / "1")
    flags = ("--max_num_load_retries=100", "--load_retry_interval_micros=100000")
    server = start(model_config("versioned", base), flags=flags)
    (base / "2").mkdir()
    wait_for(lambda: server.status("versioned")[0][0] == 2)
    assert server.answered_by("versioned") == 1
    shutil.copytree(models / "versioned" / "2" / "variables", base / "2" / "variables")
    shutil.copy(models / "versioned" / "2" / "saved_model.pb", base / "2" / "saved_model.new")
    (base / "2" / "saved_model.new").rename(base / "2" / "saved_model.pb")
    wait_for(lambda: server.answered_by("versioned") == 2)


def test_an_old_version_stays_until_its_last_request_is_answered(start: Start, base: Path, models: Path) -> None:
    saved_models.copy_version(models / "slow" / "1", base / "1")
    server = start(model_config("slow", base))
    request = predict_pb2.PredictRequest(model_spec=model_spec("slow"))
    request.inputs["milliseconds"].CopyFrom(tensor(saved_models.milliseconds(1500)))
    call = server.prediction.Predict.future(request, timeout=30)
    saved_models.copy_version(models / "slow" / "1", base / "2")
    wait_for(lambda: (1, "UNLOADING") in server.status("slow"))
    time.sleep(0.3)  # several rounds of the manager
    assert (1, "UNLOADING") in server.status("slow") and not call.done()
    assert call.result().model_spec.version.value == 1
    wait_for(lambda: (1, "END") in server.status("slow"))


# ---- the config file ----


def test_the_config_file_is_followed(start: Start, models: Path) -> None:
    """What is wrong with it is logged and the old one stays; a label waits for its version."""
    half, pair = model_config("half", models / "half"), model_config("pair", models / "pair")
    server = start(half, flags=("--model_config_file_poll_wait_seconds=1",))
    server.configure(half, pair)
    wait_for(lambda: "AVAILABLE" in server.get("pair").text)
    assert server.predict("pair", {"a": [1.0], "b": [1.0]})
    before = len(server.output)
    server.config_file.write_text("model_config_list { what }")
    wait_for(lambda: len(server.output) > before)
    assert server.predict("pair", {"a": [1.0], "b": [1.0]})
    server.configure(half)
    wait_for(lambda: server.status("pair") == [(1, "END")])
    server.configure(model_config("half", models / "half", labels={"stable": 123}))
    wait_for(lambda: server.post("half/labels/stable:predict", {"instances": [1]}).code == 200)


# ---- warm-up ----


def warmup_predict(name: str = "x") -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "half"
    log.predict_log.request.inputs[name].CopyFrom(tensor([1.0]))
    return log


def warmup_examples() -> list[prediction_log_pb2.PredictionLog]:
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


def test_warm_up(start: Start, base: Path, models: Path) -> None:
    """A version is replayed its records before it is available; one that fails any does not load."""
    source = models / "half" / "00000123"

    def add(number: int, *records: prediction_log_pb2.PredictionLog | bytes, content: bytes = b"") -> None:
        folder = Path(shutil.copytree(source, base / "writing"))
        saved_models.write_warmup(folder, *records)
        if content:
            (folder / saved_models.WARMUP_FILE).write_bytes(content)
        folder.rename(base / str(number))

    session_run = prediction_log_pb2.PredictionLog()
    session_run.session_run_log.SetInParent()
    add(1, warmup_predict(), *warmup_examples())
    server = start(model_config("half", base), flags=FAST_RETRIES)
    assert server.predict("half", X).model_spec.version.value == 1
    bad = ([warmup_predict("z")], [b"no PredictionLog"], [session_run], [warmup_predict()] * 1001)
    for number, records in enumerate(bad, 2):
        add(number, *records)
        wait_for(lambda number=number: (number, "END") in server.status("half"))
        assert error(server, "half", number)[1] != 0
    assert error(server, "half", 4)[1] == grpc.StatusCode.UNIMPLEMENTED.value[0]
    add(6, content=b"no TFRecord file at all")
    wait_for(lambda: (6, "END") in server.status("half"))
    assert server.predict("half", X).model_spec.version.value == 1
    add(7, *[warmup_predict()] * 1000)
    wait_for(lambda: server.predict("half", X).model_spec.version.value == 7)


def test_no_warm_up(start: Start, base: Path, models: Path) -> None:
    folder = saved_models.copy_version(models / "half" / "00000123", base / "1")
    saved_models.write_warmup(folder, warmup_predict("z"))
    assert start(model_config("half", base), flags=("--enable_model_warmup=false",)).predict("half", X)


# ---- the end ----


@embedded_only
def test_sigterm_under_load(start: Start, models: Path) -> None:
    """Every request that was accepted is answered, over both transports; then exit code 0."""
    server = start(model_config("half", models / "half"), model_config("slow", models / "slow"))
    request = predict_pb2.PredictRequest(model_spec=model_spec("slow"))
    request.inputs["milliseconds"].CopyFrom(tensor(saved_models.milliseconds(100)))
    calls = [server.prediction.Predict.future(request, timeout=30) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        posts = [pool.submit(server.post, "slow:predict", {"inputs": 100}) for _ in range(5)]
        # As soon as one is answered the others have been accepted: they were sent before it.
        wait_for(lambda: any(call.done() for call in calls) and any(post.done() for post in posts))
        started = time.monotonic()
        server.terminate()
        assert [list(call.result().outputs["slept"].int64_val) for call in calls] == [[100]] * 5
        assert [post.result().json for post in posts] == [{"outputs": 100}] * 5
    assert server.wait() == 0
    assert time.monotonic() - started < 10
    assert "Traceback" not in server.output


@embedded_only
def test_sigterm_waits_no_longer_than_it_may(start: Start, models: Path, tmp_path: Path) -> None:
    """Neither for a request of a minute, nor a reload that waits for a version, nor for a client that crawls."""
    server = start(model_config("slow", models / "slow"))
    request = predict_pb2.PredictRequest(model_spec=model_spec("slow"))
    request.inputs["milliseconds"].CopyFrom(tensor(saved_models.milliseconds(60_000)))
    call = server.prediction.Predict.future(request, timeout=90)
    with server.connection() as connection:
        connection.sendall(b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        server.post("slow:predict", {"inputs": "accepted"})
        started = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - started < 10
    wait_for(call.done)
    assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@embedded_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_waiting_for_a_version(start: Start, base: Path, number: signal.Signals) -> None:
    server = start(flags=(f"--model_base_path={base}",), wait=False)
    assert server.process is not None
    with pytest.raises(AssertionError, match="not so"):
        wait_for(server.is_open, timeout_s=1.5)
    server.process.send_signal(number)
    assert server.wait(10) == 0
