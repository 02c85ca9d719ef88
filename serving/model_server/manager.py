"""Models, their versions and labels: what is loaded, what becomes loaded, what answers a request.

A new version is loaded beside the old one, warmed up, made available, and only then is the old one unloaded, after its
last request in flight. One thread does the loading; requests never wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.model_server import versions
from serving.model_server.capi import TensorFlowError
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.servable import Servable
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
State = pb.ModelVersionStatus.State
MANAGE_INTERVAL_S: Final = 0.1

Loader = Callable[[str, int, Path], Servable]
"""Loads and warms up a version: (model name, version, folder). Raises TensorFlowError or ServingError."""


@dataclass(frozen=True)
class Policy:
    """How the manager watches and loads.

    Attributes:
        poll_s: seconds between two looks at the file system; 0 looks once, below 0 never.
        max_retries: further tries at a version that does not load.
        retry_interval_s: seconds between them.
        labels_before_available: allow labels for versions that are not loaded (yet).
    """

    poll_s: float = 1.0
    max_retries: int = 5
    retry_interval_s: float = 60.0
    labels_before_available: bool = False


@dataclass
class _Version:
    number: int
    folder: Path
    state: int = State.START
    code: int = 0
    message: str = ""
    servable: Servable | None = None
    tries: int = 0
    next_try: float = 0.0
    dropped: bool = False


@dataclass
class _Model:
    config: pb.ModelConfig
    records: dict[int, _Version] = field(default_factory=dict)
    aspired: dict[int, Path] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)

    def available(self) -> list[int]:
        return [n for n, record in self.records.items() if record.state == State.AVAILABLE]


class Manager:
    """Owns all versions of all models. Every method may be called from any thread."""

    def __init__(self, load: Loader, policy: Policy) -> None:
        self._load, self._policy = load, policy
        self._changed = threading.Condition()  # guards everything below
        self._models: dict[str, _Model] = {}
        self._removed: dict[str, _Model] = {}  # no longer configured: for `status`
        self._stopping = False
        self._poll_now = True
        self._frozen_by = ""
        self._thread = threading.Thread(target=self._work, name="model-manager", daemon=True)

    def start(self, configs: Sequence[pb.ModelConfig]) -> None:
        """Begin to watch and load. Raises ServingError if the configs cannot be right."""
        self._replace(configs)
        self._thread.start()

    def stop_watching(self) -> None:
        """Begin no further load; what waits for one gets an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Unload everything once its requests have been answered; False if that takes too long."""
        self.stop_watching()
        self._thread.join(timeout_s)
        records = [record for model in self._models.values() for record in model.records.values()]
        done = [record.servable.unload(timeout_s) for record in records if record.servable is not None]
        return all(done) and not self._thread.is_alive()

    def reload(self, configs: Sequence[pb.ModelConfig]) -> None:
        """Replace the whole list of models; returns when every new one is available or has failed.

        Raises:
            ServingError: the list cannot be right, a label names a version that is not available, or a model that
                is new did not load.
        """
        with self._changed:
            new = {config.name for config in configs} - self._models.keys()
        self._replace(configs)
        self.wait(new, what="model")

    def wait(self, names: set[str] | None = None, timeout_s: float | None = None, what: str = "servable") -> bool:
        """Wait until the models (None: all) have an available version; False on time-out.

        Raises:
            ServingError: all versions of a model that were to be loaded have failed, or the server stops.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._settled(set(self._models) if names is None else names, what), timeout_s
            )

    @contextmanager
    def use(self, spec: pb.ModelSpec) -> Iterator[Servable]:
        """The loaded version that a request names, held until the request is answered. Raises ServingError."""
        servable = self._acquire(spec)
        try:
            yield servable
        finally:
            servable.release()

    def status(self, spec: pb.ModelSpec) -> pb.GetModelStatusResponse:
        """States of one or all versions, newest first. A label in the spec is ignored, as TensorFlow Serving does."""
        response = pb.GetModelStatusResponse()
        wanted = spec.version.value if spec.HasField("version") else None
        with self._changed:
            model = self._models.get(spec.name) or self._removed.get(spec.name)
            for number, record in sorted(model.records.items() if model else (), reverse=True):
                if wanted in (None, number):
                    status = response.model_version_status.add(version=number, state=record.state)
                    status.status.error_code, status.status.error_message = record.code, record.message
        if not response.model_version_status:
            what = "any versions" if wanted is None else f"version {wanted}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {what} of model {spec.name}")
        return response

    def _acquire(self, spec: pb.ModelSpec) -> Servable:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        kind = spec.WhichOneof("version_choice")
        with self._changed:
            model = self._models.get(spec.name)
            number: int | None
            if kind == "version_label":
                if model is None or spec.version_label not in model.labels:
                    raise invalid(f"Unrecognized servable version label: {spec.version_label}")
                number = model.labels[spec.version_label]
            elif kind == "version":
                number = spec.version.value
            else:
                number = max(model.available(), default=None) if model else None
            record = model.records.get(number) if model and number is not None else None
            if record and record.state == State.AVAILABLE and record.servable and record.servable.acquire():
                return record.servable
        asked = f"Latest({spec.name})" if kind is None else f"Specific({spec.name}, {number})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {asked}")

    def _replace(self, configs: Sequence[pb.ModelConfig]) -> None:
        versions.check(configs)
        with self._changed:
            for config in configs:
                self._check_labels(config)
            kept = {config.name: self._models.get(config.name) for config in configs}
            dropped = {name: model for name, model in self._models.items() if name not in kept}
            self._removed = {n: m for n, m in {**self._removed, **dropped}.items() if n not in kept}
            self._models = {c.name: kept[c.name] or _Model(c) for c in configs}
            for config in configs:
                model = self._models[config.name]
                model.config, model.labels = config, dict(config.version_labels)
            self._poll_now = True
            self._changed.notify_all()
        for model in dropped.values():
            for record in model.records.values():
                self._retire(record)

    def _check_labels(self, config: pb.ModelConfig) -> None:
        model = self._models.get(config.name)
        available = model.available() if model else []
        for label, number in config.version_labels.items():
            known = model is not None and label in model.labels
            if number not in available and (known or not self._policy.labels_before_available):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference",
                )

    def _settled(self, names: set[str], what: str) -> bool:
        if self._stopping:
            raise ServingError(Code.UNAVAILABLE, "The server is stopping")
        failed = []
        for name in names:
            model = self._models.get(name)
            if model is None or model.available():
                continue
            tried = [record for number, record in model.records.items() if number in model.aspired]
            if not tried or any(record.state != State.END for record in tried):
                return False
            failed += [
                f"{{name: {name} version: {record.number}}} due to error: "
                f"{Code(record.code).name}: {record.message}}}, "
                for record in tried
            ]
        if failed:
            raise ServingError(Code.UNKNOWN, f"{len(failed)} {what}(s) did not become available: {{{''.join(failed)}}}")
        return True

    def _work(self) -> None:
        last_poll = float("-inf")
        while True:
            with self._changed:
                if self._stopping:
                    return
                due = self._policy.poll_s > 0 and time.monotonic() - last_poll >= self._policy.poll_s
                poll, self._poll_now = (due or self._poll_now) and self._policy.poll_s >= 0, False
            if poll:
                self._poll()
                last_poll = time.monotonic()
            while self._load_one():
                pass
            self._unload_unaspired()
            with self._changed:
                if not self._poll_now and not self._stopping:
                    self._changed.wait(MANAGE_INTERVAL_S)

    def _poll(self) -> None:
        """Look at the file system. A base path that is missing freezes all models, as in TensorFlow Serving."""
        with self._changed:
            configs = [model.config for model in self._models.values()]
        try:
            found = {config.name: versions.aspired(config) for config in configs}
        except OSError as e:
            if self._frozen_by != str(e):
                log.warning("no version of any model changes until this is mended: %s", e)
            self._frozen_by = str(e)
            return
        self._frozen_by = ""
        with self._changed:
            for name, aspired in found.items():
                model = self._models.get(name)
                if model is None:
                    continue
                model.aspired = aspired
                for number, folder in aspired.items():
                    record = model.records.get(number)
                    if record is None or (record.state == State.END and (record.code == 0 or record.dropped)):
                        model.records[number] = _Version(number, folder)
                for number, record in list(model.records.items()):
                    record.dropped = record.dropped or number not in aspired  # asked for again, it is tried again
                    if record.state == State.END and record.code and not record.folder.exists():
                        del model.records[number]  # a failed version that was removed may come back mended
            self._changed.notify_all()

    def _load_one(self) -> bool:
        """Load the highest version that is due; False if there is none."""
        now = time.monotonic()
        with self._changed:
            due = [
                (number, name, record)
                for name, model in self._models.items()
                for number, record in model.records.items()
                if number in model.aspired and record.state in (State.START, State.LOADING) and record.next_try <= now
            ]
            if not due or self._stopping:
                return False
            number, name, record = max(due, key=lambda entry: entry[:2])
            record.state = State.LOADING
        started = time.monotonic()
        try:
            servable = self._load(name, number, record.folder)
        except (TensorFlowError, ServingError) as e:
            self._load_failed(name, record, e.code, e.message)
            return True
        except Exception as e:  # whatever a version holds, the server goes on
            self._load_failed(name, record, Code.INTERNAL, f"{type(e).__name__}: {e}")
            return True
        with self._changed:
            wanted = record.state == State.LOADING  # else its model was removed meanwhile
            if wanted:
                record.servable, record.state, record.code, record.message = servable, State.AVAILABLE, 0, ""
            self._changed.notify_all()
        if not wanted:
            servable.unload()
            return True
        log.info("%s version %d is available after %.2f s", name, number, time.monotonic() - started)
        return True

    def _load_failed(self, name: str, record: _Version, code: int, message: str) -> None:
        record.tries += 1
        over = record.tries > self._policy.max_retries
        log.error(
            "%s version %d does not load%s: %s",
            name, record.number, ", given up" if over else f", again in {self._policy.retry_interval_s:.0f} s", message,
        )  # fmt: skip
        with self._changed:
            if record.state != State.LOADING:  # its model was removed meanwhile
                return
            record.code, record.message = code, message
            record.next_try = time.monotonic() + self._policy.retry_interval_s
            if over:
                record.state = State.END
            self._changed.notify_all()

    def _unload_unaspired(self) -> None:
        """Unload what is no longer wanted, once what is wanted is available (or nothing is wanted)."""
        with self._changed:
            leaving = [
                record
                for model in self._models.values()
                for number, record in model.records.items()
                if number not in model.aspired
                and record.state not in (State.UNLOADING, State.END)
                and (not model.aspired or any(n in model.aspired for n in model.available()))
            ]
        for record in leaving:
            self._retire(record)

    def _retire(self, record: _Version) -> None:
        with self._changed:
            servable, record.servable = record.servable, None
            record.state = State.UNLOADING if servable else State.END
            self._changed.notify_all()
        if servable is not None:  # its last requests may take their time; others must not wait for them
            threading.Thread(target=self._finish, args=(record, servable), name="unload", daemon=True).start()

    def _finish(self, record: _Version, servable: Servable) -> None:
        servable.unload()
        with self._changed:
            record.state = State.END
            self._changed.notify_all()
        log.info("%s version %d is unloaded", servable.name, servable.version)
