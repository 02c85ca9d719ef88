"""A client for the REST API of Kubeflow Pipelines, with time-outs.

kfp.Client has no time-outs: if the server hangs in the middle of a run, the caller hangs too. So kfp.Client only
creates the run; this client watches it with three kinds of GET requests.
"""

from __future__ import annotations

import http.client
import ipaddress
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
# Where Kubernetes mounts a token for KFP in pods that request one.
IN_CLUSTER_TOKEN: Final = Path("/var/run/secrets/kubeflow/pipelines/token")
TOKEN_VARIABLE: Final = "KUBEFLOW_TOKEN"


class UnavailableError(Exception):
    """No response, or HTTP 429 or 5xx; a retry may succeed."""


@dataclass(frozen=True)
class ApiClient:
    """A client for one API server.

    Attributes:
        host: URL of the server, without a slash at the end.
        token_file: file with the bearer token, read for each request because the token is rotated; None to use
            $KUBEFLOW_TOKEN, or no token if that is not set.
    """

    host: str
    token_file: Path | None = None

    def token(self) -> str | None:
        """The bearer token. Raises InputError if the file cannot be read."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        try:
            return self.token_file.read_text().strip()
        except OSError as e:
            raise InputError(
                f"{self.token_file}: cannot be read ({e.strerror})", "Name a file that contains a token."
            ) from e

    def proxy(self) -> str | None:
        """The proxy that the environment names for this server; None if there is none, as always on loopback."""
        url = urllib.parse.urlsplit(self.host)
        name = url.hostname or ""
        if _is_loopback(name) or urllib.request.proxy_bypass(name):
            return None
        return urllib.request.getproxies().get(url.scheme)

    def check(self) -> None:
        """Raises InputError if there is no server, it rejects the token, or it is not Kubeflow Pipelines."""
        try:
            self._get_json("/apis/v2beta1/healthz")
        except UnavailableError as e:
            raise InputError(
                f"{self.host}: no response from Kubeflow Pipelines ({e})",
                "Is the address right, and reachable from here? "
                "For example: kubectl -n kubeflow port-forward svc/ml-pipeline 8888, then --host http://localhost:8888",
            ) from e

    def get_run(self, run_id: str) -> dict[str, Any]:
        """A run with its state and tasks. Raises UnavailableError, InputError."""
        return self._get_json(f"/apis/v2beta1/runs/{urllib.parse.quote(run_id)}")

    def get_log(self, run_id: str, pod: str) -> str:
        """The log of a task's pod. Raises UnavailableError, InputError."""
        path = f"/apis/v1alpha1/runs/{urllib.parse.quote(run_id)}/nodes/{urllib.parse.quote(pod)}/log"
        return self._get(path).decode(errors="replace")

    def error_for(self, status: int, reason: str) -> InputError:
        """The error to show for an HTTP status of the server."""
        if status in (401, 403):
            return InputError(
                f"{self.host}: access denied, HTTP {status} ({reason})",
                f"Name a valid token: --token-file FILE, or {TOKEN_VARIABLE} in the environment.",
            )
        return InputError(f"{self.host}: HTTP {status} ({reason})", "Is this the API server of Kubeflow Pipelines 2?")

    def _get_json(self, path: str) -> dict[str, Any]:
        try:
            content = json.loads(self._get(path))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise InputError(
                f"{self.host}: the response is not from Kubeflow Pipelines", "Check the address: --host URL"
            )
        return content

    def _get(self, path: str) -> bytes:
        token = self.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            request = urllib.request.Request(self.host + path, headers=headers)
            proxy = self.proxy()
            proxies = urllib.request.ProxyHandler({request.type: proxy} if proxy else {})
            with urllib.request.build_opener(proxies).open(request, timeout=REQUEST_TIMEOUT_S) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as e:
            if e.code >= 500 or e.code == 429:
                raise UnavailableError(f"HTTP {e.code}") from e
            raise self.error_for(e.code, e.reason) from e
        except (OSError, ValueError, http.client.HTTPException) as e:  # no server, invalid URL, partial response
            raise UnavailableError(str(getattr(e, "reason", e))) from e


def from_options(host: str | None, namespace: str, token_file: Path | None) -> ApiClient:
    """A client for the server named in the options; in a pod, the default is the cluster's server.

    Raises:
        UsageError: there is no address and this is not a pod, or the address is not an HTTP URL.
    """
    in_cluster = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    if not host and not in_cluster:
        raise UsageError("no server named", "Name one: --host http://localhost:8888 (or KF_PIPELINES_ENDPOINT)")
    if host and not host.startswith(("http://", "https://")):
        raise UsageError(
            f"--host {host}: not an http:// or https:// address", f"Use --host http://{host} or https://{host}"
        )
    if token_file is None and in_cluster and IN_CLUSTER_TOKEN.exists():
        token_file = IN_CLUSTER_TOKEN
    address = host or f"http://ml-pipeline.{namespace or 'kubeflow'}.svc.cluster.local:8888"
    return ApiClient(address.rstrip("/"), token_file)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
