"""What is served, and is it what was blessed? Each row is one proof; the first that fails names the trouble."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from components.common import ROOT, contract
from components.common.errors import InputError, UserError
from components.common.home import Home
from components.versions import manifest
from components.versions.manifest import Manifest

FAILED_EXIT_CODE: Final = 6
SAME_PROBABILITY: Final = 1e-5
SINGLES: Final = 200  # test images that are asked about one by one, over gRPC and over REST


@dataclass(frozen=True)
class Row:
    """One proof: what was looked at, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str


class _Disproof(Exception):
    """A row that does not hold."""


def validate(home: Home, label: str | None = None) -> tuple[int, list[Row]]:
    """Hold the version that the home's server answers with against its manifest, MLMD and the evaluation.

    Args:
        label: the version label to ask; None: what the server answers to unlabelled requests.

    Returns:
        The version and the rows, ending with the first that does not hold.

    Raises:
        InputError: no server is running.
    """
    server = _serving(home, "status")
    with tempfile.TemporaryDirectory() as scratch:
        proof = _Proof(home, server, label, Path(scratch))
        rows: list[Row] = []
        for name, step in proof.steps():
            try:
                rows.append(Row(name, True, step()))
            except (_Disproof, UserError) as e:
                rows.append(Row(name, False, str(e).splitlines()[0]))
                break
        return proof.version, rows


