"""Servers in this process that return scripted responses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
import pytest

from serving.protocol import serving_pb2 as pb


class Scripted(NamedTuple):
    """A server that returns its responses in order and repeats the last one."""

    address: str
    requests: list[str]


Start = Callable[..., Scripted]


class _HttpServer(ThreadingHTTPServer):
    allow_reuse_port = True  # see closed_port
    daemon_threads = True


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections and is reserved, so that only a server in this test can start on it."""
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        placeholder.bind(("127.0.0.1", 0))
        yield placeholder.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def scripted_rest() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(*responses: tuple[int, bytes], port: int = 0) -> Scripted:
            requests: list[str] = []

            class Handler(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def do_GET(self) -> None:
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    status, body = responses[min(len(requests), len(responses) - 1)]
                    requests.append(self.path)
                    self.send_response(status)
                    # For the body "cut", Content-Length is too large: the connection ends in the middle of the body.
                    self.send_header("Content-Length", str(len(body) + (9 if body == b"cut" else 0)))
                    self.end_headers()
                    self.wfile.write(body)
                    self.close_connection = True  # unannounced: the client may try to reuse the connection

                do_POST = do_GET

                def log_message(self, format: str, *args: Any) -> None:
                    pass

            server = _HttpServer(("127.0.0.1", port), Handler)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return Scripted(f"http://127.0.0.1:{server.server_port}", requests)

        yield start


@pytest.fixture
def scripted_grpc() -> Iterator[Start]:
    """Returns scripted Predict responses, or fails with scripted codes."""
    with contextlib.ExitStack() as stack:

        def start(*responses: grpc.StatusCode | pb.PredictResponse, port: int = 0) -> Scripted:
            requests: list[str] = []

            def predict(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
                response = responses[min(len(requests), len(responses) - 1)]
                requests.append(request.model_spec.name)
                if isinstance(response, grpc.StatusCode):
                    context.abort(response, "scripted")
                return response

            handler = grpc.unary_unary_rpc_method_handler(
                predict, pb.PredictRequest.FromString, pb.PredictResponse.SerializeToString
            )
            service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
            server = grpc.server(futures.ThreadPoolExecutor(2))
            server.add_generic_rpc_handlers((service,))
            port = server.add_insecure_port(f"127.0.0.1:{port}")
            server.start()
            stack.callback(lambda: server.stop(0).wait())
            return Scripted(f"127.0.0.1:{port}", requests)

        yield start
