"""Start a run of a compiled package on Kubeflow Pipelines, and wait for its end."""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from components.common.errors import InputError
from components.common.home import Home
from pipeline.kubeflow import package, watch
from pipeline.kubeflow.api_client import ApiClient
from pipeline.kubeflow.compile import require_kfp
from pipeline.run import Result, save


@dataclass(frozen=True)
class RunRequest:
    """The package to run, and the options of the run.

    Attributes:
        package: file written by `compile`.
        overrides: values of runtime parameters, "train.steps=500".
        namespace: namespace of the run, for multi-user servers; "" for the server's default.
        experiment: group of runs in KFP; created if it does not exist.
        pipeline_root: URI below which artifacts are stored; "" for the server's default.
    """

    package: Path
    overrides: Sequence[str] = ()
    namespace: str = ""
    experiment: str = "Default"
    pipeline_root: str = ""


def submit(client: ApiClient, request: RunRequest) -> tuple[str, package.Package]:
    """Start a run; returns its id and the package.

    Raises:
        UsageError: an override is not a parameter of the package, or its value has the wrong type.
        InputError: the package or kfp is missing, the server is unavailable, or it rejects the run.
    """
    compiled = package.read(request.package)
    arguments = compiled.arguments(request.overrides)
    require_kfp()
    client.check()
    run = _create_run(client, request, compiled.name, arguments)
    return str(run.run_id), compiled


def wait(
    client: ApiClient, run_id: str, nodes: Sequence[str], home: Home, stream: TextIO, timeout_s: float, poll_s: float
) -> Result:
    """Show the run until it ends, and write its logs and result to the home, where `status` finds them.

    Raises:
        NotFinishedError: the run has not ended after `timeout_s`.
        InputError: the server is unavailable, or the home is not writable.
    """
    started = time.monotonic()
    run, progress = watch.wait_until_finished(client, run_id, nodes, stream, timeout_s=timeout_s, poll_s=poll_s)
    logs = home.logs(run_id)
    try:
        result = watch.result_of(client, run, progress, logs, time.monotonic() - started)
        save(result, logs)
    except OSError as e:
        raise InputError(f"{logs}: cannot be written ({e.strerror})", "Name another home: --home DIR") from e
    for line in result.drift:
        print(f"drift: {line}", file=stream)
    return result


def _create_run(client: ApiClient, request: RunRequest, name: str, arguments: dict[str, Any]) -> Any:
    import kfp
    import kfp_server_api
    import urllib3

    try:
        # kfp prints links to stdout, which is reserved for our result, and warns about server versions.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            kfp_client = kfp.Client(
                host=client.host,
                namespace=request.namespace or "kubeflow",
                existing_token=client.token(),
                proxy=client.proxy(),  # kfp does not read the environment's
            )
            return kfp_client.create_run_from_pipeline_package(
                str(request.package),
                arguments=arguments,
                run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                experiment_name=request.experiment,
                namespace=request.namespace or None,
                pipeline_root=request.pipeline_root or None,
            )
    except kfp_server_api.ApiException as e:
        raise client.error_for(e.status, _reason(e)) from e
    except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as e:
        raise InputError(f"{client.host}: no response to the request to start the run ({e})", "Try again.") from e


def _reason(error: Any) -> str:
    """The server's message in an ApiException."""
    try:
        body = json.loads(error.body)
        return str(body.get("error") or body.get("message") or error.reason).splitlines()[0][:300]
    except (ValueError, TypeError, AttributeError, IndexError):
        return str(error.reason)
