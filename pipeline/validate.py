"""Prove that the served version is the one that was blessed, row by row, up to the first row that fails."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.common import contract
from components.common.errors import InputError, UserError
from components.common.home import Home
from components.validation import reference_predictions, trial_server
from components.validation.reference_predictions import SAME_PROBABILITY
from components.validation.trial_server import ServerError, serving
from components.versions import manifest, release
from components.versions.manifest import Manifest
from pipeline.history import check_metadata

FAILED_EXIT_CODE: Final = 6
START_TIMEOUT_S: Final = 120.0
SINGLES: Final = 200  # test images that are sent one by one, over gRPC and again over REST


@dataclass(frozen=True)
class Row:
    """One check: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str


class _CheckFailed(Exception):
    """A row that failed; the text is what was found."""


def validate(home: Home, label: str | None, notify: Callable[[str], object]) -> tuple[int, list[Row]]:
    """Compare the version that the home's server serves with its manifest, MLMD and the evaluation.

    Without a running server, starts one and stops it afterwards. If the served version changes meanwhile, starts again
    once: all rows are about the same version.

    Args:
        label: version label to check; None for the version that serves requests without a label.
        notify: receives a line when a server is started.

    Returns:
        The version and the rows, up to the first that failed.

    Raises:
        InputError: the database cannot be read, nothing was pushed, no server can be started, it stops, or the served
            version changes again.
    """
    check_metadata(home.metadata)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_server(home, notify))
        except InputError:
            if (refused := _unservable(home, label)) is None:
                raise
            return refused
        for _ in range(2):
            proof = _Proof(home, server, label, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            rows = proof.rows()
            now = proof.served_version() if proof.version else 0
            if now == proof.version:
                return proof.version, rows
    raise InputError(f"the served version changed from {proof.version} to {now} during the validation", "Run it again.")


@contextlib.contextmanager
def _server(home: Home, notify: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """The backend and the ports of the home's server, as `status` reports them; started for the block if necessary."""
    with contextlib.ExitStack() as stack:
        try:
            server = serving("status", "--home", str(home.root))
        except ServerError:
            notify("no server is running: starting one for the validation")
            log = home.logs("validate") / "server.log"
            stack.enter_context(trial_server.server_of(home.root, log, START_TIMEOUT_S))
            server = serving("status", "--home", str(home.root))
        yield server


def _unservable(home: Home, label: str | None) -> tuple[int, list[Row]] | None:
    """A failed row if no server starts because the version to be served is not the one that was pushed."""
    decided = release.read_release(home.root)
    newest = sorted(release.served_versions(home.root, decided))[-1:]
    labelled = decided.labels.get(label or "stable")
    for version in newest if labelled is None else [labelled]:
        try:
            manifest.verify(home.serving_model / str(version))
        except InputError as e:
            return version, [Row("server", False, f"version {version} cannot be served: {e.problem}")]
    return None


class _Proof:
    """The checks, in order; each uses the results of the previous ones."""

    def __init__(self, home: Home, server: dict[str, Any], label: str | None, scratch: Path) -> None:
        self._home, self._server, self._label, self._scratch = home, server, label, scratch
        self.version = 0

    def rows(self) -> list[Row]:
        """The checks up to the first that failed. Raises ServerError if no version answers."""
        found = []
        for name, step in self._steps():
            try:
                found.append(Row(name, True, step()))
            except (_CheckFailed, UserError) as e:
                if isinstance(e, ServerError) and not self.version:
                    raise
                return [*found, Row(name, False, str(e).splitlines()[0])]
        return found

    def served_version(self) -> int:
        """The version that serves requests with the label now. Raises ServerError."""
        blank = np.zeros((1, *self._image_size), np.uint8)
        target = ("--label", self._label) if self._label else ()
        return int(self._replay(blank, 1, *target)[0]["version"])

    def _steps(self) -> Iterator[tuple[str, Any]]:
        yield "server", self._server_version
        yield "manifest", self._read_manifest
        yield "files", self._files
        yield "record", self._record
        yield "blessing", self._blessing
        yield "weights", self._weights
        yield "signatures", self._signatures
        yield "accuracy", self._accuracy
        yield "probabilities", self._probabilities

    def _server_version(self) -> str:
        self._image_size = self._find_image_size()
        self.version = self.served_version()
        self._folder = self._home.serving_model / str(self.version)
        requests = f"with label {self._label}" if self._label else "without a label"
        return f"the {self._server['backend']} backend serves requests {requests} from version {self.version}"

    def _read_manifest(self) -> str:
        self._manifest: Manifest = manifest.read(self._folder)
        if self._manifest.version != self.version:
            raise _CheckFailed(f"{self._folder}: its manifest is for version {self._manifest.version}")
        commit = self._manifest.git_commit or "no git checkout"
        return f"pushed by run {self._manifest.run_id} at {self._manifest.created_utc}, commit {commit}"

    def _files(self) -> str:
        if changed := manifest.changed_files(self._manifest, self._folder):
            raise _CheckFailed(f"{self._folder}: {', '.join(changed)}: changed since the push")
        return f"{len(self._manifest.files)} files match their SHA-256"

    def _record(self) -> str:
        from pipeline import lineage

        with lineage.opened(self._home.metadata) as store:
            self._pushed = lineage.pushed_version(store, self.version)
        if self._pushed is None:
            raise _CheckFailed(f"MLMD has no record of a push of version {self.version}")
        if self._pushed.manifest_sha256 != manifest.sha256(self._folder / manifest.FILE_NAME):
            raise _CheckFailed(f"{self._folder / manifest.FILE_NAME}: not the manifest that is recorded in MLMD")
        return f"model {self._pushed.model_id}, with the recorded manifest"

    def _blessing(self) -> str:
        assert self._pushed is not None
        if not self._pushed.blessed or not self._pushed.infra_blessed:
            raise _CheckFailed(f"MLMD: blessed {self._pushed.blessed}, infra blessed {self._pushed.infra_blessed}")
        if not self._manifest.blessed or not self._manifest.infra_blessed:
            raise _CheckFailed("the manifest does not say that the model was blessed")
        gate = [check for check in self._manifest.gate if not check["passed"]]
        if gate:
            raise _CheckFailed(f"the manifest lists {len(gate)} checks that failed")
        accuracy = self._manifest.metrics["sparse_categorical_accuracy"]
        return f"by evaluation {self._pushed.evaluation_id}: {len(self._manifest.gate)} checks, accuracy {accuracy:.4f}"

    def _weights(self) -> str:
        from components.pusher import saved_weights
        from components.versions.weights import weights_sha256

        now = weights_sha256(saved_weights(self._folder))
        if now != self._manifest.weights_sha256:
            raise _CheckFailed(f"weights {now[:12]}, but the manifest says {self._manifest.weights_sha256[:12]}")
        return f"weights_sha256 {now[:12]}..."

    def _signatures(self) -> str:
        version = ("--version", str(self.version))
        signatures = serving("signatures", "--home", str(self._home.root), *version)["signatures"]
        wanted = {
            contract.SERVING_DEFAULT: ([contract.IMAGES], [contract.CLASSES, contract.PROBABILITIES]),
            contract.SERVING_ENCODED: ([contract.ENCODED_IMAGES], [contract.CLASSES, contract.PROBABILITIES]),
            contract.SERVING_EXAMPLES: ([contract.EXAMPLES], [contract.CLASSES, contract.SCORES]),
        }
        for name, (inputs, outputs) in wanted.items():
            found = signatures.get(name)
            if found is None or (sorted(found["inputs"]), sorted(found["outputs"])) != (inputs, outputs):
                raise _CheckFailed(f"signature {name}: {found}, expected inputs {inputs}, outputs {outputs}")
        return ", ".join(wanted)

    def _accuracy(self) -> str:
        from pipeline import integrity

        assert self._pushed is not None
        evaluation = integrity.located(self._pushed.evaluation_uri, self._home.artifacts)
        try:
            self._expected = reference_predictions.read(evaluation)
        except (OSError, ValueError) as e:
            raise _CheckFailed(f"{evaluation}: the evaluation's predictions are missing or damaged ({e})") from e
        _, self._served = self._replay(self._expected.images, SINGLES, "--version", str(self.version))
        right = self._served["grpc"].argmax(axis=1) == self._expected.labels
        served, evaluated = float(right.mean()), self._manifest.metrics["sparse_categorical_accuracy"]
        if abs(served - evaluated) > 1e-6:
            raise _CheckFailed(f"served {served:.6f}, but evaluated {evaluated:.6f}")
        return f"{served:.4f} on {len(right):,} test images, as evaluated"

    def _probabilities(self) -> str:
        worst = {
            name: float(np.abs(served - self._expected.probabilities[: len(served)]).max())
            for name, served in self._served.items()
        }
        if not all(difference <= SAME_PROBABILITY for difference in worst.values()):
            raise _CheckFailed(f"largest difference: gRPC {worst['grpc']:.2g}, REST {worst['rest']:.2g}")
        return f"largest difference: gRPC {worst['grpc']:.2g}, REST {worst['rest']:.2g}"

    def _find_image_size(self) -> tuple[int, int]:
        signatures = serving("signatures", "--home", str(self._home.root))["signatures"]
        try:
            _, height, width = signatures[contract.SERVING_DEFAULT]["inputs"][contract.IMAGES]["shape"]
        except (KeyError, ValueError):
            raise _CheckFailed("the served model was not exported by this pipeline") from None
        return height, width

    def _replay(self, images: Any, singles: int, *target: str) -> tuple[dict[str, Any], dict[str, Any]]:
        ports = self._server["grpc_port"], self._server["rest_port"]
        return trial_server.replay(images, self._scratch, *ports, singles, *target)


def to_json(version: int, rows: list[Row]) -> str:
    passed = all(row.passed for row in rows)
    failed = next((row.name for row in rows if not row.passed), None)
    document = {"version": version, "valid": passed, "failed_row": failed, "rows": [asdict(row) for row in rows]}
    return json.dumps(document)
