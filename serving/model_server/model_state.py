"""State of a model and its versions, without threads or locks: what to load, what to unload, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.model_server.errors import Code, ServingError
from serving.model_server.servable import Servable
from serving.protocol import serving_pb2 as pb

State = pb.ModelVersionStatus.State


@dataclass
class VersionState:
    """A version that the model's policy chose, now or earlier.

    Attributes:
        code, message: the error of the last attempt to load it; 0 and "" if there was no error.
        servable: set while the version is available.
        next_try_s: time.monotonic() before which it is not loaded again.
        dropped: whether the policy has stopped choosing it. A failed version is retried if it is chosen again.
    """

    number: int
    folder: Path
    state: int = State.START
    code: int = 0
    message: str = ""
    servable: Servable | None = None
    tries: int = 0
    next_try_s: float = 0.0
    dropped: bool = False


@dataclass
class ModelState:
    """A model with its config; `aspired` are the versions that the policy chose at the last poll."""

    config: pb.ModelConfig
    versions: dict[int, VersionState] = field(default_factory=dict)
    aspired: Mapping[int, Path] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)

    def configure(self, config: pb.ModelConfig) -> None:
        self.config, self.labels = config, dict(config.version_labels)

    def available(self) -> list[int]:
        return [number for number, version in self.versions.items() if version.state == State.AVAILABLE]

    def check_labels(self, config: pb.ModelConfig, before_available: bool) -> None:
        """Check the labels of a new config for this model.

        Args:
            before_available: whether a label that is new, or stays, may name a version that is not available.

        Raises:
            ServingError: a label names a version that is not available.
        """
        available = self.available()
        for label, number in config.version_labels.items():
            moved = self.labels.get(label, number) != number
            if number not in available and (moved or not before_available):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference",
                )

    def aspire(self, aspired: Mapping[int, Path]) -> None:
        """Record the versions that a poll chose."""
        self.aspired = aspired
        for number, folder in aspired.items():
            known = self.versions.get(number)
            if known is None or (known.state == State.END and (not known.code or known.dropped)):
                self.versions[number] = VersionState(number, folder)
        for number, version in list(self.versions.items()):
            version.dropped = version.dropped or number not in aspired
            if version.state == State.END and version.code and not version.folder.exists():
                del self.versions[number]  # a failed version whose folder was removed may reappear repaired

    def due(self, now_s: float) -> list[VersionState]:
        """Return the versions to load now."""
        return [
            version
            for number, version in self.versions.items()
            if number in self.aspired and version.state in (State.START, State.LOADING) and version.next_try_s <= now_s
        ]

    def obsolete(self) -> list[VersionState]:
        """Return the versions to unload. If there are aspired versions, this is [] until one of them is available."""
        if self.aspired and not any(number in self.aspired for number in self.available()):
            return []
        return [
            version
            for number, version in self.versions.items()
            if number not in self.aspired and version.state not in (State.UNLOADING, State.END)
        ]

    def load_errors(self) -> list[str] | None:
        """Return [] if a version is available, one message per version if all have failed, and None otherwise."""
        if self.available():
            return []
        tried = [version for number, version in self.versions.items() if number in self.aspired]
        if not tried or any(version.state != State.END for version in tried):
            return None
        return [
            f"{{name: {self.config.name} version: {version.number}}} due to error: "
            f"{Code(version.code).name}: {version.message}}}, "
            for version in tried
        ]
