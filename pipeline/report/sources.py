"""Everything that the home knows about a run, read when it is first needed. What cannot be read is noted, not fatal."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics

from components.common import contract
from components.common.class_names import class_names
from components.common.errors import InputError
from components.common.home import RESULT_FILE, Home
from components.validation import reference_predictions
from components.validation.reference_predictions import ReferencePredictions
from components.validation.verdict import Verdict
from components.versions import manifest
from components.versions.manifest import Manifest
from pipeline import history, records
from pipeline.history import Artifact, Execution
from pipeline.records import Run

Read = TypeVar("Read")
UNREADABLE: Final = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError),
    *(InputError, zipfile.BadZipFile),
)
STATISTICS_FILE: Final = "FeatureStats.pb"  # TFX's name
CHOICE: Final = "choice"  # property of the Baseline's artifact: version and hash
FINGERPRINT: Final = "input_fingerprint"  # property of the Examples: the hashes of the IDX files


@dataclass
class Sources:
    """The records of one run.

    Attributes:
        executions: of the run, oldest first; [] if the home has no record of them, as for a run on Kubeflow.
        properties: of artifacts, by artifact id.
        previous: the run before it, if the home knows one.
        lacks: what could not be read, and why, by what it is.
    """

    home: Home
    run: Run
    executions: list[Execution] = field(default_factory=list)
    properties: dict[int, dict[str, Any]] = field(default_factory=dict)
    previous: Run | None = None
    lacks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Home, run_id: str) -> Sources:
        """Raises InputError or UsageError if the home has no such run."""
        known = records.runs(home)
        run = records.choose(known, run_id, home)
        before = known[: known.index(run)]
        sources = cls(home, run, previous=before[-1] if before else None)
        sources._add_history()
        return sources

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """run.json; {} if it cannot be read."""
        return self._read("run.json", lambda: dict(json.loads((self.run.folder / RESULT_FILE).read_text()))) or {}

    @functools.cached_property
    def training(self) -> dict[str, Any] | None:
        """history.json of the Trainer."""
        return self._of("training history", "ModelRun", lambda f: json.loads((f / contract.HISTORY_FILE).read_text()))

    @functools.cached_property
    def gate(self) -> Verdict | None:
        return self._of("Evaluator's verdict", "ModelBlessing", lambda f: Verdict.read(f / contract.VERDICT_FILE))

    @functools.cached_property
    def infra(self) -> Verdict | None:
        return self._of("InfraValidator's verdict", "InfraBlessing", lambda f: Verdict.read(f / contract.VERDICT_FILE))

    @functools.cached_property
    def drift(self) -> Verdict | None:
        return self._of("drift of the data", "ExampleAnomalies", lambda f: Verdict.read(f / contract.DRIFT_FILE))

    @functools.cached_property
    def predictions(self) -> ReferencePredictions | None:
        """The model's predictions for the test split."""
        return self._of("predictions for the test split", "ModelEvaluation", reference_predictions.read)

    @functools.cached_property
    def statistics(self) -> dict[str, Statistics]:
        """TFDV's statistics by split; {} if there are none."""

        def read(folder: Path) -> dict[str, Statistics]:
            files = {name: folder / f"Split-{name}" / STATISTICS_FILE for name in contract.SPLITS}
            return {name: Statistics.FromString(path.read_bytes()) for name, path in files.items()}

        return self._of("statistics of the splits", "ExampleStatistics", read) or {}

    @functools.cached_property
    def manifest(self) -> Manifest | None:
        """The manifest of the version that the run pushed or took from the cache."""
        return self._manifest(self.run.version) if self.run.version else None

    @functools.cached_property
    def data_sha256(self) -> dict[str, str]:
        """SHA-256 of each uncompressed IDX file, by role."""
        fingerprints = (self.properties.get(a.id, {}).get(FINGERPRINT) for a in self.outputs("Examples"))
        return self.run.data_sha256 or next((history.settings_in(text) for text in fingerprints), {})

    @functools.cached_property
    def class_names(self) -> list[str]:
        """A name for each class, the number if it has none."""
        classes = int((self.run.settings or {}).get("data", {}).get("classes", 10))
        if self.predictions is not None:
            classes = self.predictions.probabilities.shape[1]
        return class_names(self.run.settings or {}, classes)

    @functools.cached_property
    def baseline_version(self) -> str | None:
        """The pushed version that the model was compared with."""
        made = [a for e in self.executions if e.node == "Baseline" for found in e.outputs.values() for a in found]
        choices = [str(self.properties.get(artifact.id, {}).get(CHOICE) or "") for artifact in made]
        return next((choice.split()[0] for choice in choices if choice), None)

    @functools.cached_property
    def baseline(self) -> Sources | None:
        """The records of the run that pushed the baseline."""
        if self.baseline_version is None or (found := self._manifest(self.baseline_version)) is None:
            return None
        sources = Sources(self.home, Run(found.run_id, self.home.logs(found.run_id), version=str(found.version)))
        sources._add_history()
        return sources

    def outputs(self, kind: str) -> list[Artifact]:
        """The artifacts of a type that the run's nodes wrote or took from the cache, without the Baseline's copy."""
        made = (found for e in self.executions if e.node != "Baseline" for found in e.outputs.values())
        return [artifact for found in made for artifact in found if artifact.type == kind]

    def _add_history(self) -> None:
        def read() -> None:
            with history.opened(self.home) as past:
                if past is not None:
                    self.executions = past.run(self.run.run_id)
                    self.properties = past.artifact_properties((CHOICE, FINGERPRINT))

        self._read("record in ML Metadata", read)
        if not self.executions:
            self.lacks.setdefault("record in ML Metadata", "the home has none of this run")

    def _manifest(self, version: str) -> Manifest | None:
        return self._read(f"manifest of version {version}", lambda: manifest.read(self.home.serving_model / version))

    def _of(self, what: str, kind: str, read: Callable[[Path], Read]) -> Read | None:
        """Read from the run's artifact of a type; None without a note if the run made none."""
        made = self.outputs(kind)
        return self._read(what, lambda: read(made[0].folder)) if made else None

    def _read(self, what: str, read: Callable[[], Read]) -> Read | None:
        try:
            return read()
        except FileNotFoundError:
            self.lacks[what] = "removed from the home, or the run's version of the product did not record it"
        except UNREADABLE as e:
            self.lacks[what] = str(e).splitlines()[0] if str(e) else type(e).__name__
        return None
