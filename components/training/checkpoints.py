"""Checkpoints of a training run: one file, replaced atomically, loaded only if it is complete and of the same run.

The file is a line of JSON (`key`, `step`, `sha256` of the rest, `history`), then a NumPy .npz of all variables. The key
is a hash of everything that the weights depend on: settings, data, preprocessing, source. No TensorFlow import.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
IGNORED_SETTINGS: Final = ("checkpoint_every_steps", "checkpoint_folder")  # they do not change the weights
KEPT_FILES: Final = 5  # of runs that were never finished; a checkpoint of the default network has 2 MB
NAME_DIGITS: Final = 16  # of the key, in the file name
SUFFIX: Final = ".checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A training run after `step` steps: all its variables, and its history so far."""

    step: int
    arrays: Arrays
    history: list[dict[str, Any]]


class MismatchError(Exception):
    """Why a run cannot resume from a file."""


def run_key(settings: Mapping[str, Any], **rest: Any) -> str:
    """SHA-256 of everything that the weights depend on, as JSON."""
    used = {name: value for name, value in settings.items() if name not in IGNORED_SETTINGS}
    return hashlib.sha256(json.dumps({"settings": used, **rest}, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoint of one run, in a folder shared by all runs.

    Args:
        folder: created with the first checkpoint.
        key: the result of `run_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._key = key
        self.path = folder / f"{key[:NAME_DIGITS]}{SUFFIX}"

    def load(self, like: Arrays) -> Checkpoint | None:
        """The checkpoint, if there is one whose arrays have the names, shapes and dtypes of `like`.

        A file that is damaged or from another run is ignored, with a warning that says why.
        """
        try:
            return self._read(like)
        except FileNotFoundError:
            return None
        except (MismatchError, OSError) as e:
            log.warning("checkpoint %s is ignored, training starts from step 0: %s", self.path, e)
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint. If it cannot be written, log a warning and keep the previous one."""
        payload = io.BytesIO()
        np.savez(payload, **dict(checkpoint.arrays))  # type: ignore[arg-type]
        header = {
            "key": self._key,
            "step": checkpoint.step,
            "sha256": hashlib.sha256(payload.getbuffer()).hexdigest(),
            "history": checkpoint.history,
        }
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(payload.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            self._remove_oldest()
        except OSError as e:
            log.warning("no checkpoint at step %d: %s cannot be written (%s)", checkpoint.step, self.path, e.strerror)
            with suppress(OSError):
                temporary.unlink()

    def remove(self) -> None:
        """Delete the checkpoint of a finished run."""
        with suppress(OSError):
            self.path.unlink()

    def _read(self, like: Arrays) -> Checkpoint:
        with open(self.path, "rb") as file:
            first_line, payload = file.readline(), file.read()
        try:
            header = json.loads(first_line)
            key, digest = header["key"], header["sha256"]
            step, history = int(header["step"]), list(header["history"])
        except (ValueError, KeyError, TypeError) as e:
            raise MismatchError(f"its header cannot be read ({type(e).__name__})") from e
        if key != self._key:
            raise MismatchError("it is from a run with other settings, data or source")
        if hashlib.sha256(payload).hexdigest() != digest:
            raise MismatchError("it is truncated or damaged: its content does not match the SHA-256 in its header")
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (ValueError, zipfile.BadZipFile) as e:
            raise MismatchError(f"its arrays cannot be read ({e})") from e
        if (found := _form(arrays)) != (wanted := _form(like)):
            different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise MismatchError(f"it is from another architecture or optimizer: {', '.join(different[:3])} differ")
        return Checkpoint(step, arrays, history)

    def _remove_oldest(self) -> None:
        ours = f"{'[0-9a-f]' * NAME_DIGITS}{SUFFIX}"  # the folder may be the user's, with checkpoints of other programs
        others = [path for path in self.path.parent.glob(ours) if path != self.path]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT_FILES - 1 :]:
            path.unlink(missing_ok=True)


def _form(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in arrays.items()}