class _Proof:
    """The rows, in order; what one finds the next ones build on."""

    def __init__(self, home: Home, server: dict[str, Any], label: str | None, scratch: Path) -> None:
        self._home, self._server, self._label, self._scratch = home, server, label, scratch
        self.version = 0

    def steps(self) -> Iterator[tuple[str, Any]]:
        yield "server", self._answers_at_all
        yield "manifest", self._has_a_manifest
        yield "files", self._files_are_the_pushed_ones
        yield "record", self._is_in_mlmd
        yield "blessing", self._was_blessed
        yield "weights", self._weights
        yield "signatures", self._signatures
        yield "accuracy", self._same_accuracy
        yield "probabilities", self._same_probabilities

    def _answers_at_all(self) -> str:
        import numpy as np

        ports = ["--grpc-port", str(self._server["grpc_port"]), "--rest-port", str(self._server["rest_port"])]
        self._ports = ports
        blank = self._scratch / "blank.npy"
        np.save(blank, np.zeros((1, *self._image_size()), np.uint8))
        self.version = self._replay(blank, "1")[0]["version"]
        self._folder = self._home.serving_model / str(self.version)
        asked = f"label {self._label}" if self._label else "unlabelled requests"
        return f"{self._server['backend']} backend answers {asked} with version {self.version}"

    def _has_a_manifest(self) -> str:
        self._manifest: Manifest = manifest.read(self._folder)
        if self._manifest.version != self.version:
            raise _Disproof(f"{self._folder}: its manifest is of version {self._manifest.version}")
        commit = self._manifest.git_commit or "no git checkout"
        return f"pushed by run {self._manifest.run_id} at {self._manifest.created_utc}, commit {commit}"

    def _files_are_the_pushed_ones(self) -> str:
        if changed := manifest.changed_files(self._manifest, self._folder):
            raise _Disproof(f"{self._folder}: {', '.join(changed)}: not as pushed")
        return f"{len(self._manifest.files)} files match their SHA-256"

    def _is_in_mlmd(self) -> str:
        from pipeline import lineage

        with lineage.opened(self._home.metadata) as store:
            self._pushed = lineage.pushed_version(store, self.version)
        if self._pushed is None:
            raise _Disproof(f"MLMD knows of no push of version {self.version}")
        if self._pushed.manifest_sha256 != manifest.sha256(self._folder / manifest.FILE_NAME):
            raise _Disproof(f"{self._folder / manifest.FILE_NAME}: not the manifest that was recorded in MLMD")
        return f"model {self._pushed.model_id}, its manifest is the one that was recorded"

    def _was_blessed(self) -> str:
        assert self._pushed is not None
        if not self._pushed.blessed or not self._pushed.infra_blessed:
            raise _Disproof(f"MLMD: blessed {self._pushed.blessed}, infra blessed {self._pushed.infra_blessed}")
        if not self._manifest.blessed or not self._manifest.infra_blessed:
            raise _Disproof("the manifest does not say that the model was blessed")
        gate = [check for check in self._manifest.gate if not check["passed"]]
        if gate:
            raise _Disproof(f"the manifest lists {len(gate)} checks that failed")
        accuracy = self._manifest.metrics["sparse_categorical_accuracy"]
        return f"by evaluation {self._pushed.evaluation_id}: {len(self._manifest.gate)} checks, accuracy {accuracy:.4f}"

    def _weights(self) -> str:
        from components.pusher import saved_weights
        from components.versions.weights import weights_sha256

        now = weights_sha256(saved_weights(self._folder))
        if now != self._manifest.weights_sha256:
            raise _Disproof(f"weights {now[:12]}, the manifest says {self._manifest.weights_sha256[:12]}")
        return f"weights_sha256 {now[:12]}..."

    def _signatures(self) -> str:
        signatures = _serving(self._home, "signatures", "--version", str(self.version))["signatures"]
        wanted = {
            contract.SERVING_DEFAULT: ([contract.IMAGES], [contract.CLASSES, contract.PROBABILITIES]),
            contract.SERVING_ENCODED: ([contract.ENCODED_IMAGES], [contract.CLASSES, contract.PROBABILITIES]),
            contract.SERVING_EXAMPLES: ([contract.EXAMPLES], [contract.CLASSES, contract.SCORES]),
        }
        for name, (inputs, outputs) in wanted.items():
            found = signatures.get(name)
            if found is None or (sorted(found["inputs"]), sorted(found["outputs"])) != (inputs, outputs):
                raise _Disproof(f"signature {name}: {found}, expected inputs {inputs}, outputs {outputs}")
        return ", ".join(wanted)

    def _same_accuracy(self) -> str:
        import numpy as np

        from components.validation import reference_predictions

        assert self._pushed is not None
        try:
            self._expected = reference_predictions.read(Path(self._pushed.evaluation_uri))
        except (OSError, ValueError, KeyError) as e:
            raise _Disproof(f"{self._pushed.evaluation_uri}: the evaluation's answers are gone or damaged ({e})") from e
        asked = self._scratch / "images.npy"
        np.save(asked, self._expected.images)
        report, self._answers = self._replay(asked, str(SINGLES))
        if report["version"] != self.version:
            raise _Disproof(f"version {report['version']} answered this time: the server changed in between")
        right = self._answers["grpc"].argmax(axis=1) == self._expected.labels
        served, evaluated = float(right.mean()), self._manifest.metrics["sparse_categorical_accuracy"]
        if abs(served - evaluated) > 1e-6:
            raise _Disproof(f"served {served:.6f}, evaluated {evaluated:.6f}")
        return f"{served:.4f} on {len(right):,} test images, as evaluated"

    def _same_probabilities(self) -> str:
        import numpy as np

        worst = {
            name: float(np.abs(answers - self._expected.probabilities[: len(answers)]).max())
            for name, answers in self._answers.items()
        }
        if not all(difference <= SAME_PROBABILITY for difference in worst.values()):
            raise _Disproof(f"largest difference: gRPC {worst['grpc']:.2g}, REST {worst['rest']:.2g}")
        return f"largest difference: gRPC {worst['grpc']:.2g}, REST {worst['rest']:.2g}"

    def _image_size(self) -> tuple[int, int]:
        signatures = _serving(self._home, "signatures")["signatures"]
        try:
            _, height, width = signatures[contract.SERVING_DEFAULT]["inputs"][contract.IMAGES]["shape"]
        except (KeyError, ValueError):
            raise _Disproof("what is served is no model of this product") from None
        return height, width

    def _replay(self, images: Path, singles: str) -> tuple[dict[str, Any], dict[str, Any]]:
        import numpy as np

        output = self._scratch / "answers.npz"
        labelled = ["--label", self._label] if self._label else []
        words = ["replay", str(images), "--output", str(output), "--singles", singles, *self._ports, *labelled]
        report = _run_serving(*words)
        with np.load(output, allow_pickle=False) as arrays:
            return report, dict(arrays)


def _serving(home: Home, command: str, *words: str) -> dict[str, Any]:
    return _run_serving(command, "--home", str(home.root), *words)


def _run_serving(*words: str) -> dict[str, Any]:
    """Run a command of the serving CLI, a process of its own; its --json answer. Raises InputError with its words."""
    done = subprocess.run([sys.executable, "-m", "serving", *words, "--json"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        problem, _, remedy = done.stderr.strip().partition("\n")
        raise InputError(problem or f"python -m serving {words[0]} ended with exit code {done.returncode}", remedy)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def to_json(version: int, rows: list[Row]) -> str:
    passed = all(row.passed for row in rows)
    failed = next((row.name for row in rows if not row.passed), None)
    document = {"version": version, "valid": passed, "failed_row": failed, "rows": [asdict(row) for row in rows]}
    return json.dumps(document)
