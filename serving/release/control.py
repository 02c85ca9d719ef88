"""Telling a running server what to load, and seeing that it does."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Final

from google.protobuf import text_format

from components.common import contract
from components.common.errors import InputError
from serving.client.base import VersionStatus
from serving.client.errors import error
from serving.client.grpc import CODE_NAMES, MODEL_SERVICE, GrpcClient
from serving.protocol import serving_pb2 as pb

STATUS_TIMEOUT_S: Final = 5.0
RELOAD_TIMEOUT_S: Final = 30.0  # a reload waits for models that are new, and there are none
LOAD_TIMEOUT_S: Final = 120.0
UNLOAD_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02
STALE_S: Final = 3.0  # a server looks at its folder once a second: until then the state is that of an earlier attempt


class Control(GrpcClient):
    """ModelService of a server on loopback, over gRPC."""

    def __init__(self, grpc_port: int) -> None:
        super().__init__(f"127.0.0.1:{grpc_port}", timeout_s=STATUS_TIMEOUT_S)
        self._call_reload = self._method(
            f"{MODEL_SERVICE}/HandleReloadConfigRequest", pb.ReloadConfigRequest, pb.ReloadConfigResponse
        )

    def reload(self, model_config: str) -> None:
        """Have the server take a whole ModelServerConfig (text format). Raises ServingClientError."""
        request = pb.ReloadConfigRequest()
        text_format.Parse(model_config, request.config)
        response = self._asked(self._call_reload, request, RELOAD_TIMEOUT_S)
        if code := response.status.error_code:
            raise error(self.address, CODE_NAMES.get(code, "UNKNOWN"), response.status.error_message)

    def versions(self) -> dict[int, VersionStatus]:
        """What the server says of each version. Raises ServingClientError."""
        return {status.version: status for status in self.status(contract.MODEL_NAME)}

    def available(self) -> set[int]:
        """Versions that answer requests. Raises ServingClientError."""
        return {number for number, status in self.versions().items() if status.state == "AVAILABLE"}

    def wait_available(self, wanted: Collection[int], stale: Mapping[int, VersionStatus]) -> None:
        """Wait until versions are loaded and warmed up.

        Args:
            stale: states before the server was told to load them: an error among these is not yet this attempt's.

        Raises:
            InputError: one does not load (in the server's words), or not within LOAD_TIMEOUT_S.
            ServingClientError: the server does not answer.
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
                        "What was served before is served still.",
                    )
            if waited_s > LOAD_TIMEOUT_S:
                raise InputError(f"version {missing[0]} did not load within {LOAD_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def wait_highest(self, version: int | None) -> None:
        """Wait until no higher version answers, as requests without a label get the highest. Raises InputError."""
        deadline = time.monotonic() + UNLOAD_TIMEOUT_S
        while (highest := max(self.available(), default=None)) != version:
            if time.monotonic() > deadline:
                raise InputError(
                    f"requests without a label get version {highest}, not {version}, after {UNLOAD_TIMEOUT_S:.0f} s",
                    "The labels have moved. Run the command again to finish, or restart: make stop, make serve",
                )
            time.sleep(POLL_S)

    def confirm(self, labels: Mapping[str, int]) -> None:
        """Ask by each label. Raises InputError if another version answers, ServingClientError if none does."""
        for label, expected in labels.items():
            answered = self.metadata(contract.MODEL_NAME, label=label).version
            if answered != expected:
                raise InputError(f"label {label} answers with version {answered}, not {expected}")
