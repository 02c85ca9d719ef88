"""A small API server of Kubeflow Pipelines over real HTTP: the routes that `submit` uses, and faults on request.

Its responses have the format of KFP's v2beta1 API. The states of the run come from a script.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

RUN_ID = "5f3c7e1a-0000-4000-8000-000000000001"


def task(
    node: str, state: str, message: str = "", *, pod: str | None = None, cached: bool = False
) -> list[dict[str, Any]]:
    """A node's steps as the server lists them: its driver, the node, and the pod below it."""
    times = {"start_time": "2026-01-01T10:00:00Z", "end_time": "2026-01-01T10:00:07.5Z"}
    error = {"error": {"code": 13, "message": message}} if message else {}
    inner = "SKIPPED" if cached else state
    return [
        {"task_id": f"{node}-d", "display_name": f"{node}-driver", "state": "SUCCEEDED", **times},
        {
            "task_id": f"{node}-0",
            "display_name": node,
            "state": state,
            "child_tasks": [{"task_id": f"{node}-1", "pod_name": pod or f"pod-{node}"}],
            **times,
            **error,
        },
        {"task_id": f"{node}-1", "display_name": "executor", "state": inner, **times},
    ]


@dataclass
class KfpServer:
    """Returns one entry of `script` for each GET of the run; the last entry is repeated.

    Attributes:
        script: (state of the run, task details) for each poll.
        logs: logs by pod name.
        token: the required bearer token; None if none is required.
        vanish_after: number of polls after which the server closes its socket for good.
        failed_polls: number of initial polls that fail: one with half a body, the others with HTTP 503.
        created: bodies of the requests that created runs.
        polls: number of polls so far.
    """

    script: Sequence[tuple[str, list[dict[str, Any]]]]
    logs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    vanish_after: int | None = None
    failed_polls: int = 0
    created: list[dict[str, Any]] = field(default_factory=list)
    polls: int = 0

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._get(self)

            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.host = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if not self._allowed(request):
            return
        if path == "/apis/v2beta1/healthz":
            self._respond(request, 200, {"multi_user": False, "tag_name": "2.16.0"})
        elif path == "/apis/v2beta1/experiments":
            self._respond(
                request, 200, {"experiments": [{"experiment_id": "e1", "display_name": "Default"}], "total_size": 1}
            )
        elif path == f"/apis/v2beta1/runs/{RUN_ID}":
            self._poll(request)
        elif path.startswith(f"/apis/v1alpha1/runs/{RUN_ID}/nodes/") and path.endswith("/log"):
            log = self.logs.get(path.split("/")[-2])
            self._respond(
                request, 200 if log is not None else 500, log if log is not None else {"error_message": "gone"}
            )
        else:
            self._respond(request, 404, {"error": "Not Found", "code": 5, "message": "Not Found"})

    def _poll(self, request: BaseHTTPRequestHandler) -> None:
        self.polls += 1
        if self.vanish_after is not None and self.polls > self.vanish_after:
            self._http.socket.close()
            request.connection.close()
            return
        if self.polls <= self.failed_polls:
            if self.polls == 1:
                request.send_response(200)
                request.send_header("Content-Length", "1000")
                request.end_headers()
                request.wfile.write(b'{"run_id"')
                request.close_connection = True
            else:
                self._respond(request, 503, "upstream connect error")
            return
        state, details = self.script[min(self.polls - self.failed_polls, len(self.script)) - 1]
        body: dict[str, Any] = {"run_id": RUN_ID, "state": state, "run_details": {"task_details": details}}
        self._respond(request, 200, body)

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        if not self._allowed(request):
            return
        if request.path.startswith("/apis/v2beta1/runs"):
            self.created.append(body)
            self._respond(request, 200, {"run_id": RUN_ID, "state": "PENDING", "display_name": body["display_name"]})
        else:
            self._respond(request, 200, {"experiment_id": "e1", "display_name": "Default"})

    def _allowed(self, request: BaseHTTPRequestHandler) -> bool:
        if self.token is None or request.headers.get("Authorization") == f"Bearer {self.token}":
            return True
        self._respond(request, 401, {"error": "Unauthenticated", "code": 16, "message": "Unauthenticated"})
        return False

    def _respond(self, request: BaseHTTPRequestHandler, code: int, body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request.send_response(code)
        request.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
