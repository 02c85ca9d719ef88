"""Loads, swaps and unloads the versions of all models, and finds the version that a request names.

A new version is loaded beside the old one, warmed up and made available. Only then is the old one unloaded, after its
last request in flight. All loading is done by one thread, and requests never wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.model_server import versions
from serving.model_server.capi import TensorFlowError
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.model_state import ModelState, State, VersionState
from serving.model_server.servable import Servable
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
MANAGE_INTERVAL_S: Final = 0.1
MAX_LISTED_CHARS: Final = 200

Loader = Callable[[str, int, Path], Servable]
"""Loads and warms up a version: (model name, version, folder). Raises TensorFlowError or ServingError."""


@dataclass(frozen=True)
class Policy:
    """How the manager polls and loads.

    Attributes:
        poll_s: seconds between two polls of the file system; 0 polls once, a negative number never.
        max_retries: further attempts to load a version after the first attempt failed.
        retry_interval_s: seconds between attempts.
        labels_before_available: whether a new label may name a version that is not available.
    """

    poll_s: float = 1.0
    max_retries: int = 5
    retry_interval_s: float = 60.0
    labels_before_available: bool = False


class Manager:
    """Owns all versions of all models. Thread-safe."""

    def __init__(self, load: Loader, policy: Policy) -> None:
        self._load, self._policy = load, policy
        self._changed = threading.Condition()  # guards everything below
        self._models: dict[str, ModelState] = {}
        self._removed: dict[str, ModelState] = {}  # no longer configured; kept for `status`
        self._stopping = False
        self._poll_now = True
        self._poll_error = ""
        self._thread = threading.Thread(target=self._work, name="model-manager", daemon=True)

    def start(self, configs: Sequence[pb.ModelConfig]) -> None:
        """Start polling and loading. Raises ServingError if the configs are invalid."""
        self._replace(configs)
        self._thread.start()

    def stop_watching(self) -> None:
        """Start no further loads. Callers that wait for a load get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Unload everything after the requests in flight. Return False on timeout."""
        self.stop_watching()
        self._thread.join(timeout_s)
        loaded = [v.servable for model in self._models.values() for v in model.versions.values() if v.servable]
        unloaded = [servable.unload(timeout_s) for servable in loaded]
        return all(unloaded) and not self._thread.is_alive()

    def reload(self, configs: Sequence[pb.ModelConfig], timeout_s: float | None = None) -> None:
        """Replace the whole list of models, and wait until every new model is available.

        Raises:
            ServingError: the list is invalid, a label names a version that is not available, or a new model did not
                load, or not in time. In the latter case the list has been replaced.
        """
        with self._changed:
            new = {config.name for config in configs} - self._models.keys()
        self._replace(configs)
        if not self.wait(new, timeout_s, what="model"):
            raise ServingError(Code.DEADLINE_EXCEEDED, f"Models not available after {timeout_s:.0f} s: {_listed(new)}")

    def wait(self, names: set[str] | None = None, timeout_s: float | None = None, what: str = "servable") -> bool:
        """Wait until each of the models (None: all) has an available version. Return False on timeout.

        Raises:
            ServingError: all aspired versions of a model have failed, or the server is stopping.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._all_available(set(self._models) if names is None else names, what), timeout_s
            )

    @contextmanager
    def use(self, spec: pb.ModelSpec) -> Iterator[Servable]:
        """Hold the loaded version that a request names. Raises ServingError."""
        servable = self._acquire(spec)
        try:
            yield servable
        finally:
            servable.release()

    def status(self, spec: pb.ModelSpec) -> pb.GetModelStatusResponse:
        """Return the states of one or all versions, newest first. Ignores a label, as TensorFlow Serving does.

        Raises:
            ServingError: NOT_FOUND.
        """
        response = pb.GetModelStatusResponse()
        wanted = spec.version.value if spec.HasField("version") else None
        with self._changed:
            model = self._models.get(spec.name) or self._removed.get(spec.name)
            for number, version in sorted(model.versions.items() if model else (), reverse=True):
                if wanted in (None, number):
                    status = response.model_version_status.add(version=number, state=version.state)
                    status.status.error_code, status.status.error_message = version.code, version.message
        if not response.model_version_status:
            what = "any versions" if wanted is None else f"version {wanted}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {what} of model {spec.name}")
        return response

    def knows(self, name: str) -> bool:
        """Return whether this is the name of a model, or was."""
        return name in self._models or name in self._removed

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
            version = model.versions.get(number) if model and number is not None else None
            if version and version.state == State.AVAILABLE and version.servable and version.servable.acquire():
                return version.servable
        requested = f"Latest({spec.name})" if kind is None else f"Specific({spec.name}, {number})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {requested}")

    def _replace(self, configs: Sequence[pb.ModelConfig]) -> None:
        versions.check(configs)
        with self._changed:
            models = {config.name: self._models.get(config.name) or ModelState(config) for config in configs}
            for config in configs:
                models[config.name].check_labels(config, self._policy.labels_before_available)
            removed = {name: model for name, model in self._models.items() if name not in models}
            self._removed = {n: m for n, m in {**self._removed, **removed}.items() if n not in models}
            self._models = models
            for config in configs:
                models[config.name].configure(config)
            self._poll_now = True
            self._changed.notify_all()
        for model in removed.values():
            for version in model.versions.values():
                self._retire(version)

    def _all_available(self, names: set[str], what: str) -> bool:
        if self._stopping:
            raise ServingError(Code.UNAVAILABLE, "The server is stopping")
        failed: list[str] = []
        for model in (self._models[name] for name in names if name in self._models):
            errors = model.load_errors()
            if errors is None:
                return False
            failed += errors
        if failed:
            raise ServingError(Code.UNKNOWN, f"{len(failed)} {what}(s) did not become available: {{{''.join(failed)}}}")
        return True

    def _work(self) -> None:
        last_poll_s = float("-inf")
        while True:
            with self._changed:
                if self._stopping:
                    return
                due = self._policy.poll_s > 0 and time.monotonic() - last_poll_s >= self._policy.poll_s
                poll, self._poll_now = (due or self._poll_now) and self._policy.poll_s >= 0, False
            try:
                if poll:
                    last_poll_s = time.monotonic()
                    self._poll()
                while self._load_next():
                    pass
                self._unload_obsolete()
            except Exception:  # a bug must not stop all loading
                log.exception("unexpected failure while models are managed")
            with self._changed:
                if not self._poll_now and not self._stopping:
                    self._changed.wait(MANAGE_INTERVAL_S)

    def _poll(self) -> None:
        """Read the base paths. If one is missing, no model changes, as in TensorFlow Serving."""
        with self._changed:
            configs = [model.config for model in self._models.values()]
        try:
            found = {config.name: versions.aspired(config) for config in configs}
        except (OSError, ValueError) as e:  # ValueError: a path that no file system accepts
            if self._poll_error != str(e):
                log.warning("no version of any model is loaded or unloaded until this is fixed: %s", e)
            self._poll_error = str(e)
            return
        self._poll_error = ""
        with self._changed:
            for name, aspired in found.items():
                if name in self._models:
                    self._models[name].aspire(aspired)
            self._changed.notify_all()

    def _load_next(self) -> bool:
        """Load the highest version that is due. Return False if none is."""
        now_s = time.monotonic()
        with self._changed:
            due = [
                (version.number, name, version) for name, model in self._models.items() for version in model.due(now_s)
            ]
            if not due or self._stopping:
                return False
            number, name, version = max(due, key=lambda entry: entry[:2])
            version.state = State.LOADING
        try:
            servable = self._load(name, number, version.folder)
        except (TensorFlowError, ServingError) as e:
            self._load_failed(name, version, e.code, e.message)
            return True
        except Exception as e:  # no version may crash the server
            self._load_failed(name, version, Code.INTERNAL, f"{type(e).__name__}: {e}")
            return True
        with self._changed:
            wanted = version.state == State.LOADING  # otherwise its model was removed in the meantime
            if wanted:
                version.servable, version.state, version.code, version.message = servable, State.AVAILABLE, 0, ""
            self._changed.notify_all()
        if not wanted:
            servable.unload()
            return True
        log.info("%s version %d is available after %.2f s", name, number, time.monotonic() - now_s)
        return True

    def _load_failed(self, name: str, version: VersionState, code: int, message: str) -> None:
        version.tries += 1
        last = version.tries > self._policy.max_retries
        next_step = "no more retries" if last else f"next attempt in {self._policy.retry_interval_s:.0f} s"
        log.error("%s version %d does not load, %s: %s", name, version.number, next_step, message)
        with self._changed:
            if version.state != State.LOADING:  # its model was removed in the meantime
                return
            version.code, version.message = code, message
            version.next_try_s = time.monotonic() + self._policy.retry_interval_s
            if last:
                version.state = State.END
            self._changed.notify_all()

    def _unload_obsolete(self) -> None:
        with self._changed:
            obsolete = [version for model in self._models.values() for version in model.obsolete()]
        for version in obsolete:
            self._retire(version)

    def _retire(self, version: VersionState) -> None:
        with self._changed:
            servable, version.servable = version.servable, None
            version.state = State.UNLOADING if servable else State.END
            self._changed.notify_all()
        if servable is not None:  # in a thread: its last requests may take long, and must not delay other versions
            threading.Thread(target=self._finish, args=(version, servable), name="unload", daemon=True).start()

    def _finish(self, version: VersionState, servable: Servable) -> None:
        servable.unload()
        with self._changed:
            version.state = State.END
            self._changed.notify_all()
        log.info("%s version %d is unloaded", servable.name, servable.version)


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(sorted(names))
    return text if len(text) <= MAX_LISTED_CHARS else text[:MAX_LISTED_CHARS] + "..."
