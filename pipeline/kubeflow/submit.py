"""Hand a compiled package to Kubeflow Pipelines."""

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
from pipeline.kubeflow.api_client import Server
from pipeline.kubeflow.compile import require_kfp
from pipeline.run import RESULT_FILE, Result


@dataclass(frozen=True)
class Order:
    """What to run and how.

    Attributes:
        package: file written by `compile`.
        overrides: "train.steps=500", values of runtime parameters.
        namespace: of the run, for servers with several users; "" for the server's own.
        experiment: group of runs in KFP; made if it is not there.
        pipeline_root: address below which artifacts are kept; "" for the server's own.
    """

    package: Path
    overrides: Sequence[str] = ()
    namespace: str = ""
    experiment: str = "Default"
    pipeline_root: str = ""


def submit(server: Server, order: Order) -> tuple[str, package.Package]:
    """Start a run; returns its id and the package.

    Raises:
        UsageError: an override that the package does not know.
        InputError: no package, no kfp, no server, or it refuses.
    """
    compiled = package.read(order.package)
    arguments = compiled.arguments(order.overrides)
    require_kfp()
    server.check()
    run = _create(server, order, compiled.name, arguments)
    return str(run.run_id), compiled


def wait(
    server: Server, run_id: str, nodes: Sequence[str], home: Home, stream: TextIO, timeout_s: float, poll_s: float
) -> Result:
    """Show the run until it ends; logs and result are then in the home, where `status` finds them."""
    started = time.monotonic()
    run, progress = watch.follow(server, run_id, nodes, stream, timeout_s=timeout_s, poll_s=poll_s)
    logs = home.logs(run_id)
    try:
        result = watch.conclude(server, run, progress, logs, time.monotonic() - started)
        (logs / RESULT_FILE).write_text(result.to_json() + "\n")
    except OSError as e:
        raise InputError(f"{logs}: cannot be written ({e.strerror})", "Name another home: --home DIR") from e
    return result


def _create(server: Server, order: Order, name: str, arguments: dict[str, Any]) -> Any:
    import kfp
    import kfp_server_api
    import urllib3

    try:
        # kfp prints links and warns about versions of the server; stdout is ours.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            client = kfp.Client(
                host=server.host, namespace=order.namespace or "kubeflow", existing_token=server.token()
            )
            return client.create_run_from_pipeline_package(
                str(order.package),
                arguments=arguments,
                run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                experiment_name=order.experiment,
                namespace=order.namespace or None,
                pipeline_root=order.pipeline_root or None,
            )
    except kfp_server_api.ApiException as e:
        raise server.explain(e.status, _reason(e)) from e
    except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as e:
        raise InputError(f"{server.host}: no answer when the run was to start ({e})", "Try again.") from e


def _reason(error: Any) -> str:
    """The server's own sentence in an ApiException."""
    try:
        body = json.loads(error.body)
        return str(body.get("error") or body.get("message") or error.reason).splitlines()[0][:300]
    except (ValueError, TypeError, AttributeError, IndexError):
        return str(error.reason)
