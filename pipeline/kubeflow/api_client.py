"""Questions to the API server of Kubeflow Pipelines, with time limits, answered or explained.

kfp.Client has no time limit for its calls: a server that goes silent in the middle of a run would hold the caller for
ever. Creating a run is left to kfp.Client; watching it is three GETs.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.common.errors import InputError, UsageError

REQUEST_TIMEOUT_S: Final = 10.0
# Where Kubernetes puts a token for the audience of KFP into pods that ask for it.
IN_CLUSTER_TOKEN: Final = Path("/var/run/secrets/kubeflow/pipelines/token")
TOKEN_VARIABLE: Final = "KUBEFLOW_TOKEN"


class Unanswered(Exception):
    """No answer, or one that says "later"; asking again may help."""


@dataclass(frozen=True)
class Server:
    """The API server.

    Attributes:
        host: its address, without a slash at the end.
        token_file: bearer token, read for each request as such files are renewed; None for none, or $KUBEFLOW_TOKEN.
    """

    host: str
    token_file: Path | None = None

    def token(self) -> str | None:
        """Raises InputError if the file cannot be read."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        try:
            return self.token_file.read_text().strip()
        except OSError as e:
            raise InputError(
                f"{self.token_file}: cannot be read ({e.strerror})", "Name a file that holds a token."
            ) from e

    def check(self) -> None:
        """Raises InputError if nobody answers, the token is refused, or it is no server of Kubeflow Pipelines."""
        try:
            self._json("/apis/v2beta1/healthz")
        except Unanswered as e:
            raise InputError(
                f"{self.host}: no answer from Kubeflow Pipelines ({e})",
                "Is the address right, and reachable from here? "
                "For example: kubectl -n kubeflow port-forward svc/ml-pipeline 8888, then --host http://localhost:8888",
            ) from e

    def run(self, run_id: str) -> dict[str, Any]:
        """A run with its state and tasks. Raises Unanswered, InputError."""
        return self._json(f"/apis/v2beta1/runs/{urllib.parse.quote(run_id)}")

    def log(self, run_id: str, pod: str) -> str:
        """What a task's pod has printed. Raises Unanswered, InputError."""
        path = f"/apis/v1alpha1/runs/{urllib.parse.quote(run_id)}/nodes/{urllib.parse.quote(pod)}/log"
        return self._get(path).decode(errors="replace")

    def explain(self, status: int, reason: str) -> InputError:
        """What an HTTP error of the server means to the user."""
        if status in (401, 403):
            return InputError(
                f"{self.host}: refused, HTTP {status} ({reason})",
                f"Name a valid token: --token-file FILE, or {TOKEN_VARIABLE} in the environment.",
            )
        return InputError(f"{self.host}: HTTP {status} ({reason})", "Is this the API server of Kubeflow Pipelines 2?")

    def _json(self, path: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._get(path))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise InputError(
                f"{self.host}: answers, but not as Kubeflow Pipelines does", "Check the address: --host URL"
            )
        return answer

    def _get(self, path: str) -> bytes:
        token = self.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            request = urllib.request.Request(self.host + path, headers=headers)
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as e:
            if e.code >= 500 or e.code == 429:
                raise Unanswered(f"HTTP {e.code}") from e
            raise self.explain(e.code, e.reason) from e
        except (OSError, ValueError, http.client.HTTPException) as e:  # nobody, no such address, half an answer
            raise Unanswered(str(getattr(e, "reason", e))) from e


def find(host: str | None, namespace: str, token_file: Path | None) -> Server:
    """The server that the options name, or the one of this cluster.

    Raises:
        UsageError: no address, and this is no pod.
    """
    in_cluster = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    if not host and not in_cluster:
        raise UsageError("no server named", "Name one: --host http://localhost:8888 (or KF_PIPELINES_ENDPOINT)")
    if host and not host.startswith(("http://", "https://")):
        raise UsageError(
            f"--host {host}: no http:// or https:// address", f"Use --host http://{host} or https://{host}"
        )
    if token_file is None and in_cluster and IN_CLUSTER_TOKEN.exists():
        token_file = IN_CLUSTER_TOKEN
    address = host or f"http://ml-pipeline.{namespace or 'kubeflow'}.svc.cluster.local:8888"
    return Server(address.rstrip("/"), token_file)
