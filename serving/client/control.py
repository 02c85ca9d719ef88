"""Tells a running server to load versions and move labels, and verifies the result."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Final

from google.protobuf import text_format

from components.common import contract
from components.common.commands import command
from components.common.errors import InputError
from serving.client.base import VersionStatus
from serving.client.errors import from_code
from serving.client.grpc import CODE_NAMES, MODEL_SERVICE, GrpcClient
from serving.protocol import serving_pb2 as pb

STATUS_TIMEOUT_S: Final = 5.0
RELOAD_TIMEOUT_S: Final = 30.0  # short: a reload waits only for new models, and here there are none
LOAD_TIMEOUT_S: Final = 120.0
UNLOAD_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02
STALE_S: Final = 3.0  # a server polls its folder once a second; until it does, it may report an earlier attempt


class Control(GrpcClient):
    """gRPC client of the ModelService of a server on loopback."""

    def __init__(self, grpc_port: int) -> None:
        super().__init__(f"127.0.0.1:{grpc_port}", timeout_s=STATUS_TIMEOUT_S)
        self._call_reload = self._method(
            f"{MODEL_SERVICE}/HandleReloadConfigRequest", pb.ReloadConfigRequest, pb.ReloadConfigResponse
        )

    def reload(self, model_config: str) -> None:
        """Replace the server's ModelServerConfig (text format). Raises ServingClientError."""
        request = pb.ReloadConfigRequest()
        text_format.Parse(model_config, request.config)
        response = self._call(self._call_reload, request, RELOAD_TIMEOUT_S)
        if code := response.status.error_code:
            raise from_code(self.address, CODE_NAMES.get(code, "UNKNOWN"), response.status.error_message)

    def versions(self) -> dict[int, VersionStatus]:
        """Return the status of each version. Raises ServingClientError."""
        return {status.version: status for status in self.status(contract.MODEL_NAME)}

    def available(self) -> set[int]:
        """Return the versions that are AVAILABLE. Raises ServingClientError."""
        return {number for number, status in self.versions().items() if status.state == "AVAILABLE"}

    def wait_available(self, wanted: Collection[int], stale: Mapping[int, VersionStatus]) -> None:
        """Wait until versions are loaded and warmed up.

        Args:
            stale: states before the server was asked to load them; an error in these is from an earlier attempt.

        Raises:
            InputError: a version does not load (with the server's message), or not within LOAD_TIMEOUT_S.
            ServingClientError: the server does not respond.
        """
        started = time.monotonic()
        while True:
            found, waited_s = self.versions(), time.monotonic() - started
            missing = [number for number in wanted if number not in found or found[number].state != "AVAILABLE"]
            if not missing:
                return
            for status in (found[number] for number in missing if number in found):
                fresh = waited_s > STALE_S or status != stale.get(status.version)
                if status.error_code != "OK" and fresh:
                    raise InputError(
                        f"version {status.version} does not load: {status.error_code}: {status.error_message}",
                        "The previous versions are still being served.",
                    )
            if waited_s > LOAD_TIMEOUT_S:
                raise InputError(f"version {missing[0]} did not load within {LOAD_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def wait_highest(self, version: int | None) -> None:
        """Wait until no higher version is AVAILABLE: requests without a label get the highest. Raises InputError."""
        deadline = time.monotonic() + UNLOAD_TIMEOUT_S
        while (highest := max(self.available(), default=None)) != version:
            if time.monotonic() > deadline:
                raise InputError(
                    f"requests without a label still get version {highest}, not {version}, "
                    f"after {UNLOAD_TIMEOUT_S:.0f} s",
                    "The labels have moved. Run the command again to finish, or restart the server: "
                    f"{command('serving', 'down')} && {command('serving', 'up')}",
                )
            time.sleep(POLL_S)

    def check_labels(self, labels: Mapping[str, int]) -> None:
        """Send a request to each label. Raises InputError if another version responds, ServingClientError if none."""
        for label, expected in labels.items():
            found = self.metadata(contract.MODEL_NAME, label=label).version
            if found != expected:
                raise InputError(f"label {label} points to version {found}, not {expected}")
