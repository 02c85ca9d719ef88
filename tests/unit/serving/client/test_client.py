"""The client against the embedded server on a tiny model, and against servers that misbehave."""

from __future__ import annotations

import json
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from components.common.errors import InputError, UsageError
from serving.client import connect
from serving.client import errors as errors
from serving.client.base import Client, VersionStatus
from serving.client.query import query
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.conftest import ROOT
from tests.support.synthetic import write_data_set

READY_TIMEOUT_S = 60
SIZE = 8
VERSION = 7


class Server(NamedTuple):
    grpc: str
    rest: str


def free_port() -> int:
    """Below the range that outgoing connections take their ports from, so that none of them gets it meanwhile."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def save_model(folder: Path) -> None:
    """`serving_default` reads the bar of tests/support/synthetic.py; `echo` returns what it is given."""
    import tensorflow as tf

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.reduce_sum(tf.cast(images, tf.float32), axis=2) / 255.0
        return {"probabilities": tf.nn.softmax(rows), "classes": tf.argmax(rows, axis=1)}

    def echo(f: tf.Tensor, i: tf.Tensor, b: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"f": f, "i": i, "b": b, "text": text, "text_bytes": text, "row": tf.reshape(f, [1, -1])}

    module = tf.Module()
    module.classify = tf.function(classify, [tf.TensorSpec([None, SIZE, SIZE], tf.uint8, "images")])
    module.echo = tf.function(
        echo,
        [
            tf.TensorSpec(None, tf.float32, "f"),
            tf.TensorSpec([], tf.int64, "i"),
            tf.TensorSpec([None, None], tf.bool, "b"),
            tf.TensorSpec([None, None], tf.string, "text"),
        ],
    )
    signatures = {
        "serving_default": module.classify.get_concrete_function(),
        "echo": module.echo.get_concrete_function(),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    save_model(folder / "mnist" / str(VERSION))
    ports = free_port(), free_port()
    log = folder / "log"
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--model_name=mnist"]
    command = [sys.executable, "-m", "serving.model_server", *flags, f"--model_base_path={folder / 'mnist'}"]
    with open(log, "wb") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            addresses = Server(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
            for address in addresses:
                while True:
                    try:
                        with connect(address) as client:
                            client.status("mnist")
                        break
                    except errors.ServingClientError as e:
                        starting = type(e) is errors.Unavailable and process.poll() is None
                        assert starting and time.monotonic() < deadline, f"{e}\n{log.read_text()}"
            yield addresses
        finally:
            process.terminate()


@pytest.fixture(params=["grpc", "rest"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    with connect(getattr(server, request.param)) as client:
        yield client


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE)).astype(np.uint8)


def echo_inputs() -> dict[str, Any]:
    return {
        "f": np.array([[0.1, np.inf, -np.inf], [1e-42, 3.4e38, -0.0]], np.float32),
        "i": np.int64(-(2**63)),
        "b": np.array([[True, False]]),
        "text": np.array([["ä", b"plain"], ["", "\n\x00"]], np.object_),
    }


# ---- answers ----


def test_a_prediction_has_the_models_dtypes_shapes_and_version(client: Client) -> None:
    outputs, version = client.predict({"images": images()}, model="mnist")
    assert version == VERSION
    assert {name: (a.dtype, a.shape) for name, a in outputs.items()} == {
        "probabilities": (np.float32, (3, SIZE)),
        "classes": (np.int64, (3,)),
    }
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-6)


def test_both_transports_answer_the_same_bits(server: Server) -> None:
    with connect(server.grpc) as one, connect(server.rest) as other:
        for inputs, signature in (({"images": images(20)}, ""), (echo_inputs(), "echo")):
            ours, theirs = (c.predict(inputs, model="mnist", signature=signature).outputs for c in (one, other))
            assert ours.keys() == theirs.keys()
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name], strict=True)


def test_all_kinds_of_values_come_back_as_they_went(client: Client) -> None:
    inputs = echo_inputs()
    outputs = client.predict(inputs, model="mnist", signature="echo").outputs
    for name in ("f", "i", "b"):
        np.testing.assert_array_equal(outputs[name], np.asarray(inputs[name]), strict=True)
    assert np.signbit(outputs["f"][1, 2])
    text = [["ä".encode(), b"plain"], [b"", b"\n\x00"]]
    assert outputs["text"].tolist() == text and outputs["text_bytes"].tolist() == text


def test_bytes_that_are_no_text_pass(server: Server) -> None:
    # Over REST only outputs whose name ends in _bytes can hold them, and the echo has another one.
    inputs = echo_inputs() | {"text": np.array([[b"\x89PNG\xff\x00"]], np.object_)}
    with connect(server.grpc) as client:
        outputs = client.predict(inputs, model="mnist", signature="echo").outputs
    assert outputs["text_bytes"].tolist() == [[b"\x89PNG\xff\x00"]]


def test_an_empty_batch_keeps_its_inner_axes(server: Server) -> None:
    with connect(server.grpc) as client:
        outputs = client.predict({"images": images(0)}, model="mnist").outputs
        assert outputs["probabilities"].shape == (0, SIZE)


def test_answers_over_4_mb_arrive(client: Client) -> None:
    count = 1_500_000 if "http" not in client.address else 300_000  # 6 MB in either encoding, there and back
    inputs = echo_inputs() | {"f": np.linspace(0, 1, count, dtype=np.float32)}
    outputs = client.predict(inputs, model="mnist", signature="echo").outputs
    np.testing.assert_array_equal(outputs["f"], inputs["f"])
    assert outputs["row"].shape == (1, count)


def test_status_and_metadata(client: Client) -> None:
    assert client.status("mnist") == [VersionStatus(VERSION, "AVAILABLE", "OK", "")]
    assert client.status("mnist", VERSION) == client.status("mnist")
    metadata = client.metadata("mnist")
    assert metadata.version == VERSION and client.metadata("mnist", VERSION) == metadata
    assert {"serving_default", "echo"} <= metadata.signatures.keys()
    info = metadata.signatures["serving_default"].inputs["images"]
    assert info.dtype == pb.DT_UINT8 and [dim.size for dim in info.tensor_shape.dim] == [-1, SIZE, SIZE]
    assert metadata.signatures["echo"].inputs["f"].tensor_shape.unknown_rank


def test_threads_may_share_a_client(client: Client) -> None:
    def ask(value: int) -> bool:
        inputs = echo_inputs() | {"i": np.int64(value)}
        return int(client.predict(inputs, model="mnist", signature="echo").outputs["i"]) == value

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


# ---- errors of the server ----


@pytest.mark.parametrize(
    ("inputs", "options", "over_grpc", "over_rest", "text"),
    [
        ({}, {"model": "x"}, errors.NotFound, errors.NotFound, r"Servable not found for request: Latest\(x\)"),
        ({}, {"version": 9}, errors.NotFound, errors.NotFound, r"Specific\(mnist, 9\)"),
        ({}, {"label": "q"}, errors.InvalidArgument, errors.InvalidArgument, "Unrecognized servable version label: q"),
        (
            {},
            {"signature": "q"},
            errors.FailedPrecondition,
            errors.InvalidArgument,
            'Serving signature.*"q".*not found',
        ),
        ({}, {"model": "a/b c:d"}, errors.NotFound, errors.NotFound, "a/b c:d"),
        ({"images": None}, {}, errors.InvalidArgument, errors.InvalidArgument, "images"),
        ({"images": [0.5]}, {}, errors.InvalidArgument, errors.InvalidArgument, "uint8"),
        ({"images": [[1], [1, 2]]}, {}, errors.InvalidArgument, errors.InvalidArgument, "images cannot be sent"),
        (
            {"images": np.array([1], "M8[D]")},
            {},
            *(errors.InvalidArgument, errors.InvalidArgument),
            r"images cannot be sent: dtype datetime64\[D\]",
        ),
    ],
)
def test_the_servers_refusals_are_typed_and_keep_its_words(
    client: Client,
    inputs: dict[str, Any],
    options: dict[str, Any],
    over_grpc: type[errors.ServingClientError],
    over_rest: type[errors.ServingClientError],
    text: str,
) -> None:
    expected = over_rest if "http" in client.address else over_grpc
    asked = {name: value for name, value in ({"images": images()} | inputs).items() if value is not None}
    with pytest.raises(errors.ServingClientError, match=text) as caught:
        client.predict(asked, **({"model": "mnist"} | options))
    assert type(caught.value) is expected
    assert caught.value.address == client.address
    assert errors._ERRORS[caught.value.code] is expected
    assert caught.value.text in str(caught.value)


def test_status_of_what_is_not_served(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="Could not find any versions of model x"):
        client.status("x")
    with pytest.raises(errors.NotFound, match="Could not find version 9 of model mnist"):
        client.status("mnist", 9)


def test_version_and_label_exclude_each_other(client: Client) -> None:
    with pytest.raises(UsageError, match="both version 1 and label 'a'"):
        client.predict({}, model="mnist", version=1, label="a")


def test_an_error_survives_pickling_and_names_its_exit_code() -> None:
    error = errors.error("a:1", "NOT_FOUND", "gone")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.NotFound and str(again) == str(error) and again.code == "NOT_FOUND"
    codes = ("INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS")
    assert [errors.error("", code, "").exit_code for code in codes] == [2, 5, 5, 1, 1]


@pytest.mark.parametrize("address", ["http://", "http://h:x", "http://h:1/path"])
def test_addresses_that_cannot_be_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="Expected http://host:port"):
        connect(address)


# ---- servers that are slow, gone or foreign ----


@pytest.fixture(params=["", "http://"])
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"{request.param}127.0.0.1:{listener.getsockname()[1]}"


def test_the_deadline_ends_a_call(silent: str) -> None:
    with connect(silent, timeout_s=30) as client:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            client.predict({"images": images()}, model="mnist", timeout_s=0.5)
        assert 0.4 < time.monotonic() - started < 2
        with pytest.raises(errors.DeadlineExceeded):
            client.status("mnist", timeout_s=0)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_nobody_there_is_unavailable_after_the_attempts(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with connect(address) as client:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable, match="make serve") as caught:
            client.status("mnist")
        assert 0.3 < time.monotonic() - started < 3  # three pauses of at least 50, 100 and 200 ms
        assert caught.value.address == address


def test_the_transports_do_not_understand_each_others_ports(server: Server) -> None:
    for address in (f"http://{server.grpc}", server.rest.removeprefix("http://")):
        with connect(address, attempts=1) as client, pytest.raises(errors.Unavailable):
            client.status("mnist")


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_server_that_starts_late_is_found(scheme: str, server: Server) -> None:
    port = free_port()
    target = int((server.rest if scheme else server.grpc).rpartition(":")[2])
    stop = threading.Event()

    def forward(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def listen_later() -> None:
        time.sleep(0.15)
        with socket.create_server(("127.0.0.1", port)) as listener:
            near, _ = listener.accept()
            with near, socket.create_connection(("127.0.0.1", target)) as far:
                threading.Thread(target=forward, args=(near, far), daemon=True).start()
                threading.Thread(target=forward, args=(far, near), daemon=True).start()
                stop.wait()

    thread = threading.Thread(target=listen_later)
    thread.start()
    try:
        with connect(f"{scheme}127.0.0.1:{port}", attempts=8) as client:
            assert client.status("mnist")[0].version == VERSION
    finally:
        stop.set()
        thread.join()


class Scripted(NamedTuple):
    """A server that answers what it is told, and how often it was asked."""

    address: str
    asked: list[str]


@pytest.fixture
def scripted_rest() -> Iterator[Callable[..., Scripted]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, bytes]) -> Scripted:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = answers[min(len(asked), len(answers) - 1)]
                asked.append(self.path)
                self.send_response(status)
                # A body that is announced longer than it is: the connection breaks in the middle.
                self.send_header("Content-Length", str(len(body) + (9 if body == b"cut" else 0)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True  # without saying so: the client may think it can go on

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return Scripted(f"http://127.0.0.1:{servers[-1].server_port}", asked)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


STATUS = (
    b'{"model_version_status":[{"version":"3","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}'
)
BUSY = 503, b'{"error": "The batch scheduling queue is full"}'


def metadata_body(version: int) -> bytes:
    info = {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1"}]}, "name": "y:0", "not_known_here": {}}
    signatures = {"serving_default": {"inputs": {}, "outputs": {"y": info}, "method_name": ""}}
    spec = {"name": "mnist", "signature_name": "", "version": str(version)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}).encode()


def test_rest_repeats_what_was_unavailable_and_only_that(scripted_rest: Callable[..., Scripted]) -> None:
    for first in (BUSY, (502, b"<html>bad gateway"), (200, b"cut")):
        scripted = scripted_rest(first, first, (200, STATUS))
        with connect(scripted.address) as client:
            assert client.status("mnist") == [VersionStatus(3, "AVAILABLE", "OK", "")]
        assert len(scripted.asked) == 3
    scripted = scripted_rest((500, b'{"error": "broken"}'))
    with connect(scripted.address) as client, pytest.raises(errors.Internal, match="broken"):
        client.status("mnist")
    assert len(scripted.asked) == 1


def test_rest_gives_up_after_its_attempts(scripted_rest: Callable[..., Scripted]) -> None:
    scripted = scripted_rest(BUSY)
    with connect(scripted.address, attempts=3) as client, pytest.raises(errors.Unavailable, match="queue is full"):
        client.status("mnist")
    assert len(scripted.asked) == 3


def test_rest_survives_idle_connections_that_the_server_closed(scripted_rest: Callable[..., Scripted]) -> None:
    scripted = scripted_rest((200, STATUS))
    with connect(scripted.address, attempts=1) as client:
        for _ in range(5):
            client.status("mnist")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"{}", b'{"model_version_status": [{}]}', b"\xff"])
def test_rest_answers_that_are_none_are_told(scripted_rest: Callable[..., Scripted], body: bytes) -> None:
    with connect(scripted_rest((200, body)).address) as client, pytest.raises(errors.Internal):
        client.status("mnist")


def test_rest_finds_the_successor_of_a_version_that_is_replaced_meanwhile(
    scripted_rest: Callable[..., Scripted],
) -> None:
    gone = 404, b'{"error": "Servable not found for request: Specific(mnist, 3)"}'
    script = [(200, metadata_body(3)), gone, (200, metadata_body(4)), (200, b'{"outputs": [5, 6]}')]
    scripted = scripted_rest(*script)
    with connect(scripted.address) as client:
        outputs, version = client.predict({}, model="mnist")
    assert version == 4 and outputs["y"].tolist() == [5, 6]
    assert scripted.asked[1::2] == ["/v1/models/mnist/versions/3:predict", "/v1/models/mnist/versions/4:predict"]


def test_rest_answers_that_contradict_the_metadata_are_told(scripted_rest: Callable[..., Scripted]) -> None:
    for outputs in (
        b'{"outputs": ["a"]}',
        b'{"outputs": [[1], [1, 2]]}',
        b'{"predictions": 1}',
        b'{"outputs": [1e400]}',
    ):
        scripted = scripted_rest((200, metadata_body(3)), (200, outputs))
        with connect(scripted.address) as client, pytest.raises(errors.Internal, match="cannot be read"):
            client.predict({}, model="mnist")


@pytest.fixture
def scripted_grpc() -> Iterator[Callable[..., Scripted]]:
    servers: list[grpc.Server] = []

    def start(*answers: grpc.StatusCode | pb.PredictResponse) -> Scripted:
        asked: list[str] = []

        def predict(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(request.model_spec.name)
            if isinstance(answer, grpc.StatusCode):
                context.abort(answer, "as told")
            return answer

        handler = grpc.unary_unary_rpc_method_handler(
            predict, pb.PredictRequest.FromString, pb.PredictResponse.SerializeToString
        )
        service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Scripted(f"127.0.0.1:{port}", asked)

    yield start
    for server in servers:
        server.stop(0).wait()


def test_grpc_repeats_what_was_unavailable_and_only_that(scripted_grpc: Callable[..., Scripted]) -> None:
    answer = pb.PredictResponse(outputs={"y": to_proto([1.5])})
    scripted = scripted_grpc(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, answer)
    with connect(scripted.address) as client:
        assert client.predict({}, model="m").outputs["y"].tolist() == [1.5]
    assert scripted.asked == ["m"] * 3
    for code in grpc.StatusCode:
        if code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE):
            continue
        scripted = scripted_grpc(code)
        with connect(scripted.address) as client, pytest.raises(errors.ServingClientError, match="as told") as caught:
            client.predict({}, model="m")
        assert caught.value.code == code.name and len(scripted.asked) == 1


def test_grpc_gives_up_after_its_attempts_or_at_its_deadline(scripted_grpc: Callable[..., Scripted]) -> None:
    scripted = scripted_grpc(grpc.StatusCode.UNAVAILABLE)
    with connect(scripted.address, attempts=2) as client, pytest.raises(errors.Unavailable):
        client.predict({}, model="m")
    assert len(scripted.asked) == 2
    started = time.monotonic()
    with connect(scripted.address, attempts=1000, timeout_s=0.6) as client, pytest.raises(errors.Unavailable):
        client.predict({}, model="m")
    assert time.monotonic() - started < 1.5


def test_grpc_answers_that_contradict_themselves_are_told(scripted_grpc: Callable[..., Scripted]) -> None:
    wrong = pb.TensorProto(dtype=pb.DT_FLOAT, tensor_content=b"123")
    scripted = scripted_grpc(pb.PredictResponse(outputs={"y": wrong}))
    with connect(scripted.address) as client, pytest.raises(errors.Internal, match="cannot be read"):
        client.predict({}, model="m")


# ---- query ----


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_data_set(folder / "data" / "mnist", train=20, test=40, size=SIZE)
    return folder


def test_query_answers_as_one_json_object(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    addresses = {"grpc_address": server.grpc, "rest_address": server.rest}
    assert query(indices=[3, 5], home=home, as_json=True, **addresses) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert (answer["version"], answer["asked"], answer["labelled"]) == (VERSION, 2, 2)
    assert answer["identical"] is True and answer["same_classes"] is True and answer["max_difference"] == 0
    assert [digit["index"] for digit in answer["digits"]] == [3, 5]
    for digit in answer["digits"]:
        assert digit["grpc"] == digit["rest"]
        assert np.argmax(digit["grpc"]["probabilities"]) == digit["grpc"]["class"]


def test_query_draws_test_digits_and_files(
    server: Server, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    assert query(home=home, count=2, seed=1, grpc_address=server.grpc) == 0
    shown = capsys.readouterr().out
    assert shown.count("test image") == 2 and "█" in shown and "%" in shown and "REST" not in shown
    pixels = np.full((30, 40), 255, np.uint8)
    pixels[4:7] = 0
    path = tmp_path / "drawn.png"
    Image.fromarray(pixels).save(path)
    assert query([path], home=home, grpc_address=server.grpc, version=VERSION) == 0
    assert "--invert" in capsys.readouterr().out
    assert query([path], [2], home=home, grpc_address=server.grpc, invert=True, as_json=True) == 0
    file, test = json.loads(capsys.readouterr().out)["digits"]
    assert file["grpc"]["class"] == 1 and file["label"] is None and test["index"] == 2


def test_query_of_many_draws_only_the_misread(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert query(home=home, count=40, grpc_address=server.grpc) == 0
    shown = capsys.readouterr().out
    right = int(shown.rsplit("gRPC: ", 1)[1].split(" of 40 right")[0])
    assert shown.count("test image") == 40 - right


def test_query_refusals(server: Server, home: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound):
        query(home=home, grpc_address=server.grpc, version=9)
    with pytest.raises(errors.InvalidArgument):
        query(home=home, grpc_address=server.grpc, label="none")
    with pytest.raises(UsageError):
        query(home=home, grpc_address=server.grpc, version=VERSION, label="none")
    with pytest.raises(InputError, match="no such file"):
        query([tmp_path / "x.png"], home=home, grpc_address=server.grpc)
    with pytest.raises(InputError, match="no such folder"):
        query(home=tmp_path, grpc_address=server.grpc)
    with pytest.raises(errors.Unavailable):
        query(home=home, grpc_address=f"127.0.0.1:{free_port()}")


def test_query_needs_no_tensorflow(server: Server, home: Path) -> None:
    script = (
        "import sys, pathlib; from serving.client.query import query; "
        f"code = query(home=pathlib.Path({str(home)!r}), grpc_address={server.grpc!r}, rest_address={server.rest!r}); "
        "heavy = {'tensorflow', 'tensorflow_serving', 'tfx', 'keras', 'PIL'} & set(sys.modules); "
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout
